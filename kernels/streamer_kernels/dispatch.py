"""Which implementation of an op runs: Triton where the tensors are on a GPU, torch or numpy elsewhere."""

from __future__ import annotations

import functools
import importlib.util
import os

import torch

ENVIRONMENT_VARIABLE = "STREAMER_KERNELS"


def use_triton(tensor: torch.Tensor) -> bool:
    """Whether an op on this tensor runs in Triton.

    ``STREAMER_KERNELS=naive`` or ``triton`` decides for every device; ``triton`` on a CPU needs Triton's interpreter
    (``TRITON_INTERPRET=1``). ValueError for any other value.
    """
    choice = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if choice not in ("", "naive", "triton"):
        raise ValueError(f"{ENVIRONMENT_VARIABLE}: {choice!r}, expected naive or triton")
    if choice:
        return choice == "triton"
    return tensor.is_cuda and _triton_installed()


@functools.cache
def _triton_installed() -> bool:
    return importlib.util.find_spec("triton") is not None
