"""The same numbers as ``philox``, in numpy: on a CPU a call on so few numbers costs a third of what torch takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streamer_kernels.philox import HIGHEST, KEY_STEPS, LOWEST, MASK, MULTIPLIERS, ROUNDS, UNIFORM_STEP

_MASK, _HALF = np.uint64(MASK), np.uint64(32)
_MULTIPLIERS = np.array(MULTIPLIERS, dtype=np.uint64)[:, None, None]
# What each round adds to the two words of the key.
_KEY_STEPS = np.arange(ROUNDS, dtype=np.uint64)[:, None, None] * np.array(KEY_STEPS, dtype=np.uint64)[:, None]

Array = npt.NDArray[Any]


def philox_uniform(seed: Array, ids: Array, head: Array, step: Array) -> Array:
    """Uniform float32 in (0, 1) for counters (id, head, step, 0).

    seed, head, step: (N,) int64; ids: (N, C) int64. Returns (N, C).
    """
    key = np.stack((seed, seed >> 32)).astype(np.uint64) & _MASK  # (2, N)
    keys = ((key + _KEY_STEPS) & _MASK)[..., None]  # (ROUNDS, 2, N, 1)
    even, odd = np.empty((2, 2, *ids.shape), dtype=np.uint64)  # words 0 and 2, words 1 and 3 of the counter
    even[0] = ids
    even[1] = step[:, None]
    odd[0] = head[:, None]
    odd[1] = 0
    for round_key in keys:
        product = even * _MULTIPLIERS
        even = (product >> _HALF)[::-1] ^ odd
        even ^= round_key
        product &= _MASK
        odd = product[::-1]
    word = even[0].astype(np.uint32).view(np.int32)
    # Negative values are folded over: 31 random bits.
    uniform = (word ^ (word >> 31)).astype(np.float32) * np.float32(UNIFORM_STEP)
    clipped: Array = uniform.clip(np.float32(LOWEST), np.float32(HIGHEST))
    return clipped


def gumbel_noise(seed: Array, ids: Array, head: Array, step: Array) -> Array:
    """Standard Gumbel noise in float64, as ``philox.gumbel_noise`` has it; arguments as :func:`philox_uniform`."""
    noise: Array = -np.log(-np.log(philox_uniform(seed, ids, head, step).astype(np.float64)))
    return noise
