"""Recordings of any kind in, mono at 24 kHz out, or an error with a code."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streamer.audio import AudioFileError, load_audio, normalize_loudness

VOICE = Path(__file__).parents[1] / "data" / "voices" / "heart.wav"


def tone(seconds: float, rate: int, hertz: float = 300.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int, format: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    ("format", "subtype", "rate"),
    [
        ("WAV", "PCM_16", 16_000),
        ("WAV", "FLOAT", 44_100),
        ("FLAC", "PCM_24", 48_000),
        ("OGG", "OPUS", 48_000),
        ("OGG", "VORBIS", 22_050),
        ("MP3", "MPEG_LAYER_III", 32_000),
    ],
)
def test_formats(format: str, subtype: str, rate: int) -> None:
    loaded = load_audio(encoded(tone(2, rate), rate, format, subtype), max_seconds=3)
    assert (loaded.dtype, loaded.ndim) == (np.float32, 1)
    assert abs(len(loaded) / 24_000 - 2) < 0.06
    spectrum = np.abs(np.fft.rfft(loaded[:24_000]))
    assert int(spectrum.argmax()) == 300
    assert abs(np.sqrt(np.mean(loaded[6_000:-6_000] ** 2)) - 0.3 / np.sqrt(2)) < 0.02


def test_channels_are_averaged() -> None:
    stereo = np.stack([tone(1, 24_000), tone(1, 24_000, 500.0)], axis=1)
    loaded = load_audio(encoded(stereo, 24_000, subtype="FLOAT"), max_seconds=3)
    assert np.allclose(loaded, stereo.mean(axis=1), atol=1e-6)


def test_a_path_is_as_good_as_bytes(tmp_path: Path) -> None:
    assert np.array_equal(load_audio(VOICE, 5), load_audio(VOICE.read_bytes(), 5))
    misnamed = tmp_path / "voice.mp3"
    misnamed.write_bytes(VOICE.read_bytes())
    assert np.array_equal(load_audio(misnamed, 5), load_audio(VOICE, 5))


NOT_A_NUMBER = np.where(np.arange(24_000) == 777, np.nan, tone(1, 24_000)).astype(np.float32)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "unreadable"),
        (b"RIFF....WAVEgarbage", "unreadable"),
        (b"just text" * 100, "unreadable"),
        (encoded(tone(1, 24_000), 24_000)[:30], "unreadable"),
        (encoded(tone(1, 1_000), 1_000), "unreadable"),
        (encoded(np.zeros(0, np.float32), 24_000), "empty"),
        (encoded(tone(0.4, 24_000), 24_000), "too_short"),
        (encoded(tone(3.1, 24_000), 24_000), "too_long"),
        (encoded(np.zeros(24_000, np.float32), 24_000), "silent"),
        (encoded(NOT_A_NUMBER, 24_000, subtype="FLOAT"), "not_finite"),
    ],
)
def test_what_is_wrong_has_a_code(data: bytes, code: str) -> None:
    with pytest.raises(AudioFileError) as caught:
        load_audio(data, max_seconds=3, min_seconds=0.5)
    assert caught.value.code == code
    assert str(caught.value).startswith("audio: ")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.wav", tmp_path):
        with pytest.raises(AudioFileError) as caught:
            load_audio(path, max_seconds=3)
        assert caught.value.code == "unreadable"
        assert str(path) in str(caught.value)


def test_a_long_file_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(np.zeros(24_000 * 60, np.float32), 24_000)

    def refuse(*_: object, **__: object) -> np.ndarray:
        raise AssertionError("samples were decoded")

    monkeypatch.setattr(soundfile.SoundFile, "read", refuse)
    with pytest.raises(AudioFileError, match="longer than 30 s"):
        load_audio(data, max_seconds=30)


@pytest.mark.parametrize(("level_db", "gain_db"), [(-40, 3), (-22, 2), (-20, 0), (-19, -1), (-6, -3)])
def test_loudness_moves_by_3_db_at_most(level_db: float, gain_db: float) -> None:
    samples = tone(1, 24_000)
    samples *= 10 ** (level_db / 20) / np.sqrt(np.mean(samples**2))
    louder = normalize_loudness(samples)
    assert louder.dtype == np.float32
    assert np.allclose(louder, samples * 10 ** (gain_db / 20), rtol=2e-3)


def test_loudness_of_silence_stays_finite() -> None:
    assert not normalize_loudness(np.zeros(100, np.float32)).any()
