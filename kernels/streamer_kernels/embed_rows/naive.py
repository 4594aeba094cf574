"""embed_rows in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def embed_rows(rows: torch.Tensor, text_table: torch.Tensor, audio_table: torch.Tensor) -> torch.Tensor:
    """See :func:`streamer_kernels.embed_rows`."""
    n_vq, n_codes, hidden = audio_table.shape
    offsets = torch.arange(0, n_vq * n_codes, n_codes, device=rows.device)
    bags = rows[:, 1:] + offsets  # (N, n_vq) into the stacked table
    stacked = audio_table.view(-1, hidden)
    text = F.embedding(rows[:, 0], text_table)
    if text.dtype == torch.float32:
        return F.embedding_bag(bags, stacked, mode="sum").add_(text)
    return F.embedding(bags, stacked).sum(1, dtype=torch.float32).add_(text).to(text.dtype)
