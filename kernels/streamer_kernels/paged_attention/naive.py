"""paged_attention in plain torch.

A pool is (n_kv_heads, n_blocks, block_rows, head_dim); a block table lists a sequence's blocks in order, so that row r
of the sequence is row r % block_rows of block table[r // block_rows].

A sequence's result has the same bits in any batch: on the CPU a matrix product sums a row's terms in an order that
depends on the inner dimension alone once that is short enough, so the weighted sum over the values is made in
partitions of fixed length.
"""

from __future__ import annotations

import torch

# The CPU's matrix product splits an inner dimension of over 384 at places that depend on its length.
_PARTITION_ROWS = 256


def write_kv(pool: torch.Tensor, rows: torch.Tensor, values: torch.Tensor) -> None:
    """Store values (N, n_kv_heads, head_dim) at pool rows (N,) int64, counted through all blocks."""
    n_kv_heads, n_blocks, block_rows, head_dim = pool.shape
    pool.view(n_kv_heads, n_blocks * block_rows, head_dim).index_copy_(1, rows, values.transpose(0, 1))


def decode_attention(
    q: torch.Tensor, k_pool: torch.Tensor, v_pool: torch.Tensor, tables: torch.Tensor, unseen: torch.Tensor
) -> torch.Tensor:
    """One query row for each of B sequences.

    q: (B, n_heads, head_dim); tables: (B, n) int64, rows of unequal length padded with any valid block;
    unseen: (B, n * block_rows) bool, true where there is no row of the sequence (yet). Returns (B, n_heads, head_dim).
    """
    batch, n_heads, head_dim = q.shape
    n_kv_heads = k_pool.shape[0]
    k, v = _gather(k_pool, tables), _gather(v_pool, tables)  # (Hkv, B, T, D)
    group = n_heads // n_kv_heads
    grouped = q.view(batch, n_kv_heads, group, head_dim).transpose(0, 1)
    if group == 1:
        # A lone row takes another path through the matrix product, which depends on the batch.
        grouped = grouped.expand(-1, -1, 2, -1)
    scores = torch.matmul(grouped, k.transpose(-1, -2)) * head_dim**-0.5  # (Hkv, B, G, T)
    weights = _softmax(scores.masked_fill_(unseen[None, :, None, :], -torch.inf))
    out = _weighted_sum(weights, v)[:, :, :group]
    return out.transpose(0, 1).reshape(batch, n_heads, head_dim)


def prefill_attention(
    q: torch.Tensor, k_pool: torch.Tensor, v_pool: torch.Tensor, table: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """C query rows of one sequence, each seeing its own row and all before it.

    q: (C, n_heads, head_dim); positions: (C,) int64 row numbers, below what table (n,) int64 holds.
    Returns (C, n_heads, head_dim).
    """
    count, n_heads, head_dim = q.shape
    n_kv_heads = k_pool.shape[0]
    group = n_heads // n_kv_heads
    k, v = _gather(k_pool, table[None])[:, 0], _gather(v_pool, table[None])[:, 0]  # (Hkv, T, D)
    grouped = q.view(count, n_kv_heads, group * head_dim).transpose(0, 1).reshape(n_kv_heads, count * group, head_dim)
    scores = torch.matmul(grouped, k.transpose(-1, -2)) * head_dim**-0.5  # (Hkv, C*G, T)
    last_seen = positions.repeat_interleave(group)
    unseen = torch.arange(k.shape[1], device=q.device)[None] > last_seen[:, None]
    weights = _softmax(scores.masked_fill_(unseen, -torch.inf))
    out = _weighted_sum(weights, v).view(n_kv_heads, count, group, head_dim)
    return out.transpose(0, 1).reshape(count, n_heads, head_dim)


def _gather(pool: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """(Hkv, B, T, D): the rows of B sequences out of the pool."""
    n_kv_heads, _, block_rows, head_dim = pool.shape
    batch, n = tables.shape
    return pool.index_select(1, tables.reshape(-1)).view(n_kv_heads, batch, n * block_rows, head_dim)


def _softmax(scores: torch.Tensor) -> torch.Tensor:
    # Over thousands of rows, half precision would lose the small weights.
    return scores.softmax(-1, dtype=torch.float32).to(scores.dtype)


def _weighted_sum(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    total = torch.matmul(weights[..., :_PARTITION_ROWS], values[..., :_PARTITION_ROWS, :])
    for begin in range(_PARTITION_ROWS, values.shape[-2], _PARTITION_ROWS):
        end = begin + _PARTITION_ROWS
        total = total + torch.matmul(weights[..., begin:end], values[..., begin:end, :])
    return total
