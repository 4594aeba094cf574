"""G.711 µ-law (ITU-T G.711, table 2), the companding of telephony, vectorised."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# 14-bit magnitudes are biased by 33 so that each of the 8 segments starts at a power of two.
_BIAS = 33
_MAX_MAGNITUDE = 8158


def mulaw_encode(pcm: npt.NDArray[np.int16]) -> bytes:
    """One byte for each int16 sample, in any shape."""
    return _ENCODED.take(pcm.view(np.uint16)).tobytes()


def mulaw_decode(data: bytes) -> npt.NDArray[np.int16]:
    """int16 samples (n,) of n bytes."""
    return _DECODED[np.frombuffer(data, np.uint8)]


def _encoded_samples() -> npt.NDArray[np.uint8]:
    """The byte of each int16, at its place as a uint16."""
    # The law is defined on 14 bits, of which int16 holds two more.
    samples = np.arange(65536).astype(np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.minimum(np.abs(samples) >> 2, _MAX_MAGNITUDE) + _BIAS
    segment = _SEGMENTS[magnitude >> 5]
    step = (magnitude >> (segment + 1)) & 0x0F
    code = (np.where(samples < 0, 0x80, 0) | (segment << 4) | step) ^ 0xFF
    return code.astype(np.uint8)


def _decoded_codes() -> npt.NDArray[np.int16]:
    code = np.arange(256) ^ 0xFF
    segment, step = (code >> 4) & 7, code & 0x0F
    magnitude = (((2 * step + _BIAS) << segment) - _BIAS) << 2
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


# floor(log2) of the biased magnitude's upper bits: which of the eight segments it lies in.
_SEGMENTS = np.array([max(value.bit_length() - 1, 0) for value in range(256)], dtype=np.int32)
_DECODED = _decoded_codes()
_ENCODED = _encoded_samples()
