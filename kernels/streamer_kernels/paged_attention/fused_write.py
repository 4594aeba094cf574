"""norm_rope_write in Triton: one warp a head, since a head is all that a norm or a rotation looks at."""

from __future__ import annotations

import torch
import triton.language as tl

from streamer_kernels.compile_case import CompileCase
from streamer_kernels.jit import jit
from streamer_kernels.paged_attention.fused import check_pool


@jit
def _norm_rope_write_kernel(
    qkv: tl.tensor,
    q_norm: tl.tensor,
    k_norm: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    q: tl.tensor,
    k_pool: tl.tensor,
    v_pool: tl.tensor,
    pool_rows: tl.tensor,
    eps: tl.tensor,
    largest: tl.tensor,
    pool_head_stride: tl.tensor,
    N_HEADS: tl.constexpr,
    N_KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
) -> None:
    """One head of one row: of a query, a key or a value. Grid (N, Hq + 2*Hkv)."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    d = tl.arange(0, HALF)
    source = qkv + (row * (N_HEADS + 2 * N_KV_HEADS) + head) * 2 * HALF
    low, high = tl.load(source + d), tl.load(source + HALF + d)
    if head >= N_HEADS + N_KV_HEADS:
        target = v_pool + _pool_row(pool_rows, row, head - N_HEADS - N_KV_HEADS, pool_head_stride, 2 * HALF)
        _store_halves(target, low.to(tl.float32), high.to(tl.float32), largest, HALF)
        return
    dtype = low.dtype
    low, high = low.to(tl.float32), high.to(tl.float32)
    scale = tl.rsqrt((tl.sum(low * low) + tl.sum(high * high)) / (2 * HALF) + eps)
    is_query = head < N_HEADS
    # Rounded where the published model rounds: after the norm and after the weight.
    low_weight = tl.where(is_query, tl.load(q_norm + d), tl.load(k_norm + d))
    high_weight = tl.where(is_query, tl.load(q_norm + HALF + d), tl.load(k_norm + HALF + d))
    low = ((low * scale).to(dtype).to(tl.float32) * low_weight.to(tl.float32)).to(dtype).to(tl.float32)
    high = ((high * scale).to(dtype).to(tl.float32) * high_weight.to(tl.float32)).to(dtype).to(tl.float32)
    c = tl.load(cos + row * HALF + d).to(tl.float32)
    s = tl.load(sin + row * HALF + d).to(tl.float32)
    new_low, new_high = low * c - high * s, high * c + low * s
    if is_query:
        _store_halves(q + (row * N_HEADS + head) * 2 * HALF, new_low, new_high, float("inf"), HALF)
    else:
        target = k_pool + _pool_row(pool_rows, row, head - N_HEADS, pool_head_stride, 2 * HALF)
        _store_halves(target, new_low, new_high, largest, HALF)


@jit
def _pool_row(
    pool_rows: tl.tensor,
    row: tl.tensor,
    kv_head: tl.tensor,
    pool_head_stride: tl.tensor,
    HEAD_DIM: tl.constexpr,
) -> tl.tensor:
    return kv_head.to(tl.int64) * pool_head_stride + tl.load(pool_rows + row) * HEAD_DIM


@jit
def _store_halves(
    target: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    largest: tl.tensor,
    HALF: tl.constexpr,
) -> None:
    d = tl.arange(0, HALF)
    # Cut to what the pool holds, but NaN stays NaN: broken numbers must show.
    low = tl.clamp(low, -largest, largest, propagate_nan=tl.PropagateNan.ALL)
    high = tl.clamp(high, -largest, largest, propagate_nan=tl.PropagateNan.ALL)
    tl.store(target + d, low.to(target.dtype.element_ty))
    tl.store(target + HALF + d, high.to(target.dtype.element_ty))


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
    """See :func:`streamer_kernels.norm_rope_write`. ValueError for a pool that it cannot write."""
    count, n_kv_heads, head_dim = qkv.shape[0], k_pool.shape[0], q_norm.shape[0]
    check_pool(k_pool)
    check_pool(v_pool)
    n_heads = qkv.shape[1] // head_dim - 2 * n_kv_heads
    q = torch.empty(count, n_heads, head_dim, dtype=qkv.dtype, device=qkv.device)
    largest = torch.finfo(k_pool.dtype).max if k_pool.dtype.itemsize == 1 else float("inf")
    if count:
        _norm_rope_write_kernel[(count, n_heads + 2 * n_kv_heads)](
            *(qkv.contiguous(), q_norm, k_norm, cos.contiguous(), sin.contiguous(), q, k_pool, v_pool, pool_rows),
            *(eps, largest, k_pool.stride(0)),
            N_HEADS=n_heads,
            N_KV_HEADS=n_kv_heads,
            HALF=head_dim // 2,
            num_warps=1,
        )
    return q


def compile_cases() -> list[CompileCase]:
    """The published 8 B model's heads, with pools of bfloat16 and float8."""
    cases = []
    for pool in ("*bf16", "*fp8e4nv"):
        signature = {
            **dict.fromkeys(("qkv", "q_norm", "k_norm", "cos", "sin", "q"), "*bf16"),
            **dict.fromkeys(("k_pool", "v_pool"), pool),
            "pool_rows": "*i64",
            **dict.fromkeys(("eps", "largest"), "fp32"),
            "pool_head_stride": "i64",
        }
        constants: dict[str, object] = {"N_HEADS": 32, "N_KV_HEADS": 8, "HALF": 64}
        cases.append(CompileCase(f"norm_rope_write-{pool[1:]}", _norm_rope_write_kernel, signature, constants, 1))
    return cases
