"""The delay pattern's state machine for sequences inside audio, on the device: before a row is drawn, and after.

``plan_rows(slots, delay, n_vq, delay_slot_id, audio_end_id)`` says what the next row of each of B sequences may hold:
three (B,) int64 tensors,

- forced: the text id where the pattern leaves no choice, -1 elsewhere: a delay slot while the codebooks run dry, and
  from ``tail_at`` on (never at step 0); audio_end after them.
- first, end: codebook k is drawn where first <= k < end.

``advance_delay(rows, slots, delay, pad_code, delay_slot_id, audio_end_id)`` takes note of the rows (B, 1+n_vq) int64
just drawn, and updates ``delay`` in place. Text ids are those allowed inside audio, audio_end included. Returns

- frames: (B, n_vq) int64, the frame that each row completes: its code k comes from the row n_vq-1-k before. The pad
  code everywhere where fewer than n_vq rows were decoded, or a code of the frame is the pad code.
- state: (B,) int64, the bits ``FRAME`` (a frame is complete), ``CODES_COMPLETE`` (the audio block's last code is known;
  only audio_end is left to come) and ``AUDIO_ENDED`` (this row was audio_end).

``slots`` are (B,) int64 and distinct, except for slots that belong to nobody. Nothing waits for the host.
"""

from __future__ import annotations

import torch

from streamer_kernels.advance_delay import host, naive
from streamer_kernels.advance_delay.bits import AUDIO_ENDED, CODES_COMPLETE, FRAME
from streamer_kernels.dispatch import use_triton
from streamer_kernels.slots import DelaySlots

__all__ = ["AUDIO_ENDED", "CODES_COMPLETE", "FRAME", "advance_delay", "plan_rows"]


def plan_rows(
    slots: torch.Tensor, delay: DelaySlots, n_vq: int, delay_slot_id: int, audio_end_id: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(forced, first, end), each (B,) int64, of the next row of each of B sequences; see the module's docstring."""
    if use_triton(slots):
        from streamer_kernels.advance_delay import fused

        return fused.plan_rows(slots, delay, n_vq, delay_slot_id, audio_end_id)
    if slots.device.type == "cpu":
        return host.plan_rows(slots, delay, n_vq, delay_slot_id, audio_end_id)
    return naive.plan_rows(slots, delay, n_vq, delay_slot_id, audio_end_id)


def advance_delay(
    rows: torch.Tensor, slots: torch.Tensor, delay: DelaySlots, pad_code: int, delay_slot_id: int, audio_end_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(frames (B, n_vq), state (B,)) int64 after the rows (B, 1+n_vq) int64; see the module's docstring."""
    if use_triton(rows):
        from streamer_kernels.advance_delay import fused

        return fused.advance_delay(rows, slots, delay, pad_code, delay_slot_id, audio_end_id)
    if rows.device.type == "cpu":
        return host.advance_delay(rows, slots, delay, pad_code, delay_slot_id, audio_end_id)
    return naive.advance_delay(rows, slots, delay, pad_code, delay_slot_id, audio_end_id)
