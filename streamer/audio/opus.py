"""One Opus encoder over libopus.

The binding is opuslib_next. The opuslib it grew out of (2018) wraps the same calls and makes the same
packets, but warns at import since Python 3.8, does not find a Homebrew library, and calls the variadic
``opus_encoder_ctl`` undeclared, which Apple silicon's calling convention does not forgive.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
import numpy.typing as npt

SAMPLE_RATES = (8000, 12000, 16000, 24000, 48000)
FRAME_MS = (20, 40, 60, 80)
MIN_BITRATE, MAX_BITRATE = 6_000, 256_000

MAX_COMPLEXITY = 10
DEFAULT_COMPLEXITY = 1

_SIGNAL_VOICE = 3001


class OpusLibraryMissing(RuntimeError):
    """libopus, the C library, is not installed."""

    code = "opus_library_missing"


class OpusEncoder:
    """A mono encoder whose state lasts until ``close``: one packet for every frame, 80 ms ones included.

    Application AUDIO: on the embedded voices at 32 kbit/s it has the look-ahead (6.5 ms) and log-spectral
    distance (5.5 dB) of VOIP, and a signal-to-noise ratio of 12 dB instead of 7, as it does not filter its
    input. At complexity 0, 1, 2, 5 and 10 it takes 0.22, 0.27, 0.38, 0.51 and 1.0 ms of CPU for 80 ms (libopus 1.3)
    and comes as near to them as 5.0, 4.75, 4.78, 4.75 and 4.70 dB: bench/opus_costs.py.
    Not for use by two threads at once. Raises ValueError for a setting Opus does not have.
    """

    def __init__(
        self, sample_rate: int = 24_000, frame_ms: int = 80, bitrate: int = 32_000, complexity: int = DEFAULT_COMPLEXITY
    ) -> None:
        if sample_rate not in SAMPLE_RATES:
            raise ValueError(f"sample_rate is {sample_rate}, Opus has {_listed(SAMPLE_RATES)}")
        if frame_ms not in FRAME_MS:
            raise ValueError(f"frame_ms is {frame_ms}, expected {_listed(FRAME_MS)}")
        if not MIN_BITRATE <= bitrate <= MAX_BITRATE:
            raise ValueError(f"bitrate is {bitrate}, expected {MIN_BITRATE} to {MAX_BITRATE}")
        if not 0 <= complexity <= MAX_COMPLEXITY:
            raise ValueError(f"complexity is {complexity}, expected 0 to {MAX_COMPLEXITY}")
        encoder = _binding().Encoder(sample_rate, 1, "audio")
        encoder.bitrate = bitrate
        encoder.vbr = 1
        # Constrained: no packet grows far beyond the average, so a slow link sees no bursts.
        encoder.vbr_constraint = 1
        encoder.signal = _SIGNAL_VOICE
        encoder.complexity = complexity
        self.frame_samples = sample_rate * frame_ms // 1000
        self.lookahead_samples: int = encoder.lookahead
        """How far the decoded sound lags behind what was given, at ``sample_rate``."""
        self._encoder = encoder

    def encode(self, pcm: npt.NDArray[np.float32]) -> bytes:
        """One packet from float32 (frame_samples,) in -1 to 1."""
        if self._encoder is None:
            raise RuntimeError("this encoder is closed")
        if pcm.dtype != np.float32 or pcm.shape != (self.frame_samples,):
            raise ValueError(f"pcm is {pcm.dtype} {list(pcm.shape)}, expected float32 [{self.frame_samples}]")
        packet: bytes = self._encoder.encode_float(pcm.tobytes(), self.frame_samples)
        return packet

    def close(self) -> None:
        """Free the encoder; closing twice does no harm."""
        # The binding frees the C state with the object that holds it.
        self._encoder = None


@cache
def _binding() -> ModuleType:
    # Imported here because the binding looks for the C library as it is imported, and PCM needs neither.
    try:
        import opuslib_next
    except Exception as error:  # the binding raises bare Exception where there is no library
        raise OpusLibraryMissing(
            "libopus is not installed. Debian, Ubuntu: apt-get install libopus0. "
            "Fedora: dnf install opus. macOS: brew install opus."
        ) from error
    module: ModuleType = opuslib_next
    return module


def _listed(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))
