"""plan_rows and advance_delay in plain torch."""

from __future__ import annotations

import torch

from streamer_kernels.advance_delay.bits import AUDIO_ENDED, CODES_COMPLETE, FRAME
from streamer_kernels.slots import DelaySlots


def plan_rows(
    slots: torch.Tensor, delay: DelaySlots, n_vq: int, delay_slot_id: int, audio_end_id: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(forced, first, end) of the next row of each of B sequences; see the package's docstring."""
    delayed, step = delay.delayed_length[slots], delay.step[slots]
    tail = (delayed >= 0) | ((step >= delay.tail_at[slots]) & (step > 0))
    forced = torch.where(delayed == n_vq, audio_end_id, torch.where(tail, delay_slot_id, -1))
    return forced, delayed.clamp(min=0), delay.audio_length[slots].clamp(max=n_vq)


def advance_delay(
    rows: torch.Tensor, slots: torch.Tensor, delay: DelaySlots, pad_code: int, delay_slot_id: int, audio_end_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(frames, state) after the rows (B, 1+n_vq) of B sequences; see the package's docstring."""
    text, codes = rows[:, 0], rows[:, 1:]
    n_vq = codes.shape[1]
    ended = text == audio_end_id
    delay.audio_length[slots] = torch.where(ended, 0, delay.audio_length[slots] + 1)
    delayed = delay.delayed_length[slots]
    begun = torch.where((delayed < 0) & (text == delay_slot_id), 0, delayed)
    counted = torch.where(begun >= 0, begun + 1, begun)
    counted = torch.where(counted > n_vq, -1, counted)
    delay.delayed_length[slots] = counted
    step = delay.step[slots]
    delay.step[slots] = step + 1

    delay.window[slots, step % n_vq] = codes
    books = torch.arange(n_vq, device=rows.device)
    frames = delay.window[slots[:, None], (step[:, None] + 1 + books) % n_vq, books]
    complete = (step >= n_vq - 1) & (frames != pad_code).all(1)
    frames = torch.where(complete[:, None], frames, pad_code)
    state = complete * FRAME + (counted == n_vq) * CODES_COMPLETE + ended * AUDIO_ENDED
    return frames, state
