"""sample_codes in Triton against the naive version: in the interpreter, and natively where there is a GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from kernels.sampling_inputs import DEVICE, Heads, assert_drawn_from, exact_distribution, on_device, random_heads

from streamer_kernels import SamplingSlots
from streamer_kernels.sample_rows import naive

fused = pytest.importorskip("streamer_kernels.sample_rows.fused", exc_type=ModuleNotFoundError)

NATIVE = DEVICE.type == "cuda"


def assert_same(heads: Heads) -> None:
    """The same codes and histories as from the naive version."""
    codes, history = heads.run(naive.sample_codes)
    found, found_history = on_device(heads, DEVICE).run(fused.sample_codes)
    assert torch.equal(found, codes)
    assert torch.equal(found_history, history)


@pytest.mark.parametrize("shared_history", [True, False])
@pytest.mark.parametrize(
    ("batch", "n_vq", "n_ids"), [(6, 1, 5), (3, 4, 5), (4, 1, 65), (2, 4, 65), (1, 16, 65), (3, 1, 1025), (1, 4, 1025)]
)
def test_it_draws_what_the_naive_version_draws(batch: int, n_vq: int, n_ids: int, shared_history: bool) -> None:
    torch.manual_seed(batch * n_vq * n_ids + shared_history)
    for _ in range(50 if NATIVE else 1):
        assert_same(random_heads(batch, n_vq, n_ids, shared_history=shared_history))


def test_one_active_codebook_among_sixteen() -> None:
    torch.manual_seed(1)
    heads = random_heads(2, 16, 1025)
    heads.sampling.temperature[:] = 1.1
    heads.sampling.top_p[:] = 0.9
    heads.sampling.top_k[:] = 50
    assert_same(replace(heads, first=torch.tensor([5, 15]), end=torch.tensor([6, 16]), known=None))


def test_equal_and_impossible_rows() -> None:
    heads = random_heads(1, 4, 65)
    heads.sampling.temperature[:] = 1.0
    logits = torch.full((1, 4, 65), -torch.inf)
    logits[0, 1] = 7.0
    logits[0, 2, [9, 30]] = torch.inf
    logits[0, 3, 3:60] = -2.0
    assert_same(replace(heads, logits=logits, first=torch.tensor([0]), end=torch.tensor([4]), known=None))


def test_all_filters_at_once_draw_the_same_over_many_rows() -> None:
    torch.manual_seed(2)
    heads = random_heads(8, 1, 65)
    s = heads.sampling
    for column, value in ((s.temperature, 1.1), (s.top_k, 8), (s.top_p, 0.8), (s.penalty, 1.1)):
        column[:] = value
    for _ in range(200 if NATIVE else 3):
        heads = replace(heads, logits=torch.randn(8, 1, 65), step=heads.step + 1)
        assert_same(heads)


def test_a_draw_depends_on_no_neighbour() -> None:
    torch.manual_seed(3)
    heads = on_device(random_heads(3, 2, 65), DEVICE)
    codes, _ = heads.run(fused.sample_codes)
    part = torch.tensor([2, 0], device=DEVICE)
    some = Heads(
        heads.logits[part],
        heads.slots[part],
        heads.sampling,
        heads.step[part],
        heads.first[part],
        heads.end[part],
        heads.known[part],
    )
    assert torch.equal(some.run(fused.sample_codes)[0], codes[part.cpu()])


@pytest.mark.skipif(not NATIVE, reason="half precision is what the interpreter cannot do")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits(dtype: torch.dtype) -> None:
    torch.manual_seed(4)
    heads = random_heads(16, 16, 1025)
    assert_same(replace(heads, logits=heads.logits.to(dtype)))


def test_draws_follow_the_exact_distribution() -> None:
    torch.manual_seed(5)
    # The interpreter takes 50 ms for a search; the filters are checked above.
    rows, setting = (250_000, (1.2, 9, 0.9)) if NATIVE else (200, (1.2, 0, 1.0))
    logits = torch.randn(13)
    logits[-1] = 50.0
    heads = Heads(
        logits.expand(rows, 4 if NATIVE else 1, 13),
        torch.zeros(rows, dtype=torch.int64),
        SamplingSlots.allocate(1, 4 if NATIVE else 1, 13, torch.device("cpu")),
        torch.arange(rows),
        torch.zeros(rows, dtype=torch.int64),
        torch.full((rows,), 4 if NATIVE else 1),
    )
    s = heads.sampling
    s.temperature[:], s.top_k[:], s.top_p[:] = setting
    codes, _ = on_device(heads, DEVICE).run(fused.sample_codes)
    probability = torch.cat((exact_distribution(logits[:-1], *setting), torch.zeros(1)))
    assert_drawn_from(torch.bincount(codes.flatten(), minlength=13), probability)
