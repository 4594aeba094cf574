"""The caller's audio, as speech recognisers want it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamer_client.audio import Samples, mulaw_to_float
from streamer_client.errors import ClientError
from streamer_protocol import LocalProtocolError

PHONE_RATE, RECOGNISER_RATE = 8_000, 16_000


class CallerAudio:
    """Hands mu-law at 8 kHz to `on_audio` as (samples,) float32 at 8 or 16 kHz.

    soxr works in blocks: at 16 kHz it holds 64 ms back on average, 115 ms at most. At 8 kHz nothing is held back.
    Raises LocalProtocolError for another rate, ClientError if soxr is needed and missing.
    """

    def __init__(self, on_audio: Callable[[Samples], None], sample_rate: int) -> None:
        if sample_rate not in (PHONE_RATE, RECOGNISER_RATE):
            raise LocalProtocolError(f"on_audio_rate: {sample_rate} is neither {PHONE_RATE} nor {RECOGNISER_RATE}")
        self._on_audio = on_audio
        self._resampler = None if sample_rate == PHONE_RATE else _resampler()

    def push(self, payload: bytes) -> None:
        """The next piece; whatever `on_audio` raises comes through."""
        samples = mulaw_to_float(payload)
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples)
        if len(samples):
            self._on_audio(samples)


def _resampler() -> Any:
    try:
        import soxr
    except ImportError as error:
        advice = "pip install 'dialogue-streamer[twilio]', or ask for on_audio_rate=8000"
        raise ClientError(f"`on_audio` at 16 kHz needs soxr: {advice}") from error
    return soxr.ResampleStream(PHONE_RATE, RECOGNISER_RATE, 1, dtype="float32")
