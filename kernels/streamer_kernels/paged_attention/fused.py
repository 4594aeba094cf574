"""decode_attention in Triton: split over the context, then merged (Dao et al., "Flash-Decoding", 2023)."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from streamer_kernels.compile_case import CompileCase
from streamer_kernels.jit import jit
from streamer_kernels.paged_attention.plan import DecodePlan

# A split is at least this long, and its length depends on the table's width alone: the same sums in any batch.
_SPLIT_ROWS = 256
_MOST_SPLITS = 32
_LEAST_DOT_ROWS = 16  # of a tensor core's tile


@jit
def _attend_kernel(
    q: tl.tensor,
    k_pool: tl.tensor,
    v_pool: tl.tensor,
    tables: tl.tensor,
    positions: tl.tensor,
    out: tl.tensor,
    log_sums: tl.tensor,
    scale: tl.tensor,
    n_blocks: tl.tensor,
    table_blocks: tl.tensor,
    split_rows: tl.tensor,
    GROUP: tl.constexpr,
    GROUP_TILE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    TILE_ROWS: tl.constexpr,
) -> None:
    """One split of one sequence for the query heads of one key-value head. Grid (splits, Hkv, B)."""
    split, n_splits = tl.program_id(0), tl.num_programs(0)
    kv_head, n_kv_heads = tl.program_id(1), tl.num_programs(1)
    batch = tl.program_id(2).to(tl.int64)
    length = tl.load(positions + batch).to(tl.int32) + 1
    begin = split * split_rows
    if begin >= length:
        return
    end = tl.minimum(begin + split_rows, length)

    g, d = tl.arange(0, GROUP_TILE), tl.arange(0, HEAD_DIM)
    in_group = (g < GROUP)[:, None]
    head = kv_head * GROUP + g
    first_head = batch * n_kv_heads * GROUP
    queries = tl.load(q + (first_head + head[:, None]) * HEAD_DIM + d[None, :], mask=in_group, other=0.0)
    highest = tl.full((GROUP_TILE,), -float("inf"), tl.float32)
    mass = tl.zeros((GROUP_TILE,), tl.float32)
    total = tl.zeros((GROUP_TILE, HEAD_DIM), tl.float32)
    for start in range(begin, end, TILE_ROWS):
        row = start + tl.arange(0, TILE_ROWS)
        seen = row < end
        block = tl.load(tables + batch * table_blocks + row // BLOCK_ROWS, mask=seen, other=0).to(tl.int64)
        pool_row = (kv_head.to(tl.int64) * n_blocks + block) * BLOCK_ROWS + row % BLOCK_ROWS
        at = pool_row[:, None] * HEAD_DIM + d[None, :]
        keys = tl.load(k_pool + at, mask=seen[:, None], other=0.0).to(queries.dtype)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale
        scores = tl.where(seen[None, :], scores, -float("inf"))
        # A tile begins with a seen row, so the maximum is finite and no difference is inf - inf.
        higher = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(highest - higher)
        mass = mass * shrink + tl.sum(weights, 1)
        values = tl.load(v_pool + at, mask=seen[:, None], other=0.0).to(queries.dtype)
        total = tl.dot(weights.to(queries.dtype), values, total * shrink[:, None], input_precision="ieee")
        highest = higher

    slot = (first_head + head) * n_splits + split
    result = (total / mass[:, None]).to(out.dtype.element_ty)
    tl.store(out + slot[:, None] * HEAD_DIM + d[None, :], result, mask=in_group)
    tl.store(log_sums + slot, highest + tl.log2(mass), mask=g < GROUP)


@jit
def _merge_kernel(
    parts: tl.tensor,
    log_sums: tl.tensor,
    positions: tl.tensor,
    out: tl.tensor,
    split_rows: tl.tensor,
    n_splits: tl.tensor,
    HEAD_DIM: tl.constexpr,
    SPLIT_TILE: tl.constexpr,
) -> None:
    """One query head of one sequence. Grid (Hq, B)."""
    head, n_heads = tl.program_id(0), tl.num_programs(0)
    batch = tl.program_id(1).to(tl.int64)
    length = tl.load(positions + batch).to(tl.int32) + 1
    split, d = tl.arange(0, SPLIT_TILE), tl.arange(0, HEAD_DIM)
    used = split < tl.cdiv(length, split_rows)
    slot = (batch * n_heads + head) * n_splits + split
    log_sum = tl.load(log_sums + slot, mask=used, other=-float("inf"))
    share = tl.exp2(log_sum - tl.max(log_sum, 0))
    part = tl.load(parts + slot[:, None] * HEAD_DIM + d[None, :], mask=used[:, None], other=0.0)
    merged = tl.sum(part * (share / tl.sum(share, 0))[:, None], 0)
    tl.store(out + (batch * n_heads + head) * HEAD_DIM + d, merged.to(out.dtype.element_ty))


def decode_attention(q: torch.Tensor, k_pool: torch.Tensor, v_pool: torch.Tensor, plan: DecodePlan) -> torch.Tensor:
    """See :func:`streamer_kernels.decode_attention`. ValueError for a pool that it cannot read."""
    batch, n_heads, head_dim = q.shape
    n_kv_heads, n_blocks, block_rows, _ = k_pool.shape
    check_pool(k_pool)
    tile_rows = _tile_rows(k_pool.dtype)
    n_splits, split_rows = _splits(plan.tables.shape[1] * block_rows, tile_rows)
    out = torch.empty(batch, n_heads, head_dim, dtype=q.dtype, device=q.device)
    if not batch:
        return out
    parts = out
    if n_splits > 1:
        parts = torch.empty(batch, n_heads, n_splits, head_dim, dtype=torch.float32, device=q.device)
    log_sums = torch.empty(batch, n_heads, n_splits, dtype=torch.float32, device=q.device)
    group = n_heads // n_kv_heads
    _attend_kernel[(n_splits, n_kv_heads, batch)](
        *(q.contiguous(), k_pool, v_pool, plan.tables, plan.positions, parts, log_sums),
        *(head_dim**-0.5 * math.log2(math.e), n_blocks, plan.tables.stride(0), split_rows),
        GROUP=group,
        GROUP_TILE=_group_tile(group),
        HEAD_DIM=head_dim,
        BLOCK_ROWS=block_rows,
        TILE_ROWS=tile_rows,
    )
    if n_splits > 1:
        _merge_kernel[(n_heads, batch)](
            *(parts, log_sums, plan.positions, out, split_rows, n_splits),
            HEAD_DIM=head_dim,
            SPLIT_TILE=triton.next_power_of_2(n_splits),
        )
    return out


def check_pool(pool: torch.Tensor) -> None:
    """ValueError unless rows lie side by side in the pool and a head's values fill a tensor core's tile."""
    head_dim = pool.shape[-1]
    if not pool.is_contiguous():
        raise ValueError(f"kernels.pool: strides {pool.stride()}, expected a contiguous pool; index whole layers only")
    if head_dim < _LEAST_DOT_ROWS or head_dim & (head_dim - 1):
        raise ValueError(
            f"kernels.head_dim: {head_dim}, the Triton kernels take powers of two from {_LEAST_DOT_ROWS} on; "
            "set STREAMER_KERNELS=naive for this model"
        )


def _splits(table_rows: int, tile_rows: int) -> tuple[int, int]:
    """How many splits a table of so many rows has, and the rows of each."""
    n_splits = min(_MOST_SPLITS, triton.cdiv(table_rows, _SPLIT_ROWS))
    split_rows = triton.cdiv(triton.cdiv(table_rows, n_splits), tile_rows) * tile_rows
    return n_splits, max(split_rows, _SPLIT_ROWS)


def _tile_rows(dtype: torch.dtype) -> int:
    # Float32 tiles are for comparisons: half the rows keep them within the shared memory of every GPU.
    return 64 if dtype.itemsize <= 2 else 32


def _group_tile(group: int) -> int:
    return max(_LEAST_DOT_ROWS, int(triton.next_power_of_2(group)))


def compile_cases() -> list[CompileCase]:
    """Head dimensions of the published models and of the embedded one, with pools of bfloat16 and float8."""
    cases = []
    for head_dim, pool in ((128, "*bf16"), (64, "*bf16"), (128, "*fp8e4nv")):
        signature = {
            "q": "*bf16",
            "k_pool": pool,
            "v_pool": pool,
            "tables": "*i64",
            "positions": "*i64",
            "out": "*fp32",
            "log_sums": "*fp32",
            "scale": "fp32",
            **dict.fromkeys(("n_blocks", "table_blocks", "split_rows"), "i32"),
        }
        constants: dict[str, object] = {
            "GROUP": 4,
            "GROUP_TILE": _group_tile(4),
            "HEAD_DIM": head_dim,
            "BLOCK_ROWS": 16,
            "TILE_ROWS": 64,
        }
        cases.append(CompileCase(f"decode_attention-{head_dim}-{pool[1:]}", _attend_kernel, signature, constants))
    merge = {
        "parts": "*fp32",
        "log_sums": "*fp32",
        "positions": "*i64",
        "out": "*bf16",
        "split_rows": "i32",
        "n_splits": "i32",
    }
    cases.append(CompileCase("merge_splits-128", _merge_kernel, merge, {"HEAD_DIM": 128, "SPLIT_TILE": _MOST_SPLITS}))
    return cases
