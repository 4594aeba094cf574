"""paged_attention in plain torch.

A pool is (n_kv_heads, n_blocks, block_rows, head_dim); a block table lists a sequence's blocks in order, so that row r
of the sequence is row r % block_rows of block table[r // block_rows].

On the CPU each sequence is attended to by itself, over exactly its rows: its result has the same bits in any batch,
nothing is padded to the longest, and what was gathered is still in the cache when it is used.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from streamer_kernels.layer_norms.naive import normalized
from streamer_kernels.paged_attention.plan import DecodePlan

# The CPU's matrix product splits an inner dimension of over 384 at places that depend on its length.
_PARTITION_ROWS = 256


def write_kv(pool: torch.Tensor, rows: torch.Tensor, values: torch.Tensor) -> None:
    """See :func:`streamer_kernels.write_kv`."""
    flat = _flat(pool)
    values = values.transpose(0, 1)
    if pool.dtype.itemsize == 1:
        # Float8 tensors are copied as bytes: few torch operations know them.
        largest = torch.finfo(pool.dtype).max
        flat = flat.view(torch.uint8)
        values = values.clamp(-largest, largest).to(pool.dtype).view(torch.uint8)
    elif values.dtype != pool.dtype:
        values = values.to(pool.dtype)
    flat.index_copy_(1, rows, values)


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
    """See :func:`streamer_kernels.norm_rope_write`."""
    count, n_kv_heads, head_dim = qkv.shape[0], k_pool.shape[0], q_norm.shape[0]
    heads = qkv.view(count, -1, head_dim)
    n_rotated = heads.shape[1] - n_kv_heads
    n_heads = n_rotated - n_kv_heads
    normed = normalized(heads[:, :n_rotated], eps)  # (N, Hq+Hkv, D)
    normed[:, :n_heads].mul_(q_norm)
    normed[:, n_heads:].mul_(k_norm)
    halves = normed.view(count, n_rotated, 2, -1)
    rotated = halves * cos.view(count, 1, 1, -1)
    (low, high), (new_low, new_high), sin = halves.unbind(2), rotated.unbind(2), sin.unsqueeze(1)
    new_low.addcmul_(high, sin, value=-1)
    new_high.addcmul_(low, sin)
    both = rotated.view(count, n_rotated, head_dim)
    write_kv(k_pool, pool_rows, both[:, n_heads:])
    write_kv(v_pool, pool_rows, heads[:, n_rotated:])
    return both[:, :n_heads]


def plan_decode(tables: torch.Tensor, positions: torch.Tensor, block_rows: int) -> DecodePlan:
    """See :func:`streamer_kernels.plan_decode`."""
    if tables.device.type != "cpu":
        return padded_plan(tables, positions, block_rows)
    rows = _pool_rows(tables, block_rows)
    own = zip(rows.unbind(0), tables.tolist(), positions.tolist(), strict=True)
    return DecodePlan(tables, positions, tuple(_own_rows(*one, block_rows) for one in own))


def padded_plan(tables: torch.Tensor, positions: torch.Tensor, block_rows: int) -> DecodePlan:
    """A plan made without knowing any length on the host: all of the tables' rows, and which of them to see."""
    rows = _pool_rows(tables, block_rows)
    unseen = torch.arange(rows.shape[1], device=rows.device) > positions[:, None]
    # A masked row weighs nothing, but 0 x NaN is NaN: the sequence's first row stands in for it.
    rows = torch.where(unseen, rows[:, :1], rows)
    return DecodePlan(tables, positions, (rows.view(-1),), ~unseen[:, None, None])


def decode_attention(q: torch.Tensor, k_pool: torch.Tensor, v_pool: torch.Tensor, plan: DecodePlan) -> torch.Tensor:
    """See :func:`streamer_kernels.decode_attention`."""
    batch, n_heads, head_dim = q.shape
    n_kv_heads = k_pool.shape[0]
    keys, values = _flat(k_pool), _flat(v_pool)
    # The query heads of a group are as many query rows of their key-value head.
    grouped = q.view(batch, 1, n_kv_heads, -1, head_dim)
    if plan.seen is None:
        out = []
        for one, rows in zip(grouped.unbind(0), plan.pool_rows, strict=True):
            k, v = _take(keys, rows, q.dtype), _take(values, rows, q.dtype)
            out.append(F.scaled_dot_product_attention(one, k.unsqueeze(0), v.unsqueeze(0)))
        return torch.cat(out).view(batch, n_heads, head_dim)
    shape = (n_kv_heads, batch, -1, head_dim)
    k, v = (_take(x, plan.pool_rows[0], q.dtype).view(shape).transpose(0, 1) for x in (keys, values))
    out_rows = F.scaled_dot_product_attention(grouped[:, 0], k, v, attn_mask=plan.seen)
    return out_rows.reshape(batch, n_heads, head_dim)


