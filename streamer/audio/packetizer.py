"""From the codec's samples to packets for one listener: resampling, framing, encoding."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from streamer.audio.g711 import mulaw_encode
from streamer.audio.opus import DEFAULT_COMPLEXITY, FRAME_MS, OpusEncoder
from streamer.audio.resampler import Resampler

AudioFormat: TypeAlias = Literal["opus", "pcm_s16le", "mulaw"]
Samples: TypeAlias = npt.NDArray[np.float32]

SOURCE_RATE = 24_000
SOURCE_FRAME_SAMPLES = 1920
SAMPLE_RATES = (8_000, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)

_INT16 = np.dtype("<i2")
# Payload kinds of the protocol's audio header.
_KINDS = {"opus": 1, "pcm_s16le": 2, "mulaw": 3}


class Packetizer:
    """Packets of ``frame_ms`` from 24 kHz audio, for one dialogue context from its first turn to its last.

    80 ms in, one 80 ms packet out, at every rate. The Opus encoder and the resampler keep their state over turns, so
    what lags (``lookahead_samples``) of one turn is heard at the start of the next. One thread at a time.
    Raises ValueError, naming the argument, for a setting that is not offered.
    """

    def __init__(
        self,
        format: AudioFormat,
        sample_rate: int = SOURCE_RATE,
        frame_ms: int = 80,
        bitrate: int = 32_000,
        opus_complexity: int = DEFAULT_COMPLEXITY,
    ) -> None:
        if format not in _KINDS:
            raise ValueError(f"format is {format!r}, expected {', '.join(get_args(AudioFormat))}")
        if sample_rate not in SAMPLE_RATES:
            raise ValueError(f"sample_rate is {sample_rate}, expected {', '.join(map(str, SAMPLE_RATES))}")
        if frame_ms not in FRAME_MS:
            raise ValueError(f"frame_ms is {frame_ms}, expected {', '.join(map(str, FRAME_MS))}")
        self.kind: int = _KINDS[format]
        self.frame_ms = frame_ms
        self.frame_samples = sample_rate * frame_ms // 1000
        self._opus = OpusEncoder(sample_rate, frame_ms, bitrate, opus_complexity) if format == "opus" else None
        self._resampler = None
        if sample_rate != SOURCE_RATE:
            self._resampler = Resampler(SOURCE_RATE, sample_rate, SOURCE_FRAME_SAMPLES)
        self._pending: Samples = np.empty(0, np.float32)
        self._closed = False

    @property
    def light(self) -> bool:
        """Whether a packet is so little work (some 20 µs) that an event loop may do it itself."""
        return self._opus is None

    @property
    def lookahead_samples(self) -> int:
        """By how much decoded sound lags behind the packets' own time, at the packets' rate."""
        of_resampler = self._resampler.lag_samples if self._resampler else 0
        return of_resampler + (self._opus.lookahead_samples if self._opus else 0)

    def push(self, audio: npt.ArrayLike) -> list[bytes]:
        """The payloads that (n,) samples at 24 kHz complete; NaN and infinity become silence."""
        self._check_open()
        samples = _safe(np.asarray(audio, np.float32))
        if self._resampler is not None:
            samples = self._resampler.push(samples)
        return self._frames(samples)

    def flush(self) -> list[bytes]:
        """The turn's last payloads: silence up to a whole packet, where one is begun."""
        self._check_open()
        tail: Samples = np.empty(0, np.float32)
        if self._resampler is not None:
            tail = self._resampler.flush()
        payloads = self._frames(tail)
        if len(self._pending):
            missing = self.frame_samples - len(self._pending)
            payloads += self._frames(np.zeros(missing, np.float32))
        return payloads

    def discard(self) -> None:
        """Drop what has not become a packet: the turn was broken off, and the next one is not to begin with its end."""
        self._check_open()
        self._pending = np.empty(0, np.float32)
        if self._resampler is not None:
            self._resampler.clear()

    def close(self) -> None:
        """Free the encoder; closing twice does no harm."""
        self._closed = True
        if self._opus is not None:
            self._opus.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this packetizer is closed")

    def _frames(self, samples: Samples) -> list[bytes]:
        if not len(self._pending) and len(samples) == self.frame_samples:
            return [self._payload(samples)]
        if len(self._pending):
            samples = np.concatenate([self._pending, samples])
        whole = len(samples) - len(samples) % self.frame_samples
        # A copy, so that the rest of a large chunk isn't kept alive by its tail.
        self._pending = samples[whole:].copy()
        return [self._payload(frame) for frame in samples[:whole].reshape(-1, self.frame_samples)]

    def _payload(self, frame: Samples) -> bytes:
        if self._opus is not None:
            return self._opus.encode(frame)
        scaled = frame * 32768.0
        # The resampler's filter can overshoot what was clipped before it.
        pcm = np.rint(scaled, out=scaled).clip(-32768, 32767, out=scaled).astype(_INT16)
        return mulaw_encode(pcm) if self.kind == _KINDS["mulaw"] else pcm.tobytes()


def _safe(samples: Samples) -> Samples:
    if samples.ndim != 1:
        raise ValueError(f"audio has shape {list(samples.shape)}, expected (samples,)")
    # One sum finds out whether there is any NaN or infinity, which there hardly ever is.
    if not math.isfinite(np.dot(samples, samples)):
        samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    return samples.clip(-1.0, 1.0)
