"""Drawing the text id of sequences that are inside audio, where only two ids are allowed.

``sample_text(hidden, head, ids, slots, sampling, step, forced)``, B sequences:

- hidden: (B, H), the last hidden states; head: (2, H), the text head's rows of the two ids; both of one float type.
- ids: (2,) int64, the id that goes on and the id that begins the tail; the latter is never drawn at step 0.
- slots, step: (B,) int64, as in ``sample_codes``; settings are those of head 0, without a penalty. The key of the draw
  is (the slot's seed, the index in the pair, head 0, step).
- forced: (B,) int64, the id where the delay pattern leaves no choice, -1 elsewhere.

Returns (B,) int64. Products are summed in float32, and a sequence's result has the same bits in any batch.
"""

from __future__ import annotations

import torch

from streamer_kernels.dispatch import use_triton
from streamer_kernels.sample_text import host, naive
from streamer_kernels.slots import SamplingSlots

__all__ = ["sample_text"]


def sample_text(
    hidden: torch.Tensor,
    head: torch.Tensor,
    ids: torch.Tensor,
    slots: torch.Tensor,
    sampling: SamplingSlots,
    step: torch.Tensor,
    forced: torch.Tensor,
) -> torch.Tensor:
    """The text id (B,) int64 of the next row of each of B sequences; arguments in the module's docstring."""
    if use_triton(hidden):
        from streamer_kernels.sample_text import fused

        return fused.sample_text(hidden, head, ids, slots, sampling, step, forced)
    if hidden.device.type == "cpu":
        return host.sample_text(hidden, head, ids, slots, sampling, step, forced)
    return naive.sample_text(hidden, head, ids, slots, sampling, step, forced)
