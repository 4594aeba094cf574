"""What stands between a layer's matrix products: residual sum with RMS norm, and the gated activation."""

from __future__ import annotations

import torch

from streamer_kernels.dispatch import use_triton
from streamer_kernels.layer_norms import naive

__all__ = ["add_rms_norm", "silu_gate"]


def add_rms_norm(
    x: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The residual sum and its root-mean-square norm (Zhang and Sennrich, 2019), as the published model rounds it.

    x, delta: (N, hidden), delta may be None for nothing to add; weight: (hidden,).
    Returns x + delta (x itself without a delta) and its norm, both (N, hidden) of x's type. The norm is made in
    float32, rounded, and then scaled by the weight.
    """
    if use_triton(x):
        from streamer_kernels.layer_norms import fused

        return fused.add_rms_norm(x, delta, weight, eps)
    return naive.add_rms_norm(x, delta, weight, eps)


def silu_gate(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up (SwiGLU: Shazeer, 2020). gate_up: (N, 2*intermediate), the gates first.

    Returns (N, intermediate).
    """
    if use_triton(gate_up):
        from streamer_kernels.layer_norms import fused

        return fused.silu_gate(gate_up)
    return naive.silu_gate(gate_up)
