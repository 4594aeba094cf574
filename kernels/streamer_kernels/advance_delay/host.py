"""plan_rows and advance_delay on a CPU, in numpy: on so few numbers a call costs a quarter of what torch takes."""

from __future__ import annotations

import numpy as np
import torch

from streamer_kernels.advance_delay.bits import AUDIO_ENDED, CODES_COMPLETE, FRAME
from streamer_kernels.slots import DelaySlots


def plan_rows(
    slots: torch.Tensor, delay: DelaySlots, n_vq: int, delay_slot_id: int, audio_end_id: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(forced, first, end) of the next row of each of B sequences; see the package's docstring."""
    slot = slots.numpy()
    delayed, step = delay.delayed_length.numpy()[slot], delay.step.numpy()[slot]
    tail = (delayed >= 0) | ((step >= delay.tail_at.numpy()[slot]) & (step > 0))
    forced = np.full(slot.shape, -1)
    forced[tail] = delay_slot_id
    forced[delayed == n_vq] = audio_end_id
    end = np.minimum(delay.audio_length.numpy()[slot], n_vq)
    return torch.from_numpy(forced), torch.from_numpy(np.maximum(delayed, 0)), torch.from_numpy(end)


def advance_delay(
    rows: torch.Tensor, slots: torch.Tensor, delay: DelaySlots, pad_code: int, delay_slot_id: int, audio_end_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(frames, state) after the rows (B, 1+n_vq) of B sequences; see the package's docstring."""
    slot, text, codes = slots.numpy(), rows.numpy()[:, 0], rows.numpy()[:, 1:]
    n_vq = codes.shape[1]
    ended = text == audio_end_id
    audio_length, delayed_length = delay.audio_length.numpy(), delay.delayed_length.numpy()
    audio_length[slot] = (audio_length[slot] + 1) * ~ended
    delayed = delayed_length[slot]
    # -1 for none yet: it becomes 1 at the first delay slot, and -1 again after n_vq.
    delayed += (delayed >= 0) + 2 * ((delayed < 0) & (text == delay_slot_id))
    delayed[delayed > n_vq] = -1
    delayed_length[slot] = delayed
    step = delay.step.numpy()[slot]
    delay.step.numpy()[slot] = step + 1

    window, books = delay.window.numpy(), np.arange(n_vq)
    window[slot, step % n_vq] = codes
    frames = window[slot[:, None], (step[:, None] + 1 + books) % n_vq, books]
    complete = (step >= n_vq - 1) & (frames != pad_code).all(1)
    frames[~complete] = pad_code
    state = complete * FRAME + (delayed == n_vq) * CODES_COMPLETE + ended * AUDIO_ENDED
    return torch.from_numpy(frames), torch.from_numpy(state)
