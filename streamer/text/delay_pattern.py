"""The delay pattern: codebook k runs k rows behind codebook 0."""

from __future__ import annotations

import torch


def delay_codes(codes: torch.Tensor, pad: int) -> torch.Tensor:
    """(frames, n_vq) codes as (frames + n_vq - 1, n_vq) rows; cells without a code hold ``pad``."""
    frames, n_vq = codes.shape
    rows = codes.new_full((frames + n_vq - 1, n_vq), pad)
    for codebook in range(n_vq):
        rows[codebook : codebook + frames, codebook] = codes[:, codebook]
    return rows


def undelay_codes(rows: torch.Tensor, pad: int) -> torch.Tensor:
    """The complete frames in (rows, n_vq) delayed rows, as (frames, n_vq); the inverse of delay_codes.

    Frames that are all ``pad`` lie outside audio and are left out, so whole generated sequences can be given.
    A frame whose last codebooks are not there yet is left out too.
    """
    count, n_vq = rows.shape
    frames = max(count - n_vq + 1, 0)
    codes = torch.stack([rows[k : k + frames, k] for k in range(n_vq)], dim=1)
    return codes[(codes != pad).any(dim=1)]