def prefill_attention(
    q: torch.Tensor, k_pool: torch.Tensor, v_pool: torch.Tensor, table: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """See :func:`streamer_kernels.prefill_attention`."""
    count, n_heads, head_dim = q.shape
    n_kv_heads = k_pool.shape[0]
    group = n_heads // n_kv_heads
    rows = _pool_rows(table[None], k_pool.shape[2])[0]
    number = torch.arange(rows.shape[0], device=q.device)
    # Rows that are not written yet may hold NaN, which no weight would keep out.
    rows = torch.where(number > positions.max(), rows[:1], rows)
    k, v = _take(_flat(k_pool), rows, q.dtype), _take(_flat(v_pool), rows, q.dtype)  # (Hkv, T, D)
    grouped = q.view(count, n_kv_heads, group * head_dim).transpose(0, 1).reshape(n_kv_heads, count * group, head_dim)
    unseen = number > positions.repeat_interleave(group)[:, None]  # (C*G, T)
    if q.is_cuda:
        out = F.scaled_dot_product_attention(grouped[None], k[None], v[None], attn_mask=~unseen)
    else:
        scores = torch.matmul(grouped, k.transpose(-1, -2)).mul_(head_dim**-0.5)
        out = _weighted_sum(_softmax(scores.masked_fill_(unseen, -torch.inf)), v)
    return out.view(n_kv_heads, count, group, head_dim).transpose(0, 1).reshape(count, n_heads, head_dim)


def _own_rows(rows: torch.Tensor, blocks: list[int], newest: int, block_rows: int) -> torch.Tensor | slice:
    """The rows up to a sequence's newest; a slice where its blocks follow each other."""
    first, used = blocks[0], newest // block_rows + 1
    if blocks[:used] == list(range(first, first + used)):
        return slice(first * block_rows, first * block_rows + newest + 1)
    return rows[: newest + 1]


def _pool_rows(tables: torch.Tensor, block_rows: int) -> torch.Tensor:
    """(B, n * block_rows): where the rows of B sequences are, counted through all blocks of a pool."""
    return (tables[:, :, None] * block_rows + torch.arange(block_rows, device=tables.device)).flatten(1)


def _flat(pool: torch.Tensor) -> torch.Tensor:
    """(Hkv, n_blocks * block_rows, D). Not more dimensions: with them, selecting rows takes five times as long."""
    return pool.view(pool.shape[0], -1, pool.shape[-1])


def _take(flat: torch.Tensor, rows: torch.Tensor | slice, dtype: torch.dtype) -> torch.Tensor:
    """(Hkv, T, D) of type ``dtype``: rows (T,) of a flat pool; a view where they lie in one piece."""
    if isinstance(rows, slice):
        taken = flat[:, rows]
    elif flat.dtype.itemsize == 1:
        taken = flat.view(torch.uint8).index_select(1, rows).view(flat.dtype)
    else:
        taken = flat.index_select(1, rows)
    return taken if taken.dtype == dtype else taken.to(dtype)


def _softmax(scores: torch.Tensor) -> torch.Tensor:
    # Over thousands of rows, half precision would lose the small weights.
    return scores.softmax(-1, dtype=torch.float32).to(scores.dtype)


def _weighted_sum(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    total = torch.matmul(weights[..., :_PARTITION_ROWS], values[..., :_PARTITION_ROWS, :])
    for begin in range(_PARTITION_ROWS, values.shape[-2], _PARTITION_ROWS):
        end = begin + _PARTITION_ROWS
        total = total + torch.matmul(weights[..., begin:end], values[..., begin:end, :])
    return total
