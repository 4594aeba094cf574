"""sample_codes on a CPU, in numpy: one partial sort a head instead of full ones, and no work for idle codebooks."""

from __future__ import annotations

import numpy as np
import torch

from streamer_kernels.philox_host import Array, gumbel_noise
from streamer_kernels.sample_rows.naive import GREEDY_BELOW, MASS_OF_BEST
from streamer_kernels.slots import SamplingSlots


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
    slot, book = slots.numpy(), np.arange(n_vq)
    drawn = (book >= first.numpy()[:, None]) & (book < end.numpy()[:, None])
    if known is not None:
        drawn &= known.numpy() < 0
    which = sampling.history_of.numpy()[slot]  # (B, n_vq)
    codes = np.full((batch, n_vq), n_ids - 1)
    rows = np.flatnonzero(drawn)
    if len(rows):
        sequence, head = np.divmod(rows, n_vq)
        head += 1
        slots_of, steps = slot[sequence], step.numpy()[sequence]
        scores = _scores(logits, rows, slots_of, head, sampling, which.reshape(-1)[rows])
        temperature, top_k, top_p = (
            settings.numpy()[slots_of, head] for settings in (sampling.temperature, sampling.top_k, sampling.top_p)
        )
        seed = sampling.seed.numpy()[slots_of]
        codes.reshape(-1)[rows] = draw(scores, temperature, top_k, top_p, seed, head, steps)
    if known is not None:
        np.copyto(codes, known.numpy(), where=known.numpy() >= 0)
    sampling.history.numpy()[slot[:, None], which, codes] = True
    return torch.from_numpy(codes)


def draw(scores: Array, temperature: Array, top_k: Array, top_p: Array, seed: Array, head: Array, step: Array) -> Array:
    """Token ids (N,) int64 out of scores (N, V) float32, already scaled; filters and keys as in ``sample_rows``.

    All others (N,). May write to scores.
    """
    each = np.arange(len(scores))
    tokens: Array = scores.argmax(1)
    best = scores[each, tokens]
    random = (temperature >= GREEDY_BELOW) & np.isfinite(best)
    if random.all():
        return _draw_random(np.subtract(best[:, None], scores, out=scores), top_k, top_p, seed, head, step)
    if random.any():
        distance = best[random, None] - scores[random]
        settings = (of[random] for of in (top_k, top_p, seed, head, step))
        tokens[random] = _draw_random(distance, *settings)
    return tokens


def _draw_random(distance: Array, top_k: Array, top_p: Array, seed: Array, head: Array, step: Array) -> Array:
    """As :func:`draw`, for rows that are not greedy, from the distances (N, V) to the best score."""
    n, n_ids = distance.shape
    limit = _limits(distance, top_k, top_p)
    found = (distance <= limit[:, None]).reshape(-1).nonzero()[0]
    row, ids = np.divmod(found, n_ids)
    counts = np.bincount(row, minlength=n)
    column = np.arange(len(found)) - (counts.cumsum() - counts)[row]
    candidates = np.zeros((n, counts.max()), dtype=np.int64)
    candidates[row, column] = ids
    noise = gumbel_noise(seed, candidates, head, step)
    value = np.full(candidates.shape, -np.inf)
    value[row, column] = noise[row, column] - distance.reshape(-1)[found]
    # Candidates stand in the order of their ids, and argmax takes the first of equals.
    drawn: Array = candidates[np.arange(n), value.argmax(1)]
    return drawn


def _scores(
    logits: torch.Tensor, rows: Array, slot: Array, head: Array, sampling: SamplingSlots, which: Array
) -> Array:
    """Scores (N, V) of the heads ``rows`` after temperature and penalty, the pad code's at -inf."""
    scores: Array = logits.float().contiguous().numpy().reshape(-1, logits.shape[-1]).take(rows, axis=0)
    scores[:, -1] = -np.inf
    temperature = sampling.temperature.numpy()[slot, head]
    scores /= np.where(temperature < GREEDY_BELOW, np.float32(1), temperature)[:, None]
    penalty = sampling.penalty.numpy()[slot]
    if (penalty == 1).all():
        return scores
    return _penalised(scores, penalty[:, None], sampling.history.numpy()[slot, which])


def _penalised(scores: Array, penalty: Array, seen: Array) -> Array:
    """Positive scores of seen codes divided, others multiplied; a choice by sign would cost ten times as much."""
    factor = np.multiply(seen, penalty, dtype=np.float32)
    factor += ~seen
    divided = scores / factor
    scores *= factor
    lower: Array = np.minimum(divided, scores)
    if (penalty >= 1).all():
        return lower
    mixed: Array = np.where(penalty >= 1, lower, np.maximum(divided, scores))
    return mixed


def _limits(distance: Array, top_k: Array, top_p: Array) -> Array:
    """How far from the best each row's candidates may be. distance: (N, V); returns (N,)."""
    n, n_ids = distance.shape
    each = np.arange(n)
    wanted = np.where(top_k > 0, top_k, n_ids).clip(max=n_ids)
    any_top_p = (top_p < 1).any()
    if not any_top_p and (wanted == n_ids).all():
        return np.full(n, np.inf)
    width = int(wanted.max()) + 1
    if 2 * width < n_ids:
        nearest = np.sort(np.partition(distance, width - 1, axis=1)[:, :width], axis=1)
    else:
        nearest = np.sort(distance, axis=1)
    kth: Array = nearest[each, wanted - 1]
    if not any_top_p:
        return kth
    if nearest.shape[1] < n_ids and (nearest[:, -1] == kth).any():
        # Ties with the k-th reach beyond what was sorted, and their mass counts.
        nearest = np.sort(distance, axis=1)
    mass = (np.exp(-nearest.astype(np.float64)) * MASS_OF_BEST).astype(np.int64)
    mass[nearest > kth[:, None]] = 0
    total = mass.cumsum(1)
    within = total - mass <= top_p.astype(np.float64)[:, None] * total[:, -1:]
    limits: Array = np.where(top_p < 1, nearest[each, within.sum(1) - 1], kth)
    return limits
