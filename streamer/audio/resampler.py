"""From the codec's sample rate to a listener's, a chunk at a time, without holding a chunk back.

Every output is a weighted sum of the inputs around it (a windowed sinc). The weights repeat with the ratio's period, so
a whole chunk is two matrix products, and all listeners of one rate share the matrices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

_ZERO_CROSSINGS = 32  # on either side of an output, at the lower of the two rates
_KAISER_BETA = 7.5  # about 75 dB of stop band (Kaiser and Schafer 1980, equation 4)
_CUTOFF = 0.925  # of the lower Nyquist frequency: the transition ends where aliases would begin


@dataclass(frozen=True, slots=True, eq=False)
class _Filter:
    """``before``, ``now``: (block, outputs of a block) weights of the block before and the block itself."""

    before: Samples
    now: Samples
    lag_samples: int


class Resampler:
    """One stream of audio. What it gives lags by ``lag_samples`` at ``to_rate``, and by no more.

    That is 7 ms or less at the rates listeners may ask for. Given ``chunk_samples`` at ``from_rate`` or a multiple,
    every push gives all their outputs. The rates' ratio must fit the chunk: ValueError. One thread at a time.
    """

    def __init__(self, from_rate: int, to_rate: int, chunk_samples: int) -> None:
        self._filter = _filter(from_rate, to_rate, chunk_samples)
        self.lag_samples = self._filter.lag_samples
        self._block_samples = len(self._filter.now)
        self._held: Samples = np.zeros(self._block_samples, np.float32)

    def push(self, samples: Samples) -> Samples:
        """The outputs (m,) that the inputs (n,) complete."""
        held = np.concatenate((self._held, samples))
        n_blocks = len(held) // self._block_samples
        blocks = held[: n_blocks * self._block_samples].reshape(n_blocks, self._block_samples)
        # A copy: the block before the next one, and what does not fill a block yet.
        self._held = held[(n_blocks - 1) * self._block_samples :].copy()
        outputs = blocks[:-1] @ self._filter.before
        outputs += blocks[1:] @ self._filter.now
        return outputs.ravel()

    def flush(self) -> Samples:
        """The outputs of what fills no block yet, with silence after it; the stream goes on from there."""
        missing = -len(self._held) % self._block_samples
        return self.push(np.zeros(missing, np.float32))

    def clear(self) -> None:
        """Forget what came so far: the next input follows silence."""
        self._held = np.zeros(self._block_samples, np.float32)


@cache
def _filter(from_rate: int, to_rate: int, chunk_samples: int) -> _Filter:
    common = math.gcd(from_rate, to_rate)
    n_out, n_in = to_rate // common, from_rate // common
    stretch = max(from_rate / to_rate, 1.0)
    half = math.ceil(_ZERO_CROSSINGS * stretch)
    # A delay that is whole at both rates.
    half = -(-half // n_in) * n_in
    sizes = [size for size in range(n_in, chunk_samples + 1, n_in) if size >= 2 * half and chunk_samples % size == 0]
    if not sizes:
        raise ValueError(f"{from_rate} to {to_rate} Hz does not fit chunks of {chunk_samples} samples")
    block = sizes[0]
    inputs = np.arange(-block, block)[:, None]
    centres = np.arange(block // n_in * n_out)[None] * (n_in / n_out) - half
    distance = (inputs - centres) / stretch
    reach = half / stretch
    window = np.i0(_KAISER_BETA * np.sqrt(np.clip(1 - (distance / reach) ** 2, 0, None))) / np.i0(_KAISER_BETA)
    weights = np.where(np.abs(distance) < reach, np.sinc(_CUTOFF * distance) * window, 0.0)
    # Each output's weights sum to 1, so that silence with an offset stays what it is.
    weights = (weights / weights.sum(axis=0)).astype(np.float32)
    return _Filter(weights[:block].copy(), weights[block:].copy(), half // n_in * n_out)
