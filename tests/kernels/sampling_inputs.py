"""Inputs of the sampling ops, and what they have to agree with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from streamer_kernels.slots import SamplingSlots

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True, slots=True)
class Heads:
    """Arguments of ``sample_codes``, by its names."""

    logits: torch.Tensor
    slots: torch.Tensor
    sampling: SamplingSlots
    step: torch.Tensor
    first: torch.Tensor
    end: torch.Tensor
    known: torch.Tensor | None = None

    def run(self, op: Callable[..., torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The codes that ``op`` draws, and the histories after it, which begin as this object has them."""
        copy = on_device(self)
        return op(*(getattr(copy, f.name) for f in fields(copy))).cpu(), copy.sampling.history.cpu()


def on_device(value: Any, device: torch.device | None = None) -> Any:
    """A copy of a dataclass of tensors, on its own device or another."""
    if isinstance(value, torch.Tensor):
        return value.clone() if device is None else value.to(device, copy=True)
    if value is None:
        return None
    return replace(value, **{f.name: on_device(getattr(value, f.name), device) for f in fields(value)})


def random_slots(n_slots: int, n_vq: int, n_ids: int, *, shared_history: bool = True) -> SamplingSlots:
    """Slots with settings of all kinds, head by head, and a third of all codes seen."""
    slots = SamplingSlots.allocate(n_slots, n_vq, n_ids, torch.device("cpu"))
    shape = (n_slots, 1 + n_vq)
    slots.temperature[:] = pick(shape, [0.0, 0.7, 1.0, 1.1, 1.7])
    slots.top_k[:] = pick(shape, [0, 1, 2, 50, 5000])
    slots.top_p[:] = pick(shape, [0.0, 0.5, 0.9, 1.0])
    slots.penalty[:] = pick((n_slots,), [0.5, 1.0, 1.1, 3.0])
    slots.seed[:] = torch.randint(-(2**63), 2**63 - 1, (n_slots,))
    slots.history[:] = torch.rand(slots.history.shape) < 0.3
    books = torch.arange(n_vq)
    slots.history_of[:] = books.clamp(max=1) if shared_history else books
    return slots


def random_heads(batch: int, n_vq: int, n_ids: int, *, shared_history: bool = True) -> Heads:
    """Distinct slots out of more, in disorder; masked codebooks, known codes; ties, excluded codes, and hopeless rows.

    Half of all rows are coarse, as half precision makes them, so that many of their logits are equal.
    """
    n_slots = batch + 2
    logits = torch.randn(batch, n_vq, n_ids) * 3
    logits = torch.where(torch.rand(batch, n_vq, 1) < 0.5, (logits * 2).round() / 2, logits)
    logits[torch.rand(logits.shape) < 0.1] = -torch.inf
    logits[torch.rand(batch, n_vq) < 0.1] = -torch.inf
    logits[torch.rand(batch, n_vq) < 0.1] = 1.5
    known = torch.where(torch.rand(batch, n_vq) < 0.2, torch.randint(0, n_ids, (batch, n_vq)), -1)
    return Heads(
        logits,
        torch.randperm(n_slots)[:batch],
        random_slots(n_slots, n_vq, n_ids, shared_history=shared_history),
        torch.randint(0, 100_000, (batch,)),
        first=pick((batch,), [0, 0, 0, 1]).long(),
        end=torch.randint(max(n_vq - 2, 1), n_vq + 1, (batch,)),
        known=known,
    )


def pick(shape: tuple[int, ...], choices: list[float]) -> torch.Tensor:
    """Random choices."""
    return torch.tensor(choices)[torch.randint(0, len(choices), shape)]


def exact_distribution(logits: torch.Tensor, temperature: float, top_k: int, top_p: float) -> torch.Tensor:
    """Probabilities (V,) float64 of one head, straight from the definition."""
    scores = (logits.double() / temperature).tolist()
    kept = [i for i, s in enumerate(scores) if top_k == 0 or sum(other > s for other in scores) < top_k]
    weight = {i: torch.tensor(scores[i]).double().exp().item() for i in kept}
    total = sum(weight.values())
    before = {i: sum(w for j, w in weight.items() if scores[j] > scores[i]) / total for i in kept}
    probability = torch.zeros(len(scores), dtype=torch.float64)
    for i in kept:
        if top_p >= 1 or before[i] <= top_p:
            probability[i] = weight[i]
    return probability / probability.sum()


def assert_drawn_from(counts: torch.Tensor, probability: torch.Tensor) -> None:
    """Pearson's chi-square test at 99.9 %; what cannot be drawn must not have been."""
    possible = probability > 0
    assert int(counts[~possible].sum()) == 0
    expected = probability[possible] * counts.sum()
    chi_square = float(((counts[possible] - expected) ** 2 / expected).sum())
    freedom = int(possible.sum()) - 1
    # Wilson and Hilferty's approximation of the 99.9th percentile.
    assert chi_square < freedom * (1 - 2 / (9 * freedom) + 3.09 * (2 / (9 * freedom)) ** 0.5) ** 3
