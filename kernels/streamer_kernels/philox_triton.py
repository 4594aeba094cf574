"""The same numbers as ``philox``, inside a Triton kernel."""

from __future__ import annotations

import triton.language as tl

from streamer_kernels.jit import jit
from streamer_kernels.philox import HIGHEST, LOWEST, UNIFORM_STEP

_STEP = tl.constexpr(UNIFORM_STEP)
_LOWEST = tl.constexpr(LOWEST)
_HIGHEST = tl.constexpr(HIGHEST)


@jit
def gumbel_noise(seed: tl.tensor, ids: tl.tensor, head: tl.tensor, step: tl.tensor) -> tl.tensor:
    """Standard Gumbel noise in float32 for the counters (id, head, step, 0). ids: a block of int32."""
    zero = ids * 0
    word, _, _, _ = tl.philox(seed, ids, zero + head.to(tl.int32), zero + step.to(tl.int32), zero)
    signed = word.to(tl.int32, bitcast=True)
    uniform = (signed ^ (signed >> 31)).to(tl.float32) * _STEP
    uniform = tl.minimum(tl.maximum(uniform, _LOWEST), _HIGHEST)
    return -tl.log(-tl.log(uniform))
