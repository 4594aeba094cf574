"""One way in which a Triton kernel is compiled: what compile-only checks need to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CompileCase:
    """A kernel with the types of its arguments and the values of its constants.

    kernel: the function under ``triton.jit``; signature: for each run-time argument its type as Triton spells it
    (``"*fp32"``, ``"i64"``); constexprs: the value of each ``tl.constexpr`` argument. The two together name every
    argument once. num_warps: as at launch.
    """

    name: str
    kernel: Any
    signature: dict[str, str]
    constexprs: dict[str, object]
    num_warps: int = 4
