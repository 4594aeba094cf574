"""sample_text on a CPU, in numpy; nothing is computed for ids that are forced."""

from __future__ import annotations

import numpy as np
import torch

from streamer_kernels.sample_rows.host import draw
from streamer_kernels.sample_rows.naive import GREEDY_BELOW
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
    text_ids = forced.clone()
    free = np.flatnonzero(forced.numpy() < 0)
    if len(free) == 0:
        return text_ids
    rows = hidden.float().numpy()[free]
    # A matrix product would sum in an order that depends on the batch.
    scores = (rows[:, None] * head.float().numpy()).sum(-1)  # (N, 2)
    slot, steps = slots.numpy()[free], step.numpy()[free]
    scores[steps == 0, 1] = -np.inf
    temperature = sampling.temperature.numpy()[slot, 0]
    scores /= np.where(temperature < GREEDY_BELOW, np.float32(1), temperature)[:, None]
    top_k, top_p = sampling.top_k.numpy()[slot, 0], sampling.top_p.numpy()[slot, 0]
    index = draw(scores, temperature, top_k, top_p, sampling.seed.numpy()[slot], np.zeros_like(slot), steps)
    text_ids.numpy()[free] = ids.numpy()[index]
    return text_ids
