"""sample_text: one of two ids, by dot products that can be summed in any order without rounding."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest
import torch
from kernels.sampling_inputs import DEVICE, assert_drawn_from, on_device, random_slots

from streamer_kernels import SamplingSlots, sample_text

GO, TAIL = 261, 262
IDS = torch.tensor([GO, TAIL])
Op = Callable[..., torch.Tensor]


def implementation(name: str) -> Op:
    """``sample_text`` of one module, given and giving tensors on the CPU."""
    module = pytest.importorskip(f"streamer_kernels.sample_text.{name}", exc_type=ModuleNotFoundError)
    device = DEVICE if name == "fused" else torch.device("cpu")

    def run(*arguments: object) -> torch.Tensor:
        return module.sample_text(*(on_device(a, device) for a in arguments)).cpu()

    return run


@pytest.fixture(params=["naive", "host", "fused"])
def op(request: pytest.FixtureRequest) -> Op:
    return implementation(request.param)


def whole_numbers(batch: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states and a head whose products are multiples of 1/4, small enough for float32 to add them exactly."""
    hidden = torch.randint(-2, 3, (batch, width)).float()
    return hidden, torch.randint(-2, 3, (2, width)) / 4


def test_implementations_draw_the_same(op: Op) -> None:
    naive = importlib.import_module("streamer_kernels.sample_text.naive").sample_text
    for width in (1, 33, 256):
        torch.manual_seed(width)
        hidden, head = whole_numbers(12, width)
        slots, sampling = torch.randperm(14)[:12], random_slots(14, 3, 9)
        forced = torch.tensor([-1, -1, 7, -1, -1, -1, -1, 0, -1, -1, -1, -1])
        step = torch.randint(0, 3, (12,))
        arguments = (hidden, head, IDS, slots, sampling, step, forced)
        assert torch.equal(op(*arguments), naive(*arguments))


def one_way(logits: tuple[float, float], **settings: float) -> tuple[torch.Tensor, torch.Tensor, SamplingSlots]:
    """A hidden state and a head that give these logits, and slots with these settings."""
    sampling = SamplingSlots.allocate(1, 2, 9, torch.device("cpu"))
    for name, value in settings.items():
        getattr(sampling, name)[:, 0] = value
    return torch.ones(1, 1), torch.tensor(logits)[:, None], sampling


def draw_many(op: Op, logits: tuple[float, float], steps: torch.Tensor, **settings: float) -> torch.Tensor:
    hidden, head, sampling = one_way(logits, **settings)
    n = len(steps)
    zeros = torch.zeros(n, dtype=torch.int64)
    return op(hidden.expand(n, 1), head, IDS, zeros, sampling, steps, zeros - 1)


def test_the_tail_never_begins_at_step_0(op: Op) -> None:
    drawn = draw_many(op, (-5.0, 5.0), torch.tensor([0, 1]), temperature=0.0)
    assert drawn.tolist() == [GO, TAIL]
    assert set(draw_many(op, (-5.0, 5.0), torch.tensor([0] * 3), temperature=1.5).tolist()) == {GO}


def test_greedy_ties_go_on(op: Op) -> None:
    assert draw_many(op, (1.0, 1.0), torch.tensor([4]), temperature=0.0).tolist() == [GO]


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_p": 0.5}])
def test_filters_leave_the_better_one_or_both_of_equals(op: Op, settings: dict[str, float]) -> None:
    steps = torch.arange(1, 9)
    assert set(draw_many(op, (1.0, 2.0), steps, temperature=1.0, **settings).tolist()) == {TAIL}
    assert set(draw_many(op, (1.0, 1.0), steps, temperature=1.0, **settings).tolist()) == {GO, TAIL}


def test_a_forced_id_wins(op: Op) -> None:
    hidden, head, sampling = one_way((3.0, 1.0))
    zero = torch.zeros(1, dtype=torch.int64)
    for forced in (0, 5, TAIL):
        assert op(hidden, head, IDS, zero, sampling, zero + 2, zero + forced).tolist() == [forced]


@pytest.mark.parametrize("name", ["naive", "host", "fused"])
def test_draws_follow_the_distribution(name: str) -> None:
    rows = 1_000_000 if name != "fused" or DEVICE.type == "cuda" else 200
    steps = torch.arange(1, rows + 1)
    drawn = draw_many(implementation(name), (1.0, -0.5), steps, temperature=1.5, top_k=50)
    probability = torch.softmax(torch.tensor([1.0, -0.5], dtype=torch.float64) / 1.5, 0)
    assert_drawn_from(torch.bincount(drawn - GO, minlength=2), probability)


def test_a_draw_has_the_same_bits_in_any_company() -> None:
    torch.manual_seed(7)
    hidden, head = torch.randn(40, 300), torch.randn(2, 300)
    # Far apart would hide a difference: the two logits are next to equal.
    head[1] = head[0] + torch.randn(300) * 1e-6
    slots, sampling = torch.arange(40), random_slots(40, 1, 5)
    sampling.temperature[:] = 0.0
    step, forced = torch.ones(40, dtype=torch.int64), torch.full((40,), -1)
    together = sample_text(hidden, head, IDS, slots, sampling, step, forced)
    alone = [
        sample_text(hidden[i : i + 1], head, IDS, slots[i : i + 1], sampling, step[:1], forced[:1]) for i in range(40)
    ]
    assert torch.equal(torch.cat(alone), together)
    assert set(together.tolist()) == {GO, TAIL}
