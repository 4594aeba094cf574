"""sample_rows in plain torch: temperature, repetition penalty, top-k, top-p, and a draw keyed by its place."""

from __future__ import annotations

import torch

from streamer_kernels.philox import philox_uniform


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
    p kept). Temperature 0 scales by 1 here; the caller takes the first candidate.
    """
    vocab = logits.shape[-1]
    scores = logits / torch.where(temperature > 0, temperature, 1.0)[:, None]
    if seen is not None:
        factor = penalty[:, None]
        scores = torch.where(seen, torch.where(scores > 0, scores / factor, scores * factor), scores)
    wanted = torch.where(top_k > 0, top_k, vocab).clamp(max=vocab)
    # One candidate more than asked for shows whether the k-th place is tied; only then is everything sorted.
    width = min(int(wanted.max()) + 1, vocab)
    values, ids = scores.topk(width, dim=-1)
    kth = values.gather(-1, wanted[:, None] - 1)
    if width < vocab and bool((values[:, -1:] == kth).any()):
        values, ids = scores.sort(dim=-1, descending=True, stable=True)
    values = values.masked_fill(values < kth, -torch.inf)
    probabilities = values.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    dropped = (before > top_p[:, None]) & (top_p < 1)[:, None]
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
    Returns (N,) int64. Where temperature is 0 the best token is taken, the lowest id among equals.
    """
    ids, log_p = candidate_distribution(logits, temperature, top_k, top_p, penalty, seen)
    uniform = philox_uniform(seed[:, None], ids, head[:, None], row[:, None])
    gumbel = log_p - torch.log(-torch.log(uniform))
    drawn = ids.gather(-1, gumbel.argmax(-1, keepdim=True))[:, 0]
    tied_best = torch.where(log_p == log_p[:, :1], ids, logits.shape[-1])
    return torch.where(temperature > 0, drawn, tied_best.amin(-1))
