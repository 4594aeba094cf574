"""plan_rows and advance_delay in Triton: one small program a sequence each.

A program is one warp: a second one could read a slot's state after the first has updated it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from streamer_kernels.advance_delay.bits import AUDIO_ENDED, CODES_COMPLETE, FRAME
from streamer_kernels.compile_case import CompileCase
from streamer_kernels.jit import jit
from streamer_kernels.slots import DelaySlots

_FRAME = tl.constexpr(FRAME)
_CODES_COMPLETE = tl.constexpr(CODES_COMPLETE)
_AUDIO_ENDED = tl.constexpr(AUDIO_ENDED)


def plan_rows(
    slots: torch.Tensor, delay: DelaySlots, n_vq: int, delay_slot_id: int, audio_end_id: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(forced, first, end) of the next row of each of B sequences; see the package's docstring."""
    forced, first, end = torch.empty_like(slots), torch.empty_like(slots), torch.empty_like(slots)
    plan_row[(len(slots),)](
        *(slots, delay.audio_length, delay.delayed_length, delay.step, delay.tail_at, forced, first, end),
        N_VQ=n_vq,
        DELAY_SLOT_ID=delay_slot_id,
        AUDIO_END_ID=audio_end_id,
        num_warps=1,
    )
    return forced, first, end


def advance_delay(
    rows: torch.Tensor, slots: torch.Tensor, delay: DelaySlots, pad_code: int, delay_slot_id: int, audio_end_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(frames, state) after the rows (B, 1+n_vq) of B sequences; see the package's docstring."""
    n_vq = rows.shape[1] - 1
    frames, state = torch.empty_like(rows[:, 1:], memory_format=torch.contiguous_format), torch.empty_like(slots)
    advance_row[(len(slots),)](
        *(rows.contiguous(), slots, delay.audio_length, delay.delayed_length, delay.step, delay.window, frames, state),
        N_VQ=n_vq,
        PAD_CODE=pad_code,
        DELAY_SLOT_ID=delay_slot_id,
        AUDIO_END_ID=audio_end_id,
        BLOCK=triton.next_power_of_2(n_vq),
        num_warps=1,
    )
    return frames, state


@jit
def plan_row(
    slots: tl.tensor,
    audio_length: tl.tensor,
    delayed_length: tl.tensor,
    step: tl.tensor,
    tail_at: tl.tensor,
    forced: tl.tensor,
    first: tl.tensor,
    end: tl.tensor,
    N_VQ: tl.constexpr,
    DELAY_SLOT_ID: tl.constexpr,
    AUDIO_END_ID: tl.constexpr,
) -> None:
    """What one row may hold. Grid (B,)."""
    sequence = tl.program_id(0)
    slot = tl.load(slots + sequence)
    delayed = tl.load(delayed_length + slot)
    now = tl.load(step + slot)
    tail = (delayed >= 0) | ((now >= tl.load(tail_at + slot)) & (now > 0))
    text_id = tl.where(delayed == N_VQ, AUDIO_END_ID, tl.where(tail, DELAY_SLOT_ID, -1))
    tl.store(forced + sequence, text_id.to(tl.int64))
    tl.store(first + sequence, tl.maximum(delayed, 0))
    tl.store(end + sequence, tl.minimum(tl.load(audio_length + slot), N_VQ))


@jit
def advance_row(
    rows: tl.tensor,
    slots: tl.tensor,
    audio_length: tl.tensor,
    delayed_length: tl.tensor,
    step: tl.tensor,
    window: tl.tensor,
    frames: tl.tensor,
    state: tl.tensor,
    N_VQ: tl.constexpr,
    PAD_CODE: tl.constexpr,
    DELAY_SLOT_ID: tl.constexpr,
    AUDIO_END_ID: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Take note of one row. Grid (B,)."""
    sequence = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + sequence)
    text_id = tl.load(rows + sequence * (N_VQ + 1))
    ended = text_id == AUDIO_END_ID
    tl.store(audio_length + slot, tl.where(ended, 0, tl.load(audio_length + slot) + 1))
    delayed = tl.load(delayed_length + slot)
    delayed = tl.where((delayed < 0) & (text_id == DELAY_SLOT_ID), 0, delayed)
    delayed = tl.where(delayed >= 0, delayed + 1, delayed)
    delayed = tl.where(delayed > N_VQ, -1, delayed)
    tl.store(delayed_length + slot, delayed)
    now = tl.load(step + slot)
    tl.store(step + slot, now + 1)

    books = tl.arange(0, BLOCK)
    inside = books < N_VQ
    codes = tl.load(rows + sequence * (N_VQ + 1) + 1 + books, mask=inside, other=0)
    row = window + slot * (N_VQ * N_VQ) + books
    earlier = tl.load(row + (now + 1 + books) % N_VQ * N_VQ, mask=inside & (books < N_VQ - 1), other=0)
    tl.store(row + now % N_VQ * N_VQ, codes, mask=inside)
    # The last codebook's code stands in this very row, which the window does not hold yet.
    frame = tl.where(books == N_VQ - 1, codes, earlier)
    unusable = tl.sum((inside & (frame == PAD_CODE)).to(tl.int32), 0)
    complete = (now >= N_VQ - 1) & (unusable == 0)
    tl.store(frames + sequence * N_VQ + books, tl.where(complete, frame, PAD_CODE), mask=inside)
    bits = tl.where(complete, _FRAME, 0) + tl.where(delayed == N_VQ, _CODES_COMPLETE, 0)
    tl.store(state + sequence, (bits + tl.where(ended, _AUDIO_ENDED, 0)).to(tl.int64))


def compile_cases() -> list[CompileCase]:
    """The kernels as the published models launch them."""
    ids: dict[str, object] = {"DELAY_SLOT_ID": 151662, "AUDIO_END_ID": 151653}
    plan_names = ("slots", "audio_length", "delayed_length", "step", "tail_at", "forced", "first", "end")
    advance_names = ("rows", "slots", "audio_length", "delayed_length", "step", "window", "frames", "state")
    plan_types, advance_types = dict.fromkeys(plan_names, "*i64"), dict.fromkeys(advance_names, "*i64")
    advance_constants = {"PAD_CODE": 1024, "BLOCK": 16, **ids}
    return [
        CompileCase("plan_row-16", plan_row, plan_types, {"N_VQ": 16, **ids}, 1),
        CompileCase("advance_row-16", advance_row, advance_types, {"N_VQ": 16, **advance_constants}, 1),
    ]
