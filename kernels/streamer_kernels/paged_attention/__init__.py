"""Attention over keys and values that live in blocks of a shared pool.

A pool is (n_kv_heads, n_blocks, block_rows, head_dim), contiguous, of the model's type or float8_e4m3fn; a block table
lists a sequence's blocks in order, so that row r of the sequence is row r % block_rows of block table[r // block_rows].
"""

from __future__ import annotations

import torch

from streamer_kernels.dispatch import use_triton
from streamer_kernels.paged_attention import naive
from streamer_kernels.paged_attention.plan import DecodePlan

__all__ = ["DecodePlan", "decode_attention", "norm_rope_write", "plan_decode", "prefill_attention", "write_kv"]


def write_kv(pool: torch.Tensor, rows: torch.Tensor, values: torch.Tensor) -> None:
    """Store values (N, n_kv_heads, head_dim) at pool rows (N,) int64, counted through all blocks."""
    naive.write_kv(pool, rows, values)


def norm_rope_write(
    qkv: torch.Tensor,
    q_norm: torch.Tensor,
    k_norm: torch.Tensor,
    eps: float,
    cos: torch.Tensor,
    sin: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    pool_rows: torch.Tensor,
) -> torch.Tensor:
    """All between a layer's qkv product and its attention: RMS norm of each query and key head, rotary embedding on
    the halves of a head (Su et al., 2021), and keys and values stored in the pools.

    qkv: (N, (n_heads + 2*n_kv_heads) * head_dim), query heads first, then key, then value heads; q_norm, k_norm:
    (head_dim,); cos, sin: (N, head_dim/2) of qkv's type; pool_rows: (N,) int64, counted through all blocks; a row named
    twice must be written alike. What a float8 pool cannot hold is cut to its largest value.
    Returns the queries (N, n_heads, head_dim) of qkv's type, whose rows need not lie side by side.
    """
    if use_triton(qkv):
        from streamer_kernels.paged_attention import fused_write

        return fused_write.norm_rope_write(qkv, q_norm, k_norm, eps, cos, sin, k_pool, v_pool, pool_rows)
    return naive.norm_rope_write(qkv, q_norm, k_norm, eps, cos, sin, k_pool, v_pool, pool_rows)


def plan_decode(tables: torch.Tensor, positions: torch.Tensor, block_rows: int) -> DecodePlan:
    """What all layers of a step share. tables: (B, n) int64; positions: (B,) int64 from 0 to n * block_rows - 1.

    Row r of sequence b is visible where r <= positions[b]; table entries past its blocks may be any valid block, and
    nothing in rows that are not visible reaches a result. Nothing waits for a GPU.
    """
    if use_triton(tables):
        return DecodePlan(tables, positions)
    return naive.plan_decode(tables, positions, block_rows)


def decode_attention(q: torch.Tensor, k_pool: torch.Tensor, v_pool: torch.Tensor, plan: DecodePlan) -> torch.Tensor:
    """One query row for each of B sequences. q: (B, n_heads, head_dim). Returns (B, n_heads, head_dim) of q's type.

    A sequence's result has the same bits in any batch of the same table width.
    """
    if use_triton(q):
        from streamer_kernels.paged_attention import fused

        return fused.decode_attention(q, k_pool, v_pool, plan)
    return naive.decode_attention(q, k_pool, v_pool, plan)


def prefill_attention(
    q: torch.Tensor, k_pool: torch.Tensor, v_pool: torch.Tensor, table: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """C query rows of one sequence, each seeing its own row and all before it.

    q: (C, n_heads, head_dim); positions: (C,) int64 row numbers, below what table (n,) int64 holds.
    Returns (C, n_heads, head_dim). Large matrix products in any case, so there is one version for all devices.
    """
    return naive.prefill_attention(q, k_pool, v_pool, table, positions)
