"""``triton.jit`` for a typed code base: a kernel's call takes a grid and device pointers, which no type describes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton


def jit(function: Callable[..., Any]) -> Any:
    """The kernel, or the part of one, that Triton makes of a function."""
    return triton.jit(function)
