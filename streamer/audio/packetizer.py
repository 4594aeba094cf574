"""From the codec's samples to packets for one listener: resampling, framing, encoding."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import soxr

from streamer.audio.g711 import mulaw_encode
from streamer.audio.opus import FRAME_MS, OpusEncoder

AudioFormat: TypeAlias = Literal["opus", "pcm_s16le", "mulaw"]
Samples: TypeAlias = npt.NDArray[np.float32]

SOURCE_RATE = 24_000
MIN_RATE, MAX_RATE = 8_000, 48_000

# Payload kinds of the protocol's audio header.
_KINDS = {"opus": 1, "pcm_s16le": 2, "mulaw": 3}


class Packetizer:
    """Packets of ``frame_ms`` from 24 kHz audio, for one dialogue context from its first turn to its last.

    At 24 kHz nothing is delayed: 80 ms in, one 80 ms packet out. Other rates run behind by the resampler's
    filter (20 to 40 ms) until ``flush``. The Opus encoder keeps its state over turns. One thread at a time.
    Raises ValueError, naming the argument, for a setting that is not offered.
    """

    def __init__(
        self, format: AudioFormat, sample_rate: int = SOURCE_RATE, frame_ms: int = 80, bitrate: int = 32_000
    ) -> None:
        if format not in _KINDS:
            raise ValueError(f"format is {format!r}, expected {', '.join(get_args(AudioFormat))}")
        if not MIN_RATE <= sample_rate <= MAX_RATE or sample_rate % 50:
            raise ValueError(f"sample_rate is {sample_rate}, expected a multiple of 50 in {MIN_RATE} to {MAX_RATE}")
        if frame_ms not in FRAME_MS:
            raise ValueError(f"frame_ms is {frame_ms}, expected {', '.join(map(str, FRAME_MS))}")
        self.kind: int = _KINDS[format]
        self.frame_ms = frame_ms
        self.frame_samples = sample_rate * frame_ms // 1000
        self._opus = OpusEncoder(sample_rate, frame_ms, bitrate) if format == "opus" else None
        self._resampler = None
        if sample_rate != SOURCE_RATE:
            self._resampler = soxr.ResampleStream(SOURCE_RATE, sample_rate, 1, dtype="float32", quality="HQ")
        self._pending: Samples = np.empty(0, np.float32)
        self._closed = False

    @property
    def lookahead_samples(self) -> int:
        """By how much decoded sound lags behind the packets' own time, at the packets' rate."""
        return self._opus.lookahead_samples if self._opus else 0

    def push(self, audio: npt.ArrayLike) -> list[bytes]:
        """The payloads that (n,) samples at 24 kHz complete; NaN and infinity become silence."""
        self._check_open()
        samples = _safe(np.asarray(audio, np.float32))
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples)
        return self._frames(samples)

    def flush(self) -> list[bytes]:
        """The turn's last payloads: what the resampler holds, then silence up to a whole packet."""
        self._check_open()
        tail: Samples = np.empty(0, np.float32)
        if self._resampler is not None:
            tail = self._resampler.resample_chunk(tail, last=True)
            self._resampler.clear()
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
        if len(self._pending):
            samples = np.concatenate([self._pending, samples])
        whole = len(samples) - len(samples) % self.frame_samples
        # A copy, so that the rest of a large chunk isn't kept alive by its tail.
        self._pending = samples[whole:].copy()
        return [self._payload(frame) for frame in samples[:whole].reshape(-1, self.frame_samples)]

    def _payload(self, frame: Samples) -> bytes:
        if self._opus is not None:
            return self._opus.encode(frame)
        # The resampler's filter can overshoot what was clipped before it.
        pcm = np.clip(np.rint(frame * 32768.0), -32768, 32767).astype("<i2")
        return mulaw_encode(pcm) if self.kind == _KINDS["mulaw"] else pcm.tobytes()


def _safe(samples: Samples) -> Samples:
    if samples.ndim != 1:
        raise ValueError(f"audio has shape {list(samples.shape)}, expected (samples,)")
    return np.clip(np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0), -1.0, 1.0)
