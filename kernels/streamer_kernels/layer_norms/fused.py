"""add_rms_norm and silu_gate in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from streamer_kernels.compile_case import CompileCase
from streamer_kernels.jit import jit

_GATE_TILE = 1024


@jit
def _add_rms_norm_kernel(
    x: tl.tensor,
    delta: tl.tensor,
    weight: tl.tensor,
    total: tl.tensor,
    normed: tl.tensor,
    eps: tl.tensor,
    HAS_DELTA: tl.constexpr,
    HIDDEN: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """One row. Grid (N,)."""
    row = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, TILE)
    inside = h < HIDDEN
    value = tl.load(x + row * HIDDEN + h, mask=inside, other=0.0)
    if HAS_DELTA:
        change = tl.load(delta + row * HIDDEN + h, mask=inside, other=0.0)
        # What the next layer adds to is the rounded sum, so the norm is of that.
        value = (value.to(tl.float32) + change.to(tl.float32)).to(value.dtype)
        tl.store(total + row * HIDDEN + h, value, mask=inside)
    full = value.to(tl.float32)
    scaled = full * tl.rsqrt(tl.sum(full * full) / HIDDEN + eps)
    scale = tl.load(weight + h, mask=inside, other=0.0).to(tl.float32)
    out = scaled.to(value.dtype).to(tl.float32) * scale
    tl.store(normed + row * HIDDEN + h, out.to(normed.dtype.element_ty), mask=inside)


@jit
def _silu_gate_kernel(
    gate_up: tl.tensor,
    out: tl.tensor,
    N_GATES: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """One stretch of one row. Grid (N, stretches)."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = i < N_GATES
    gate = tl.load(gate_up + row * 2 * N_GATES + i, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * N_GATES + N_GATES + i, mask=inside, other=0.0).to(tl.float32)
    active = (gate * tl.sigmoid(gate)).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + row * N_GATES + i, (active * up).to(out.dtype.element_ty), mask=inside)


def add_rms_norm(
    x: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See :func:`streamer_kernels.add_rms_norm`."""
    x = x.contiguous()
    count, hidden = x.shape
    normed = torch.empty(count, hidden, dtype=x.dtype, device=x.device)
    total = x if delta is None else torch.empty_like(normed)
    tile = triton.next_power_of_2(hidden)
    other = x if delta is None else delta.contiguous()
    if count:
        _add_rms_norm_kernel[(count,)](
            *(x, other, weight, total, normed, eps),
            HAS_DELTA=delta is not None,
            HIDDEN=hidden,
            TILE=tile,
            num_warps=_norm_warps(tile),
        )
    return total, normed


def silu_gate(gate_up: torch.Tensor) -> torch.Tensor:
    """See :func:`streamer_kernels.silu_gate`."""
    count, n_gates = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty(count, n_gates, dtype=gate_up.dtype, device=gate_up.device)
    if count:
        grid = (count, triton.cdiv(n_gates, _GATE_TILE))
        _silu_gate_kernel[grid](gate_up.contiguous(), out, N_GATES=n_gates, TILE=_GATE_TILE)
    return out


def _norm_warps(tile: int) -> int:
    return 8 if tile > 2048 else 4


def compile_cases() -> list[CompileCase]:
    """The published 8 B model's sizes, and a hidden size that takes fewer warps."""
    norm = {**dict.fromkeys(("x", "delta", "weight", "total", "normed"), "*bf16"), "eps": "fp32"}
    gate = {"gate_up": "*bf16", "out": "*bf16"}
    cases = [CompileCase("silu_gate-12288", _silu_gate_kernel, gate, {"N_GATES": 12288, "TILE": _GATE_TILE})]
    for hidden in (4096, 2048):
        constants: dict[str, object] = {"HAS_DELTA": True, "HIDDEN": hidden, "TILE": hidden}
        cases.append(CompileCase(f"add_rms_norm-{hidden}", _add_rms_norm_kernel, norm, constants, _norm_warps(hidden)))
    return cases
