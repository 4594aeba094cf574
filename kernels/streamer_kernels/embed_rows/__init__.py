"""Input embedding of a row: its text embedding plus those of its codes."""

from __future__ import annotations

import torch

from streamer_kernels.dispatch import use_triton
from streamer_kernels.embed_rows import naive

__all__ = ["embed_rows"]


def embed_rows(rows: torch.Tensor, text_table: torch.Tensor, audio_table: torch.Tensor) -> torch.Tensor:
    """Sum of 1 + n_vq embeddings for each row, summed in float32 and rounded once.

    rows: (N, 1+n_vq) int64, ids that the tables have; text_table: (vocab, hidden); audio_table: (n_vq, codes+1,
    hidden), one table a codebook. Returns (N, hidden) of the tables' type.
    """
    if use_triton(rows):
        from streamer_kernels.embed_rows import fused

        return fused.embed_rows(rows, text_table, audio_table)
    return naive.embed_rows(rows, text_table, audio_table)
