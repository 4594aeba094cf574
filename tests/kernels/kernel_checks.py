"""What the kernels' tests share: which device and types they run on, how two versions of an op are compared.

Where there is a GPU the kernels run natively; elsewhere in Triton's interpreter, which is exact in float32 only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch

interpreter = pytest.importorskip("triton.runtime.interpreter")

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
DTYPES = [torch.float32, torch.bfloat16, torch.float16] if HAS_GPU else [torch.float32]
# Root mean square of the error over that of the values: both versions sum in float32, then round once or twice.
LARGEST_RMS_RATIO = {torch.float32: 2e-6, torch.bfloat16: 6e-3, torch.float16: 8e-4}

Result = TypeVar("Result")


def naive_and_fused(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Result]) -> tuple[Result, Result]:
    """What ``run`` gives with the plain torch version of the ops and with the Triton one."""
    monkeypatch.setenv("STREAMER_KERNELS", "naive")
    naive = run()
    monkeypatch.setenv("STREAMER_KERNELS", "triton")
    return naive, run()


def assert_close(actual: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    """Equal up to rounding to ``dtype``: finite, and near by the ratio of root mean squares."""
    assert actual.shape == expected.shape
    assert bool(torch.isfinite(actual).all())
    error = (actual.double() - expected.double()).square().mean().sqrt()
    assert error <= LARGEST_RMS_RATIO[dtype] * expected.double().square().mean().sqrt()


def assert_alike(monkeypatch: pytest.MonkeyPatch, run: Callable[[], torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """Both versions give the same up to rounding to ``dtype``; returns what the naive one gave."""
    naive, fused = naive_and_fused(monkeypatch, run)
    assert_close(fused, naive, dtype)
    return naive


def _allow_run_time_loop_bounds() -> None:
    """Let the interpreter loop up to a number that a kernel loaded.

    Triton 3.6 turns such a number, an array of one element, into a Python one in a way that numpy refuses from 2.4 on.
    """
    original = interpreter._patch_lang_tensor

    def patch(tensor: Any, scope: Any) -> None:
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch


_allow_run_time_loop_bounds()
