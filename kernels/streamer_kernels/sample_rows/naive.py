"""sample_rows in plain torch: temperature, repetition penalty, top-k, top-p, and a draw keyed by its place.

The filters see a token by its distance from the row's best score. Masses for top-p are whole numbers, so that a sum
has no rounding and no order: the other implementations keep the same tokens.
"""

from __future__ import annotations

import torch

from streamer_kernels.philox import gumbel_noise
from streamer_kernels.slots import SamplingSlots

# Logits divided by less could overflow; no draw could differ from the best token anyway.
GREEDY_BELOW = 1e-4
# The best token's mass; over any vocabulary the sum stays far inside int64.
MASS_OF_BEST = 2.0**40


def candidate_distribution(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    penalty: torch.Tensor,
    seen: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What each head may draw, after all filters.

    logits: (N, V) float32, excluded tokens at -inf; temperature, top_p, penalty: (N,) float32; top_k: (N,) int64;
    seen: (N, V) bool, tokens under the repetition penalty, or None.
    Returns token ids (N, K) and their log-probabilities (N, K), best first; dropped candidates are at -inf.
    In the publishers' order: temperature, penalty, top-k (ties with the k-th kept), top-p (the token that crosses
    p kept, and its ties). A greedy row is scaled by 1; its token is the first candidate. A row without a finite
    score has nothing to choose by: its candidates are equals.
    """
    ids, distance, _ = _candidates(logits, temperature, top_k, top_p, penalty, seen)
    return ids, (-distance).log_softmax(-1)


def sample_rows(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    penalty: torch.Tensor,
    seen: torch.Tensor | None,
    seed: torch.Tensor,
    row: torch.Tensor,
    head: torch.Tensor,
) -> torch.Tensor:
    """Draw a token for each of N heads; filters as in :func:`candidate_distribution`.

    seed, row, head: (N,) int64, the key of the draw: the sequence's seed, its row number and the head's number.
    Returns (N,) int64. A row whose temperature is 0, or next to it, takes its best token, the lowest id among equals;
    so does a row whose best score is infinite.
    """
    ids, distance, finite = _candidates(logits, temperature, top_k, top_p, penalty, seen)
    value = gumbel_noise(seed[:, None], ids, head[:, None], row[:, None]) - distance
    last = logits.shape[-1] - 1
    drawn = torch.where(value == value.amax(-1, keepdim=True), ids, last).amin(-1)
    return torch.where((temperature < GREEDY_BELOW) | ~finite, ids[:, 0], drawn)


def sample_codes(
    logits: torch.Tensor,
    slots: torch.Tensor,
    sampling: SamplingSlots,
    step: torch.Tensor,
    first: torch.Tensor,
    end: torch.Tensor,
    known: torch.Tensor | None = None,
) -> torch.Tensor:
    """The codes of the next row of each of B sequences, noted in their histories; see the package's docstring."""
    batch, n_vq, n_ids = logits.shape
    heads = torch.arange(1, 1 + n_vq, device=logits.device)
    which = sampling.history_of[slots]  # (B, n_vq)
    drawn = sample_rows(
        logits[..., :-1].flatten(0, 1).float(),
        sampling.temperature[slots, 1:].flatten(),
        sampling.top_k[slots, 1:].flatten(),
        sampling.top_p[slots, 1:].flatten(),
        sampling.penalty[slots].repeat_interleave(n_vq),
        sampling.history[slots[:, None], which][..., :-1].flatten(0, 1),
        sampling.seed[slots].repeat_interleave(n_vq),
        step.repeat_interleave(n_vq),
        heads.repeat(batch),
    ).view(batch, n_vq)
    active = (heads > first[:, None]) & (heads <= end[:, None])
    codes = torch.where(active, drawn, n_ids - 1)
    if known is not None:
        codes = torch.where(known >= 0, known, codes)
    sampling.history[slots[:, None], which, codes] = True
    return codes


def _candidates(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    penalty: torch.Tensor,
    seen: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids (N, K), best first, their distances from the best, inf where dropped, and which rows' best is finite."""
    vocab = logits.shape[-1]
    scores = logits / torch.where(temperature < GREEDY_BELOW, 1.0, temperature)[:, None]
    if seen is not None:
        factor = penalty[:, None]
        scores = torch.where(seen, torch.where(scores > 0, scores / factor, scores * factor), scores)
    wanted = torch.where(top_k > 0, top_k, vocab).clamp(max=vocab)
    # One candidate more than asked for shows whether the k-th place is tied; only then is everything sorted.
    width = min(int(wanted.max()) + 1, vocab)
    ids, distance, finite = _nearest(scores, width)
    kth = distance.gather(-1, wanted[:, None] - 1)
    if width < vocab and bool((distance[:, -1:] == kth).any()):
        ids, distance, finite = _nearest(scores, vocab)
    mass = (torch.exp(-distance.double()) * MASS_OF_BEST).long().masked_fill(distance > kth, 0)
    total = mass.cumsum(-1)
    within = total - mass <= top_p[:, None].double() * total[:, -1:]
    crossing = torch.where(within, distance, 0.0).amax(-1, keepdim=True)
    limit = torch.where(top_p[:, None] < 1, crossing, kth)
    return ids, distance.masked_fill(distance > limit, torch.inf), finite


def _nearest(scores: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The ``width`` best of each row: ids, best first and equals by id, distances from the best, is that finite."""
    values, ids = scores.topk(width, dim=-1) if width < scores.shape[-1] else (scores, _ids(scores))
    ids, by_id = ids.sort(dim=-1)
    values, by_value = values.gather(-1, by_id).sort(dim=-1, descending=True, stable=True)
    best = values[:, :1]
    finite = best.isfinite()
    return ids.gather(-1, by_value), torch.where(finite, best - values, 0.0), finite[:, 0]


def _ids(scores: torch.Tensor) -> torch.Tensor:
    return torch.arange(scores.shape[-1], device=scores.device).expand_as(scores)
