"""The model against rows and logits that the publishers' own code produced."""

from __future__ import annotations

import pytest
import torch
from support import GOLDEN, load_golden, load_model

import streamer

CHECKPOINTS = ["delay-nvq4", "delay-nvq16"]
CASES = [
    (checkpoint, case["name"], case["penalty"])
    for checkpoint in CHECKPOINTS
    for case in load_golden(checkpoint).info["cases"]
]


@pytest.mark.parametrize(("checkpoint", "mode", "penalty"), CASES)
def test_greedy_rows_equal_the_published_ones(checkpoint: str, mode: str, penalty: float) -> None:
    arrays = load_golden(checkpoint).arrays
    expected = arrays[f"greedy/{mode}/penalty_{penalty}"]
    sampling = streamer.SamplingParams(audio_temperature=0, text_temperature=0, audio_repetition_penalty=penalty)
    rows = load_model(checkpoint).generate(arrays[f"prompt/{mode}"], sampling, max_rows=len(expected))
    assert torch.equal(rows, expected)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_whole_sequence_logits_equal_the_published_ones(checkpoint: str) -> None:
    arrays = load_golden(checkpoint).arrays
    text, audio = load_model(checkpoint).logits(arrays["forced/input"])
    torch.testing.assert_close(text, arrays["forced/text_logits"], atol=1e-3, rtol=0)
    torch.testing.assert_close(audio, arrays["forced/audio_logits"], atol=1e-3, rtol=0)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_a_seed_fixes_the_rows_and_another_seed_changes_them(checkpoint: str) -> None:
    prompt = load_golden(checkpoint).arrays["prompt/voice_clone"]
    model = load_model(checkpoint)
    first, again, other = (model.generate(prompt, seed=seed, max_rows=12) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_streamed_rows_come_one_by_one_and_are_the_generated_ones() -> None:
    prompt = load_golden("delay-nvq4").arrays["prompt/continuation"]
    model = load_model("delay-nvq4")
    stream = model.stream(prompt, seed=1, max_rows=10)
    head = [next(stream) for _ in range(3)]
    assert torch.equal(torch.stack(head + list(stream)), model.generate(prompt, seed=1, max_rows=10))


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (torch.zeros(0, 5, dtype=torch.int64), "shape"),
        (torch.zeros(3, 4, dtype=torch.int64), "shape"),
        (torch.zeros(3, 5), "integer"),
        (torch.full((3, 5), 10_000), "outside the vocabulary"),
        (torch.full((3, 5), -1), "outside the vocabulary"),
    ],
)
def test_a_bad_prompt_is_named(rows: torch.Tensor, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"prompt_rows: .*{complaint}"):
        load_model("delay-nvq4").generate(rows)


def test_bfloat16_weights_give_nearly_the_same_logits() -> None:
    rows = load_golden("delay-nvq4").arrays["forced/input"]
    half = streamer.DelayModel.from_pretrained(GOLDEN / "delay-nvq4" / "model", dtype=torch.bfloat16)
    expected, found = load_model("delay-nvq4").logits(rows)[0], half.logits(rows)[0]
    assert found.dtype == torch.float32
    # Three significant digits of weights and activations, through two layers.
    assert float((found - expected).norm() / expected.norm()) < 0.02
