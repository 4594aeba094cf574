"""sample_codes in Triton: one program a head, no sort, one launch for the draws and a tiny one for the histories.

A token's distance from the best score is not negative, so the distance's bits, read as an integer, are in the same
order. The k-th nearest, and the token at which the mass first exceeds p, are found bit by bit, from the highest down:
31 sums each.

Codebooks that share a history would race with each other if each noted its own code while others still read:
the codes are noted by a second launch, after all have been drawn.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from streamer_kernels.compile_case import CompileCase
from streamer_kernels.jit import jit
from streamer_kernels.philox_triton import gumbel_noise
from streamer_kernels.sample_rows.naive import GREEDY_BELOW, MASS_OF_BEST
from streamer_kernels.slots import SamplingSlots

_GREEDY_BELOW = tl.constexpr(GREEDY_BELOW)
_MASS_OF_BEST = tl.constexpr(MASS_OF_BEST)
_NUM_WARPS = 4


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
    codes = torch.empty((batch, n_vq), dtype=torch.int64, device=logits.device)
    s = sampling
    draw_codes[(n_vq, batch)](
        *(logits.contiguous(), slots, s.temperature, s.top_k, s.top_p, s.penalty, s.seed, s.history, s.history_of),
        *(step, first, end, codes if known is None else known, codes),
        N_VQ=n_vq,
        N_IDS=n_ids,
        HAS_KNOWN=known is not None,
        BLOCK=triton.next_power_of_2(n_ids - 1),
        num_warps=_NUM_WARPS,
    )
    note_codes[(batch,)](
        *(codes, slots, s.history, s.history_of),
        N_VQ=n_vq,
        N_IDS=n_ids,
        BLOCK=triton.next_power_of_2(n_vq),
        num_warps=1,
    )
    return codes


@jit
def draw_codes(
    logits: tl.tensor,
    slots: tl.tensor,
    temperature: tl.tensor,
    top_k: tl.tensor,
    top_p: tl.tensor,
    penalty: tl.tensor,
    seed: tl.tensor,
    history: tl.tensor,
    history_of: tl.tensor,
    step: tl.tensor,
    first: tl.tensor,
    end: tl.tensor,
    known: tl.tensor,
    codes: tl.tensor,
    N_VQ: tl.constexpr,
    N_IDS: tl.constexpr,
    HAS_KNOWN: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """One code: the program's codebook of its sequence. Grid (N_VQ, B)."""
    book = tl.program_id(0)
    sequence = tl.program_id(1).to(tl.int64)
    row = sequence * N_VQ + book
    code = tl.full((), N_IDS - 1, tl.int64)
    drawn = (book >= tl.load(first + sequence)) & (book < tl.load(end + sequence))
    if HAS_KNOWN:
        given = tl.load(known + row)
        code = tl.where(given >= 0, given, code)
        drawn = drawn & (given < 0)
    if drawn:
        slot = tl.load(slots + sequence)
        head = slot * (N_VQ + 1) + book + 1
        heat = tl.load(temperature + head)
        which = slot * N_VQ + tl.load(history_of + slot * N_VQ + book)
        scores = _scores(logits + row * N_IDS, heat, tl.load(penalty + slot), history + which * N_IDS, N_IDS, BLOCK)
        code = draw(
            *(scores, heat, tl.load(top_k + head), tl.load(top_p + head)),
            *(tl.load(seed + slot), book + 1, tl.load(step + sequence), N_IDS - 1, BLOCK),
        ).to(tl.int64)
    tl.store(codes + row, code)


