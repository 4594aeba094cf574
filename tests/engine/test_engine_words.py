"""Frames that say where in their text they are: the embedded model's alignment head, through the engine."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_reader import GREEDY, Reader, assert_at_rest, new_engine, request
from support import load_model

from streamer import AudioCodec, DelayModel, SamplingParams
from streamer.engine import Engine, EngineConfig, Finished, GenerationRequest, Started
from streamer.models import load_tokenizer
from streamer.text import build_prompt
from streamer.text.positions import script_rows
from streamer.voices import VoiceRegistry
from training.network import DelayNetwork
from training.train_lm import load_network

ASSETS = Path(__file__).parents[2] / "streamer" / "assets"
SAMPLED = SamplingParams()
SCRIPTS = [
    "[S1]Yes, of course I will.",
    "[S1]The train was late.[S2]Again?",
    "[S2]My sister plays the violin at night.",
]


@cache
def embedded() -> tuple[DelayModel, AudioCodec, Any, DelayNetwork]:
    model, codec = DelayModel.from_pretrained(ASSETS / "model"), AudioCodec.from_pretrained(ASSETS / "codec")
    return model, codec, load_tokenizer(ASSETS / "model"), load_network(ASSETS / "model")


@cache
def words_request(number: int, sampling: SamplingParams = SAMPLED, max_rows: int = 26) -> GenerationRequest:
    """A turn of a script and its words, in a voice that all share."""
    model, codec, tokenizer, _ = embedded()
    config = model.config
    voice = VoiceRegistry.from_folders((ASSETS / "voices",), codec).list()[0]
    script = SCRIPTS[number]
    rows = build_prompt(tokenizer, config, script, references=[voice.reference(config.n_vq)])
    start = rows.new_full((1, rows.shape[1]), config.audio_pad_code)
    start[0, 0] = config.audio_start_token_id
    text = script_rows(tokenizer, config, rows, script)
    assert len(script) == text.end - text.start + 3 * script.count("[S")
    return GenerationRequest(
        torch.cat((rows, start)), sampling, seed=number, max_rows=max_rows, text_rows=(text.start, text.end)
    )


def words_engine(**sizes: Any) -> Engine:
    model, codec, _, _ = embedded()
    config = EngineConfig(**{"max_sessions": 4, "max_batch": 4, "kv_rows": 4096, "prefill_chunk_rows": 32, **sizes})
    return Engine(model, codec, config).start()


@torch.no_grad()
def naive_text_rows(work: GenerationRequest, finished: Finished, n_frames: int) -> list[int]:
    """What a plain pass over the whole sequence has the head look at as each frame begins."""
    assert work.text_rows is not None
    network, rows = embedded()[3], torch.cat((work.prompt_rows, torch.from_numpy(finished.rows)))
    positions = torch.arange(len(rows))[None]
    scores = network(rows[None], positions, torch.ones_like(positions)).alignment_scores[0]
    # A frame's first row is drawn from the row before it.
    drawing = slice(len(work.prompt_rows) - 1, len(work.prompt_rows) - 1 + n_frames)
    begin, end = work.text_rows
    return [begin + int(offset) for offset in scores[drawing, begin:end].argmax(-1)]


def assert_read_right(reader: Reader, work: GenerationRequest) -> None:
    finished = reader.finish()
    found = [frame.text_row for frame in reader.frames]
    assert found == naive_text_rows(work, finished, len(reader.frames))
    assert len(set(found)) > 3


def test_every_frame_says_what_a_plain_pass_over_the_sequence_says() -> None:
    engine = words_engine()
    readers = [Reader(engine) for _ in SCRIPTS]
    for number, reader in enumerate(readers):
        reader.submit(words_request(number))
        reader.wait_frames(number)
    for number, reader in enumerate(readers):
        assert_read_right(reader, words_request(number))
    again = Reader(engine).submit(words_request(0))
    assert_read_right(again, words_request(0))
    shared = [event.shared_rows for event in again.events if isinstance(event, Started)]
    assert shared[0] >= words_request(0).text_rows[0]  # type: ignore[index]
    assert_at_rest(engine, [*readers, again])
    engine.stop()


def test_a_turn_that_lends_its_slot_goes_on_where_it_was_in_its_text() -> None:
    engine = words_engine(max_batch=1, max_unsent_frames=3)
    stalled, quick = Reader(engine, keeps_up=False), Reader(engine)
    stalled.submit(words_request(1)).wait_frames(3)
    # The slot is another text's meanwhile.
    assert_read_right(quick.submit(words_request(2)), words_request(2))
    assert len(stalled.frames) == 3
    assert stalled.generation is not None
    stalled.keeps_up = True
    engine.consumed(stalled.generation, 3)
    assert_read_right(stalled, words_request(1))
    assert_at_rest(engine, [stalled, quick])
    engine.stop()


@pytest.mark.parametrize("captured", [False, True])
def test_asking_changes_no_row_and_who_does_not_ask_is_told_nothing(captured: bool) -> None:
    engine = words_engine(captured=captured)
    asking, silent = Reader(engine), Reader(engine)
    work = words_request(1, GREEDY)
    asking.submit(work)
    silent.submit(replace(work, text_rows=None))
    assert_read_right(asking, work)
    rows = silent.finish().rows
    np.testing.assert_array_equal(rows, asking.finish().rows)
    assert {frame.text_row for frame in silent.frames} == {None}
    assert_at_rest(engine, [asking, silent])
    engine.stop()


def test_a_model_without_alignment_heads_says_nothing() -> None:
    assert load_model("delay-nvq4").config.alignment_heads == ()
    engine = new_engine()
    reader = Reader(engine).submit(replace(request(max_rows=12), text_rows=(3, 9)))
    assert reader.finish().reason == "max_length"
    assert [frame.text_row for frame in reader.frames] == [None] * len(reader.frames)
    assert_at_rest(engine, [reader])
    engine.stop()


@pytest.mark.parametrize("text_rows", [(-1, 3), (3, 3), (5, 2), (0, 10_000)])
def test_rows_that_the_prompt_does_not_have_are_refused(text_rows: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="text_rows"):
        replace(request(), text_rows=text_rows)
