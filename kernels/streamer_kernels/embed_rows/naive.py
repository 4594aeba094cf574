"""embed_rows in plain torch."""

from __future__ import annotations

import torch


def embed_rows(rows: torch.Tensor, text_table: torch.Tensor, audio_table: torch.Tensor) -> torch.Tensor:
    """Sum of 1 + n_vq embeddings for each row.

    rows: (N, 1+n_vq) int64; text_table: (vocab, hidden); audio_table: (n_vq, codes+1, hidden), one table a codebook.
    Returns (N, hidden).
    """
    n_vq, n_codes, hidden = audio_table.shape
    offsets = torch.arange(n_vq, device=rows.device) * n_codes
    bags = rows[:, 1:] + offsets  # (N, n_vq) into the stacked table
    audio = torch.nn.functional.embedding_bag(bags, audio_table.view(-1, hidden), mode="sum")
    return text_table[rows[:, 0]] + audio
