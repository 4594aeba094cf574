"""A layer's matrix in the precision it is kept in: as it was loaded, in half of 32 bits, or in 8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch

WeightFormat = Literal["native", "bf16", "fp8"]

_FP8 = torch.float8_e4m3fn
_FP8_MAX = 448.0
# Tensor cores multiply this format from here on (Ada, Hopper).
_FP8_CAPABILITY = (8, 9)


class Linear(Protocol):
    """Maps (N, in) to (N, out)."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...


class NativeLinear:
    """Kept (in, out): the CPU's product then gives a row the same bits for any number of rows from two up."""

    def __init__(self, weight: torch.Tensor) -> None:
        """weight: (out, in), as checkpoints have it."""
        self._weight = weight.t().contiguous()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self._weight


class Bf16Linear:
    """Matrix and x in bfloat16, all around it as it was: half the bytes, which is what a few rows on a CPU wait for.

    A row has the same bits in any company.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        """weight: (out, in), as checkpoints have it."""
        self._weight = weight.t().to(torch.bfloat16).contiguous()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return (x.to(torch.bfloat16) @ self._weight).to(x.dtype)


class Fp8Linear:
    """E4M3 (Micikevicius et al., "FP8 formats for deep learning", 2022), one scale for each output and each row of x.

    On a GPU that can, the product is made of 8-bit numbers; elsewhere the same numbers are multiplied in x's own type.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        """weight: (out, in), as checkpoints have it."""
        self._weight, self._scale = _quantize(weight)
        self._native = weight.is_cuda and torch.cuda.get_device_capability(weight.device) >= _FP8_CAPABILITY

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        rounded, scale = _quantize(x)
        if self._native:
            return torch._scaled_mm(
                rounded, self._weight.t(), scale_a=scale, scale_b=self._scale.t(), out_dtype=x.dtype
            )
        exact = rounded.float() @ self._weight.float().t()
        return (exact * scale * self._scale.t()).to(x.dtype)


def make_linear(weight: torch.Tensor, weights: WeightFormat) -> Linear:
    """The matrix (out, in) in a format."""
    kinds: dict[WeightFormat, Callable[[torch.Tensor], Linear]]
    kinds = {"native": NativeLinear, "bf16": Bf16Linear, "fp8": Fp8Linear}
    return kinds[weights](weight)


def _quantize(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of x (N, K) in 8 bits, and the scales (N, 1) float32 that undo it."""
    scale = x.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / _FP8_MAX
    return (x.float() / scale).to(_FP8), scale
