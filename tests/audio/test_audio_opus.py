"""The Opus encoder, heard through an independent decoder."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.audio import OpusEncoder, OpusLibraryMissing, load_audio, opus

VOICE = Path(__file__).parents[1] / "data" / "voices" / "heart.wav"


def duration_ms(packet: bytes) -> float:
    """How long a packet lasts by its first two bytes (RFC 6716, section 3.1 and 3.2)."""
    config = packet[0] >> 3
    by_mode = [(10, 20, 40, 60), (10, 20, 10, 20), (2.5, 5, 10, 20)]
    frame_ms = by_mode[0 if config < 12 else 1 if config < 16 else 2][config & 3]
    return frame_ms * (1, 2, 2, packet[1] & 0x3F)[packet[0] & 3]


@pytest.mark.parametrize("frame_ms", [20, 40, 60, 80])
@pytest.mark.parametrize("rate", [8000, 16000, 24000, 48000])
def test_one_packet_per_frame(rate: int, frame_ms: int) -> None:
    encoder = OpusEncoder(rate, frame_ms)
    assert encoder.frame_samples == rate * frame_ms // 1000
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, encoder.frame_samples).astype(np.float32)
    packet = encoder.encode(noise)
    assert duration_ms(packet) == frame_ms


def test_speech_survives_and_lags_by_the_lookahead() -> None:
    import opuslib_next

    speech = load_audio(VOICE, 10)
    speech = speech[: len(speech) // 1920 * 1920]
    encoder = OpusEncoder(bitrate=32_000)
    packets = [encoder.encode(frame) for frame in speech.reshape(-1, 1920)]
    decoder = opuslib_next.Decoder(24_000, 1)
    heard = np.concatenate([np.frombuffer(decoder.decode_float(p, 1920), np.float32) for p in packets])
    lag = int(np.argmax([np.dot(heard[i : len(heard) - 400 + i], speech[:-400]) for i in range(400)]))
    assert abs(lag - encoder.lookahead_samples) <= 1
    assert np.corrcoef(heard[lag:], speech[: len(speech) - lag])[0, 1] > 0.95


@pytest.mark.parametrize("bitrate", [12_000, 32_000, 64_000])
def test_bitrate(bitrate: int) -> None:
    speech = load_audio(VOICE, 10)[: 30 * 1920]
    encoder = OpusEncoder(bitrate=bitrate)
    packets = [encoder.encode(frame) for frame in speech.reshape(-1, 1920)]
    assert 0.8 < 8 * sum(map(len, packets)) / (30 * 0.08) / bitrate < 1.1


def test_state_lasts_over_frames_and_is_the_encoders_own() -> None:
    frames = load_audio(VOICE, 10)[: 10 * 1920].reshape(-1, 1920)
    one, two = OpusEncoder(), OpusEncoder()
    expected = [one.encode(frame) for frame in frames]
    other = OpusEncoder()
    assert [(two.encode(frame), other.encode(frame[::-1].copy()))[0] for frame in frames] == expected
    assert OpusEncoder().encode(frames[9]) != expected[9]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"sample_rate": 44_100}, "sample_rate is 44100"),
        ({"frame_ms": 30}, "frame_ms is 30"),
        ({"bitrate": 1}, "bitrate is 1"),
        ({"complexity": 11}, "complexity is 11"),
    ],
)
def test_settings_opus_lacks(given: dict[str, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        OpusEncoder(**given)


def test_wrong_input_never_reaches_the_library() -> None:
    encoder = OpusEncoder()
    wrong: list[Any] = [np.zeros(1919, np.float32), np.zeros(1920), np.zeros((1, 1920), np.float32)]
    for pcm in wrong:
        with pytest.raises(ValueError, match="pcm is"):
            encoder.encode(pcm)
    encoder.close()
    encoder.close()
    with pytest.raises(RuntimeError, match="closed"):
        encoder.encode(np.zeros(1920, np.float32))


def test_a_missing_library_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_libopus(name: str, *rest: Any) -> Any:
        if name == "opuslib_next":
            raise Exception("Could not find Opus library.")
        return real_import(name, *rest)

    opus._binding.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without_libopus)
    with pytest.raises(OpusLibraryMissing) as caught:
        OpusEncoder()
    for line in ("apt-get install libopus0", "dnf install opus", "brew install opus"):
        assert line in str(caught.value)


def test_importing_the_package_needs_no_library() -> None:
    code = "import sys, streamer.audio; sys.exit('opuslib_next' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
