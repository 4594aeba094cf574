"""add_rms_norm and silu_gate in plain torch, with as few calls as torch allows: at a few rows, calls are the cost."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F


def normalized(x: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x²) + eps) over the last dimension, made in float32; a new tensor of x's type."""
    scale, least = _constants(x.shape[-1], eps)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    full: torch.Tensor = x / length.mul_(scale).hypot_(least)
    return full if x.dtype == torch.float32 else full.to(x.dtype)


def add_rms_norm(
    x: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See :func:`streamer_kernels.add_rms_norm`."""
    if delta is not None:
        x = x + delta
    return x, normalized(x, eps).mul_(weight)


def silu_gate(gate_up: torch.Tensor) -> torch.Tensor:
    """See :func:`streamer_kernels.silu_gate`."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate).mul_(up)


@functools.lru_cache(maxsize=64)
def _constants(width: int, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """1/sqrt(width) and sqrt(eps): torch takes a number that is a tensor already in a third of the time."""
    with torch.inference_mode(False):
        return torch.tensor(width**-0.5), torch.tensor(eps**0.5)
