"""sample_text in Triton: one program a sequence, its hidden state read once for both products."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from streamer_kernels.compile_case import CompileCase
from streamer_kernels.jit import jit
from streamer_kernels.sample_rows.fused import draw
from streamer_kernels.sample_rows.naive import GREEDY_BELOW
from streamer_kernels.slots import SamplingSlots

_GREEDY_BELOW = tl.constexpr(GREEDY_BELOW)
_NUM_WARPS = 4


def sample_text(
    hidden: torch.Tensor,
    head: torch.Tensor,
    ids: torch.Tensor,
    slots: torch.Tensor,
    sampling: SamplingSlots,
    step: torch.Tensor,
    forced: torch.Tensor,
) -> torch.Tensor:
    """The text id of the next row of each of B sequences; see the package's docstring."""
    batch, width = hidden.shape
    text_ids = torch.empty_like(forced)
    s = sampling
    draw_text[(batch,)](
        *(hidden.contiguous(), head.contiguous(), ids, slots, s.temperature, s.top_k, s.top_p, s.seed),
        *(step, forced, text_ids),
        HEADS=s.temperature.shape[1],
        WIDTH=width,
        BLOCK=triton.next_power_of_2(width),
        num_warps=_NUM_WARPS,
    )
    return text_ids


@jit
def draw_text(
    hidden: tl.tensor,
    head: tl.tensor,
    ids: tl.tensor,
    slots: tl.tensor,
    temperature: tl.tensor,
    top_k: tl.tensor,
    top_p: tl.tensor,
    seed: tl.tensor,
    step: tl.tensor,
    forced: tl.tensor,
    text_ids: tl.tensor,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """One text id. Grid (B,)."""
    sequence = tl.program_id(0).to(tl.int64)
    text_id = tl.load(forced + sequence)
    if text_id < 0:
        columns = tl.arange(0, BLOCK)
        inside = columns < WIDTH
        state = tl.load(hidden + sequence * WIDTH + columns, mask=inside, other=0).to(tl.float32)
        go = tl.sum(state * tl.load(head + columns, mask=inside, other=0).to(tl.float32), 0)
        tail = tl.sum(state * tl.load(head + WIDTH + columns, mask=inside, other=0).to(tl.float32), 0)
        now = tl.load(step + sequence)
        tail = tl.where(now == 0, float("-inf"), tail)
        slot = tl.load(slots + sequence)
        heat = tl.load(temperature + slot * HEADS)
        scores = tl.where(tl.arange(0, 2) == 0, go, tail)
        scores = tl.div_rn(scores, tl.where(heat < _GREEDY_BELOW, 1.0, heat))
        k, p = tl.load(top_k + slot * HEADS), tl.load(top_p + slot * HEADS)
        text_id = tl.load(ids + draw(scores, heat, k, p, tl.load(seed + slot), now * 0, now, 2, 2))
    tl.store(text_ids + sequence, text_id)


def compile_cases() -> list[CompileCase]:
    """The kernel as the published models and the embedded one launch it."""
    types = {
        "ids": "*i64",
        "slots": "*i64",
        "temperature": "*fp32",
        "top_k": "*i64",
        "top_p": "*fp32",
        "seed": "*i64",
        "step": "*i64",
        "forced": "*i64",
        "text_ids": "*i64",
    }
    return [
        CompileCase(
            f"draw_text-{dtype}-{width}",
            draw_text,
            {"hidden": f"*{dtype}", "head": f"*{dtype}", **types},
            {"HEADS": heads, "WIDTH": width, "BLOCK": triton.next_power_of_2(width)},
            _NUM_WARPS,
        )
        for dtype, width, heads in (("bf16", 4096, 17), ("bf16", 2048, 33), ("fp32", 4096, 17), ("fp32", 256, 9))
    ]
