"""What Opus costs by itself: the floor under a front end that sends it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import opuslib_next

from streamer.audio import MAX_COMPLEXITY, OpusEncoder
from streamer.codec import AudioCodec
from streamer.speech import ASSETS
from streamer.voices import VoiceRegistry

SAMPLE_RATE = 24_000
_N_RUNS = 3


@dataclass(frozen=True, slots=True)
class OpusCost:
    """``cpu_us`` for 80 ms of speech; ``spectral_db`` and ``snr_db`` say how near the decoded sound is to the given."""

    complexity: int
    frame_ms: int
    cpu_us: float
    spectral_db: float
    snr_db: float

    @property
    def streams_a_core(self) -> float:
        """Real-time streams that keep one core busy with encoding alone."""
        return 80_000 / self.cpu_us


def speech() -> npt.NDArray[np.float32]:
    """The embedded voices' recordings as the codec speaks them, one after another: (samples,) at 24 kHz."""
    codec = AudioCodec.from_pretrained(ASSETS / "codec")
    voices = VoiceRegistry.from_folders([ASSETS / "voices"], codec).list()
    samples = np.concatenate([codec.decode(voice.codes).numpy() for voice in voices])
    return samples[: len(samples) // 5760 * 5760].clip(-1, 1)


def opus_cost(samples: npt.NDArray[np.float32], complexity: int, frame_ms: int, bitrate: int = 32_000) -> OpusCost:
    """Encode ``samples`` a few times; the fastest run counts."""
    encoder = OpusEncoder(SAMPLE_RATE, frame_ms, bitrate, complexity)
    frames = list(samples.reshape(-1, encoder.frame_samples))
    times: list[float] = []
    for _ in range(_N_RUNS):
        began = time.process_time()
        packets = [encoder.encode(frame) for frame in frames]
        times.append(time.process_time() - began)
    decoder = opuslib_next.Decoder(SAMPLE_RATE, 1)
    heard = [np.frombuffer(decoder.decode_float(packet, encoder.frame_samples), np.float32) for packet in packets]
    given, decoded = _aligned(samples, np.concatenate(heard), encoder.lookahead_samples)
    noise = float(np.sum((given - decoded) ** 2))
    snr_db = 10 * np.log10(float(np.sum(given**2)) / max(noise, 1e-12))
    cpu_us = min(times) * 1e6 / (len(samples) / SAMPLE_RATE / 0.08)
    return OpusCost(complexity, frame_ms, cpu_us, _spectral_distance_db(given, decoded), snr_db)


def print_opus_costs() -> list[OpusCost]:
    """All complexities at 20 and 80 ms."""
    samples = speech()
    print("Opus alone, 24 kHz, 32 kbit/s: µs of CPU for 80 ms; streams that fill a core; distance to the given sound")
    costs: list[OpusCost] = []
    for complexity in range(MAX_COMPLEXITY + 1):
        short, long = (opus_cost(samples, complexity, frame_ms) for frame_ms in (20, 80))
        costs += [short, long]
        print(
            f"complexity {complexity:>2}: 20 ms frames {short.cpu_us:6.0f} µs, 80 ms {long.cpu_us:6.0f} µs, "
            f"{long.streams_a_core:5.0f} streams, log-spectral {long.spectral_db:.2f} dB, SNR {long.snr_db:.1f} dB",
            flush=True,
        )
    return costs


def _aligned(
    given: npt.NDArray[np.float32], decoded: npt.NDArray[np.float32], lag: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    return given[: len(decoded) - lag], decoded[lag:]


def _spectral_distance_db(given: npt.NDArray[np.float32], decoded: npt.NDArray[np.float32]) -> float:
    """Root mean square of the log spectra's difference over 20 ms windows that hold speech."""
    spectra = [_log_spectra(samples) for samples in (given, decoded)]
    speaking = spectra[0].max(axis=1) > 0
    return float(np.sqrt(((spectra[0] - spectra[1])[speaking] ** 2).mean(axis=1)).mean())


def _log_spectra(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    windows = samples[: len(samples) // 480 * 480].reshape(-1, 480) * np.hanning(480)
    return 10 * np.log10(np.abs(np.fft.rfft(windows)) ** 2 + 1e-5)
