"""The decode step in fixed sizes, as graphs replay it: the rows and audio of the plain step, at addresses that stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_reader import GREEDY, Reader, assert_at_rest, new_engine, request
from support import load_codec, load_golden, load_model

from streamer import SamplingParams
from streamer.engine.captured import CapturedStep
from streamer.models import SlotDecoder

SAMPLED = SamplingParams(audio_temperature=0.8, text_temperature=0.3)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def new_step(n_slots: int) -> tuple[SlotDecoder, CapturedStep, list[int]]:
    """A step over three sequences in slots that are not the first ones, each with a codec stream."""
    model, codec = load_model("delay-nvq4"), load_codec()
    pool = model.new_pool(65)
    decoder, streams = SlotDecoder(model, pool, n_slots, max_rows=1024), codec.stream_pool(8)
    prompt = load_golden("delay-nvq4").arrays["prompt/continuation"]
    for i, slot in enumerate((4, 1, 2)):
        blocks = list(range(20 * i, 20 * i + 20))
        hidden = model.prefill(prompt, pool, torch.tensor(blocks), 0)
        decoder.open(slot, prompt, blocks, hidden[-1], SAMPLED, seed=i, max_rows=200)
    return decoder, CapturedStep(decoder, streams, n_slots), [streams.open() for _ in range(5)]


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_captured_steps_give_the_rows_and_audio_of_plain_ones(sampling: SamplingParams) -> None:
    results = []
    for captured in (False, True):
        engine = new_engine(captured=captured)
        readers = [Reader(engine).submit(request("continuation", sampling, seed)) for seed in range(5)]
        results.append([(reader.finish().rows, reader.audio) for reader in readers])
        assert_at_rest(engine, readers)
        engine.stop()
    for (rows, audio), (expected_rows, expected_audio) in zip(*results, strict=True):
        np.testing.assert_array_equal(rows, expected_rows)
        np.testing.assert_allclose(audio, expected_audio, atol=1e-4)


def test_addresses_stay_and_padding_stays_sound() -> None:
    decoder, step, places = new_step(n_slots=6)
    addresses = step.addresses()
    for _ in range(30):
        # Three sequences in a batch of four: the padding slot decodes with them.
        assert step.run([4, 1, 2], places[:3]).sound.all()
    assert step.addresses() == addresses
    for tensor in decoder.save(decoder.padding):
        assert torch.isfinite(tensor.float()).all()


def test_a_sequence_decodes_alike_in_any_slot_and_any_batch_size() -> None:
    together, alone = [], []
    _, step, places = new_step(n_slots=6)
    for _ in range(12):
        together.append(step.run([4, 1, 2], places[:3]).rows)
    for column, slot in enumerate((4, 1, 2)):
        _, step, places = new_step(n_slots=6)
        alone.append([step.run([slot], [places[column]]).rows[0] for _ in range(12)])
    np.testing.assert_array_equal(np.stack(together).transpose(1, 0, 2), np.array(alone))


def test_a_sequence_that_moves_to_another_slot_goes_on_as_before() -> None:
    decoder, step, places = new_step(n_slots=6)
    expected = [step.run([1], places[:1]).rows[0] for _ in range(10)]
    decoder, step, places = new_step(n_slots=6)
    rows = [step.run([1], places[:1]).rows[0] for _ in range(4)]
    saved = decoder.save(1)
    step.run([1, 2], places[:2])  # the slot is another's for a while
    decoder.load(3, saved)
    rows += [step.run([3], places[:1]).rows[0] for _ in range(6)]
    np.testing.assert_array_equal(rows, expected)


def test_a_prompt_outside_audio_is_refused() -> None:
    model = load_model("delay-nvq4")
    decoder = SlotDecoder(model, model.new_pool(65), 2, max_rows=1024)
    prompt = load_golden("delay-nvq4").arrays["prompt/generation"]
    hidden = torch.zeros(model.config.language.hidden_size)
    with pytest.raises(ValueError, match="must end in audio_start"):
        decoder.open(0, prompt, [0], hidden, GREEDY, seed=0, max_rows=10)


@pytest.mark.skipif(DEVICE != "cuda", reason="graphs exist on a GPU alone")
def test_a_captured_step_never_waits_for_the_host() -> None:
    from streamer import AudioCodec, DelayModel

    golden = load_golden("delay-nvq4")
    model = DelayModel.from_pretrained(golden.folder / "model", device="cuda")
    codec = AudioCodec.from_pretrained(load_golden("codec-nq8").folder / "codec", device="cuda")
    pool = model.new_pool(65)
    decoder = SlotDecoder(model, pool, 4, max_rows=1024)
    step = CapturedStep(decoder, codec.stream_pool(4), 4)
    torch.cuda.set_sync_debug_mode("error")
    try:
        decoder.draw(torch.tensor([0, 1], device="cuda"))
        decoder.forward(torch.tensor([0, 1], device="cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert step.run([0], [0]).sound.all()
