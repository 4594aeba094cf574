"""sample_rows in plain torch: temperature, repetition penalty, top-k, top-p, and a draw keyed by its place."""

from __future__ import annotations

import torch

from streamer_kernels.philox import philox_uniform

# Logits divided by less could overflow; no draw could differ from the best token anyway.
GREEDY_BELOW = 1e-4


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
    p kept). A greedy row is scaled by 1; its token is the first candidate.
    """
    vocab = logits.shape[-1]
    scores = logits / torch.where(temperature < GREEDY_BELOW, 1.0, temperature)[:, None]
    if seen is not None:
        factor = penalty[:, None]
        scores = torch.where(seen, torch.where(scores > 0, scores / factor, scores * factor), scores)
    wanted = torch.where(top_k > 0, top_k, vocab).clamp(max=vocab)
    # One candidate more than asked for shows whether the k-th place is tied; only then is everything sorted.
    width = min(int(wanted.max()) + 1, vocab)
    values, ids = _best(scores, width)
    kth = values.gather(-1, wanted[:, None] - 1)
    if width < vocab and bool((values[:, -1:] == kth).any()):
        values, ids = _best(scores, vocab)
    values = values.masked_fill(values < kth, -torch.inf)
    # Running sums in a fixed order: what stands behind a row's own candidates does not change them.
    mass = (values - values[:, :1]).exp()
    total = mass.cumsum(-1)
    dropped = (total - mass > top_p[:, None] * total[:, -1:]) & (top_p < 1)[:, None]
    dropped[:, 0] = False
    return ids, values.masked_fill(dropped, -torch.inf).log_softmax(-1)


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
    Returns (N,) int64. A row whose temperature is 0, or next to it, takes its best token, the lowest id among equals.
    """
    ids, log_p = candidate_distribution(logits, temperature, top_k, top_p, penalty, seen)
    uniform = philox_uniform(seed[:, None], ids, head[:, None], row[:, None])
    gumbel = log_p - torch.log(-torch.log(uniform))
    drawn = ids.gather(-1, gumbel.argmax(-1, keepdim=True))[:, 0]
    return torch.where(temperature < GREEDY_BELOW, ids[:, 0], drawn)


def _best(scores: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``width`` highest scores of each row and their ids, best first and equals by id, whatever the width."""
    values, ids = scores.topk(width, dim=-1) if width < scores.shape[-1] else (scores, _ids(scores))
    ids, by_id = ids.sort(dim=-1)
    values, by_value = values.gather(-1, by_id).sort(dim=-1, descending=True, stable=True)
    return values, ids.gather(-1, by_value)


def _ids(scores: torch.Tensor) -> torch.Tensor:
    return torch.arange(scores.shape[-1], device=scores.device).expand_as(scores)
