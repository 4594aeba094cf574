"""What the layers of one decode step share about where their sequences' keys and values are."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, eq=False)
class DecodePlan:
    """Made once a step by ``plan_decode``, read by each layer's ``decode_attention``.

    tables: (B, n) int64, a sequence's blocks in order, then any valid ones; positions: (B,) int64, each sequence's
    newest row. pool_rows and seen are what the naive version works out beforehand, and empty for the fused one:
    pool_rows has each sequence's visible rows, (length,) int64 or a slice, or one (B * n * block_rows,) where the host
    does not know the lengths; then seen is (B, 1, 1, n * block_rows) bool.
    """

    tables: torch.Tensor
    positions: torch.Tensor
    pool_rows: tuple[torch.Tensor | slice, ...] = ()
    seen: torch.Tensor | None = None
