"""Reading recordings: any common file to mono samples at 24 kHz, with an error that says what is wrong."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

SAMPLE_RATE = 24_000
TARGET_DBFS, MAX_GAIN_DB = -20.0, 3.0

_MIN_RATE, _MAX_RATE, _MAX_CHANNELS = 4_000, 384_000, 32
# A recording whose loudest sample is below this (-60 dBFS) holds no voice.
_SILENT_PEAK = 1e-3

Samples = npt.NDArray[np.float32]


class AudioFileError(ValueError):
    """A recording that can't be used; ``code`` is stable.

    Codes: ``unreadable``, ``empty``, ``too_short``, ``too_long``, ``not_finite``, ``silent``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def load_audio(path_or_bytes: str | Path | bytes, max_seconds: float, min_seconds: float = 0.0) -> Samples:
    """Float32 (samples,) mono at 24 kHz of a WAV, FLAC, Ogg (Opus, Vorbis) or MP3 file.

    Channels are averaged. No more than ``max_seconds`` are ever decoded. Raises AudioFileError.
    """
    name = "audio" if isinstance(path_or_bytes, bytes) else str(path_or_bytes)
    try:
        with _opened(path_or_bytes) as raw, soundfile.SoundFile(raw) as sound:
            mono = _read_mono(sound, name, max_seconds)
            rate = sound.samplerate
    except AudioFileError:
        raise
    except (soundfile.SoundFileError, OSError, TypeError, ValueError, RuntimeError) as error:
        # The library's own words, without the name of an object in memory.
        reason = getattr(error, "error_string", error)
        raise AudioFileError("unreadable", f"{name}: not a readable audio file ({reason})") from error
    if len(mono) < min_seconds * rate:
        raise AudioFileError("too_short", f"{name}: {len(mono) / rate:.2f} s long, at least {min_seconds:g} s needed")
    if not np.isfinite(mono).all():
        raise AudioFileError("not_finite", f"{name}: holds samples that are not numbers")
    if np.abs(mono).max() < _SILENT_PEAK:
        raise AudioFileError("silent", f"{name}: no sound in it (nothing above -60 dBFS)")
    resampled: Samples = soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ")
    return resampled


def normalize_loudness(samples: Samples) -> Samples:
    """Samples with a level (10 log10 of mean square + 1e-9) nearer to -20 dBFS, by 3 dB at most."""
    level_db = 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-9)
    gain_db = np.clip(TARGET_DBFS - level_db, -MAX_GAIN_DB, MAX_GAIN_DB)
    return (samples * 10 ** (gain_db / 20)).astype(np.float32)


def _opened(path_or_bytes: str | Path | bytes) -> BinaryIO:
    return io.BytesIO(path_or_bytes) if isinstance(path_or_bytes, bytes) else Path(path_or_bytes).open("rb")


def _read_mono(sound: soundfile.SoundFile, name: str, max_seconds: float) -> Samples:
    rate, channels = sound.samplerate, sound.channels
    if not _MIN_RATE <= rate <= _MAX_RATE or channels > _MAX_CHANNELS:
        raise AudioFileError("unreadable", f"{name}: {rate} Hz with {channels} channels is not supported")
    limit = int(max_seconds * rate)
    too_long = AudioFileError("too_long", f"{name}: longer than {max_seconds:g} s")
    if sound.frames > limit:
        raise too_long
    # A header may promise less than the file holds, so the limit is kept while reading too.
    blocks = []
    read = 0
    while len(block := sound.read(rate, dtype="float32", always_2d=True)):
        read += len(block)
        if read > limit:
            raise too_long
        blocks.append(block.mean(axis=1))
    if not blocks:
        raise AudioFileError("empty", f"{name}: no samples in it")
    return np.concatenate(blocks)
