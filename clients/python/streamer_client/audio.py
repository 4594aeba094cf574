"""Payloads to samples: Opus through libopus, PCM and mu-law with numpy."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from streamer_client.errors import OpusUnavailable, ProtocolError

Samples: TypeAlias = npt.NDArray[np.float32]  # (samples,), mono, -1..1

_MAX_PACKET_MS = 120


class OpusDecoder:
    """Decodes the packets of one stream, which must come in order, each once. Not thread-safe.

    `sample_rate` in Hz: 8000, 12000, 16000, 24000 or 48000. Raises OpusUnavailable without libopus.
    """

    def __init__(self, sample_rate: int) -> None:
        self._opus = _load_opus()
        self._decoder: Any = self._opus.Decoder(sample_rate, 1)
        self._max_samples = sample_rate * _MAX_PACKET_MS // 1000

    def decode(self, packet: bytes) -> Samples:
        """(samples,) float32 of one packet. Raises ProtocolError if it is not an Opus packet."""
        try:
            data = self._decoder.decode_float(packet, self._max_samples)
        except self._opus.OpusError as error:
            raise ProtocolError(f"the server sent a broken Opus packet: {error}") from error
        return np.frombuffer(data, np.float32)


def pcm_to_float(payload: bytes) -> Samples:
    """16-bit little-endian PCM to (samples,) float32."""
    samples: Samples = np.frombuffer(payload, "<i2").astype(np.float32) / np.float32(32768)
    return samples


def mulaw_to_float(payload: bytes) -> Samples:
    """G.711 mu-law to (samples,) float32."""
    samples: Samples = _MULAW[np.frombuffer(payload, np.uint8)]
    return samples


def float_to_pcm(samples: Samples) -> bytes:
    """(samples,) float32 to 16-bit little-endian PCM, clipped."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()


def _mulaw_table() -> Samples:
    """G.711: inverted bits, sign, 3 bits of exponent, 4 bits of mantissa, bias 33 (132 at 16 bits)."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4 & 7).astype(np.int32), (code & 15).astype(np.int32)
    magnitude = ((mantissa << 3) + 132 << exponent) - 132
    return (np.where(code & 128, -magnitude, magnitude) / 32768).astype(np.float32)


_MULAW = _mulaw_table()


def _load_opus() -> Any:
    """The binding; imported late, because importing it fails where libopus is missing."""
    try:
        import opuslib_next
    except Exception as error:  # it raises bare Exception
        raise OpusUnavailable(str(error)) from error
    return opuslib_next
