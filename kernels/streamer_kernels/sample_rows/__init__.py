"""Drawing one token for each head of each sequence.

``sample_codes(logits, slots, sampling, step, first, end, known)``, the audio heads of B sequences:

- logits: (B, n_vq, V) float32, bfloat16 or float16; the last id, the pad code, is never drawn.
- slots: (B,) int64, where ``sampling`` keeps each sequence's settings and histories. Entries may name the same slot
  when nobody needs their result (a batch filled up to a captured size).
- step: (B,) int64, the row's number: with the slot's seed, the head 1 + k and the token id it is the key of the draw.
- first, end: (B,) int64; codebook k is drawn where first <= k < end, and is the pad code elsewhere.
- known: (B, n_vq) int64 or None; a code that is not negative is taken instead.

Returns (B, n_vq) int64, and notes these codes in ``sampling.history``. Filters and draw as in ``sample_rows``; the
result depends on neither slot, batch nor block size. On a GPU nothing waits for the host.
"""

from __future__ import annotations

import torch

from streamer_kernels.dispatch import use_triton
from streamer_kernels.sample_rows import host, naive
from streamer_kernels.sample_rows.naive import candidate_distribution, sample_rows
from streamer_kernels.slots import SamplingSlots

__all__ = ["candidate_distribution", "sample_codes", "sample_rows"]


def sample_codes(
    logits: torch.Tensor,
    slots: torch.Tensor,
    sampling: SamplingSlots,
    step: torch.Tensor,
    first: torch.Tensor,
    end: torch.Tensor,
    known: torch.Tensor | None = None,
) -> torch.Tensor:
    """The codes (B, n_vq) int64 of the next row of each of B sequences; arguments in the module's docstring."""
    if use_triton(logits):
        from streamer_kernels.sample_rows import fused

        return fused.sample_codes(logits, slots, sampling, step, first, end, known)
    if logits.device.type == "cpu":
        return host.sample_codes(logits, slots, sampling, step, first, end, known)
    return naive.sample_codes(logits, slots, sampling, step, first, end, known)