@jit
def note_codes(
    codes: tl.tensor,
    slots: tl.tensor,
    history: tl.tensor,
    history_of: tl.tensor,
    N_VQ: tl.constexpr,
    N_IDS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Note the codes of one sequence in its histories. Grid (B,)."""
    sequence = tl.program_id(0).to(tl.int64)
    books = tl.arange(0, BLOCK)
    inside = books < N_VQ
    slot = tl.load(slots + sequence)
    code = tl.load(codes + sequence * N_VQ + books, mask=inside, other=0)
    which = tl.load(history_of + slot * N_VQ + books, mask=inside, other=0)
    tl.store(history + (slot * N_VQ + which) * N_IDS + code, tl.full((BLOCK,), 1, tl.int1), mask=inside)


@jit
def _scores(
    logits: tl.tensor,
    heat: tl.tensor,
    factor: tl.tensor,
    seen: tl.tensor,
    N_IDS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tl.tensor:
    """Scores (BLOCK,) float32 after temperature and penalty; the pad code, the last one, and what is behind at -inf."""
    ids = tl.arange(0, BLOCK)
    inside = ids < N_IDS - 1
    scores = tl.load(logits + ids, mask=inside, other=float("-inf")).to(tl.float32)
    # The plain division is an approximation on the GPU.
    scores = tl.div_rn(scores, tl.where(heat < _GREEDY_BELOW, 1.0, heat))
    penalised = tl.where(scores > 0, tl.div_rn(scores, factor), scores * factor)
    return tl.where(tl.load(seen + ids, mask=inside, other=0) != 0, penalised, scores)


@jit
def draw(
    scores: tl.tensor,
    heat: tl.tensor,
    top_k: tl.tensor,
    top_p: tl.tensor,
    seed: tl.tensor,
    head: tl.tensor,
    step: tl.tensor,
    N_TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tl.tensor:
    """One token id, int32. scores: (BLOCK,) float32, at -inf from N_TOKENS on; all others are numbers."""
    ids = tl.arange(0, BLOCK)
    best = tl.max(scores, 0)
    candidates = scores == best
    if (heat >= _GREEDY_BELOW) & (tl.abs(best) < float("inf")):
        distance = best - scores
        key = distance.to(tl.int32, bitcast=True)
        limit = _limit(key, distance, top_k, top_p, N_TOKENS)
        value = tl.where(key <= limit, gumbel_noise(seed, ids, head, step) - distance, float("-inf"))
        candidates = value == tl.max(value, 0)
    return tl.min(tl.where(candidates, ids, N_TOKENS - 1), 0)


@jit
def _limit(
    key: tl.tensor, distance: tl.tensor, top_k: tl.tensor, top_p: tl.tensor, N_TOKENS: tl.constexpr
) -> tl.tensor:
    """The highest key that a candidate may have. key: the bits of the distance (BLOCK,) as int32."""
    limit = tl.full((), 0x7F800000, tl.int32)
    if (top_k > 0) & (top_k < N_TOKENS):
        limit = tl.full((), 0, tl.int32)
        for bit in range(30, -1, -1):
            trial = limit | (1 << bit)
            nearer = tl.sum((key < trial).to(tl.int32), 0)
            limit = tl.where(nearer < top_k, trial, limit)
    if top_p < 1:
        mass = tl.where(key <= limit, (tl.exp(-distance) * _MASS_OF_BEST).to(tl.int64), 0)
        allowed = (tl.sum(mass, 0).to(tl.float32) * top_p).to(tl.int64)
        crossing = tl.full((), 0, tl.int32)
        for bit in range(30, -1, -1):
            trial = crossing | (1 << bit)
            nearer_mass = tl.sum(tl.where(key < trial, mass, 0), 0)
            crossing = tl.where(nearer_mass <= allowed, trial, crossing)
        limit = tl.minimum(crossing, limit)
    return limit


def compile_cases() -> list[CompileCase]:
    """The kernels as the published models and the embedded one launch them."""
    draw_types = {
        "slots": "*i64",
        "temperature": "*fp32",
        "top_k": "*i64",
        "top_p": "*fp32",
        "penalty": "*fp32",
        "seed": "*i64",
        "history": "*i1",
        "history_of": "*i64",
        "step": "*i64",
        "first": "*i64",
        "end": "*i64",
        "known": "*i64",
        "codes": "*i64",
    }
    cases = [
        CompileCase(
            f"draw_codes-{logits}-{n_vq}-{'known' if has_known else 'free'}",
            draw_codes,
            {"logits": f"*{logits}", **draw_types},
            {"N_VQ": n_vq, "N_IDS": 1025, "HAS_KNOWN": has_known, "BLOCK": 1024},
            _NUM_WARPS,
        )
        for logits, n_vq, has_known in (("fp32", 16, True), ("bf16", 16, True), ("fp32", 32, False), ("fp32", 8, True))
    ]
    note_types = {"codes": "*i64", "slots": "*i64", "history": "*i1", "history_of": "*i64"}
    cases.append(CompileCase("note_codes-16", note_codes, note_types, {"N_VQ": 16, "N_IDS": 1025, "BLOCK": 16}, 1))
    return cases
