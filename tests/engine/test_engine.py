"""The engine's thread: what it decodes, alone and in company, and how its readers share it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from engine_reader import GREEDY, Reader, assert_at_rest, new_engine, request
from support import load_codec, load_model

from streamer import SamplingParams
from streamer.engine import (
    Engine,
    GenerationRequest,
    Queued,
    Started,
)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = new_engine()
    yield engine
    engine.stop()
    assert engine.failure is None


WORK = [
    ("continuation", GREEDY, 1),
    ("voice_clone_and_continuation", GREEDY, 1),
    *(("continuation", SamplingParams(audio_temperature=0.6, text_temperature=0.5), seed) for seed in range(3)),
    *(("voice_clone_and_continuation", SamplingParams(text_temperature=0.3), seed) for seed in range(3)),
]


def test_a_batch_gives_each_sequence_the_rows_and_audio_it_has_alone(engine: Engine) -> None:
    readers = []
    for mode, sampling, seed in WORK:
        readers.append(Reader(engine).submit(request(mode, sampling, seed)))
        # The next one joins when this one is under way.
        readers[-1].wait_frames(2)
    together = [(r.finish().rows, r.audio) for r in readers]
    for (mode, sampling, seed), (rows, audio) in zip(WORK, together, strict=True):
        alone = new_engine()
        reader = Reader(alone).submit(request(mode, sampling, seed))
        np.testing.assert_array_equal(reader.finish().rows, rows)
        np.testing.assert_allclose(reader.audio, audio, atol=1e-4)
        alone.stop()
    assert_at_rest(engine, readers)


@pytest.mark.parametrize(("mode", "sampling", "seed"), WORK)
def test_the_engine_decodes_what_the_plain_loop_decodes(
    engine: Engine, mode: str, sampling: SamplingParams, seed: int
) -> None:
    model, codec = load_model("delay-nvq4"), load_codec()
    work = request(mode, sampling, seed)
    reader = Reader(engine).submit(work)
    finished = reader.finish()
    # The plain loop goes on to im_end; the engine stops when the audio block's last frame is known.
    plain = model.generate(work.prompt_rows, sampling, seed=seed, max_rows=work.max_rows).numpy()
    n_rows = len(finished.rows) - (model.config.n_vq if finished.reason == "max_length" else 0)
    np.testing.assert_array_equal(finished.rows[:n_rows], plain[:n_rows])
    codes = torch.from_numpy(np.stack([frame.codes for frame in reader.frames]))
    np.testing.assert_allclose(reader.audio, codec.decode(codes).numpy(), atol=1e-4)
    assert [frame.last for frame in reader.frames] == [False] * (len(reader.frames) - 1) + [True]
    assert_at_rest(engine, [reader])


def test_a_turn_cut_at_its_limit_ends_with_a_whole_last_frame(engine: Engine) -> None:
    reader = Reader(engine).submit(request(max_rows=20))
    finished = reader.finish()
    assert finished.reason == "max_length"
    assert len(finished.rows) == 20
    assert len(reader.frames) == 20 - 3
    assert reader.frames[-1].last


def test_known_codes_are_taken_over_instead_of_drawn(engine: Engine) -> None:
    known = torch.full((3, 4), -1, dtype=torch.int64)
    known[0, 1:], known[1, 2:], known[2, 3:] = 7, 8, 9
    plain = request()
    work = GenerationRequest(plain.prompt_rows, GREEDY, 1, 40, known)
    rows = Reader(engine).submit(work).finish().rows
    assert rows[0, 2:].tolist() == [7, 7, 7]
    assert rows[1, 3:].tolist() == [8, 8]
    assert rows[2, 4:].tolist() == [9]
    assert not (rows[0, 1] == 7 and rows[1, 1] == 8)


def test_a_prefix_computed_before_is_not_computed_again_and_changes_nothing(engine: Engine) -> None:
    first, second = Reader(engine), Reader(engine)
    rows = first.submit(request("voice_clone_and_continuation")).finish().rows
    again = second.submit(request("voice_clone_and_continuation")).finish().rows
    np.testing.assert_array_equal(rows, again)
    shared = [[e.shared_rows for e in r.events if isinstance(e, Started)] for r in (first, second)]
    # 245 prompt rows: 15 whole blocks, all of them shared.
    assert shared == [[0], [240]]
    assert_at_rest(engine, [first, second])


def test_a_reader_that_stops_pauses_its_own_sequence_only() -> None:
    engine = new_engine(max_unsent_frames=3)
    stalled, quick = Reader(engine, keeps_up=False), Reader(engine)
    stalled.submit(request())
    stalled.wait_frames(3)
    assert quick.submit(request()).finish().reason == "end"
    assert len(stalled.frames) == 3
    assert stalled.generation is not None
    stalled.keeps_up = True
    engine.consumed(stalled.generation, 3)
    np.testing.assert_array_equal(stalled.finish().rows, quick.finish().rows)
    assert_at_rest(engine, [stalled, quick])
    engine.stop()


def test_readers_that_stop_do_not_keep_others_from_their_turn() -> None:
    engine = new_engine(max_batch=1, max_unsent_frames=3)
    stalled = [Reader(engine, keeps_up=False) for _ in range(2)]
    for reader in stalled:
        reader.submit(request())
    quick = Reader(engine).submit(request())
    rows = quick.finish().rows
    for reader in stalled:
        reader.wait_frames(3)
        reader.keeps_up = True
        assert reader.generation is not None
        engine.consumed(reader.generation, 3)
    # Its place was lent to others meanwhile; what it would have said is unchanged.
    for reader in stalled:
        np.testing.assert_array_equal(reader.finish().rows, rows)
        np.testing.assert_allclose(reader.audio, quick.audio, atol=1e-4)
    assert_at_rest(engine, [*stalled, quick])
    engine.stop()


def test_what_waits_is_told_its_position_and_runs_in_turn() -> None:
    engine = new_engine(max_batch=1, max_unsent_frames=2)
    readers = [Reader(engine, keeps_up=False) for _ in range(3)]
    for reader in readers:
        reader.submit(request())
    readers[0].wait_frames(2)
    for reader in readers:
        reader.keeps_up = True
        assert reader.generation is not None
        engine.consumed(reader.generation, 2)
        reader.finish()
    positions = [[e.position for e in r.events if isinstance(e, Queued)] for r in readers]
    assert positions == [[], [1], [2, 1]]
    assert_at_rest(engine, readers)
    engine.stop()


def test_a_codec_stream_lives_across_turns(engine: Engine) -> None:
    reader = Reader(engine)
    first = reader.submit(request(max_rows=20)).finish()
    codes, audio = [f.codes for f in reader.frames], reader.audio
    second = reader.submit(request("voice_clone_and_continuation", max_rows=20)).finish()
    assert first.reason == second.reason == "max_length"
    codes += [f.codes for f in reader.frames]
    whole = load_codec().decode(torch.from_numpy(np.stack(codes))).numpy()
    np.testing.assert_allclose(np.concatenate([audio, reader.audio]), whole, atol=1e-4)
