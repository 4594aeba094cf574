"""sample_text in plain torch: two dot products, then a draw as from any other head."""

from __future__ import annotations

import torch

from streamer_kernels.sample_rows.naive import sample_rows
from streamer_kernels.slots import SamplingSlots


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
    # A matrix product would sum in an order that depends on the batch.
    logits = (hidden.float()[:, None] * head.float()).sum(-1)  # (B, 2)
    logits[:, 1].masked_fill_(step == 0, -torch.inf)
    index = sample_rows(
        logits,
        sampling.temperature[slots, 0],
        sampling.top_k[slots, 0],
        sampling.top_p[slots, 0],
        sampling.penalty[slots],
        None,
        sampling.seed[slots],
        step,
        torch.zeros_like(step),
    )
    return torch.where(forced >= 0, forced, ids[index])
