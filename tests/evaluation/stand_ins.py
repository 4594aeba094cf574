"""Judges without packages: a recogniser that is told what it hears, voice encoders that look at spectrum or pitch.

How far pitch rises is what zero crossings say of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from streamer.evaluation import Judges
from streamer.evaluation.judges import TellsVoices
from streamer.evaluation.pitch import periods

RATE = 24_000


class TellTale:
    """Hears the given texts, one after another; ``heard`` keeps the length of every sound in seconds."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts: Iterator[str] = iter(texts)
        self.heard: list[float] = []

    def words(self, samples: npt.NDArray[np.float32], sample_rate: int) -> list[str]:
        self.heard.append(len(samples) / sample_rate)
        return next(self._texts).split()


class SpectrumEncoder:
    """The long-term spectrum in bands of a third of an octave, mean removed, length 1: enough for tones and for us."""

    def embed(self, samples: npt.NDArray[np.float32], sample_rate: int) -> npt.NDArray[np.float32]:
        window = 1024
        frames = samples[: len(samples) - len(samples) % window].reshape(-1, window) * np.hanning(window)
        power = np.mean(np.abs(np.fft.rfft(frames, axis=1)) ** 2, axis=0)
        hertz = np.fft.rfftfreq(window, 1 / sample_rate)
        edges = 80 * 2 ** (np.arange(20) / 3)
        bands = [power[(hertz >= low) & (hertz < high)].sum() for low, high in itertools.pairwise(edges)]
        shape = np.log(np.array(bands) + 1e-7)
        shape -= shape.mean()
        return np.asarray(shape / np.linalg.norm(shape), np.float32)


class PitchEncoder:
    """The middle pitch as a direction: tells a woman from a man, who is an octave lower, whatever they say."""

    def embed(self, samples: npt.NDArray[np.float32], sample_rate: int) -> npt.NDArray[np.float32]:
        lags, correlations, loudness = periods(samples, sample_rate)
        voiced = (correlations > 0.6) & (loudness > 0.1 * loudness.max())
        octaves = np.log2(8_000 / np.median(lags[voiced]) / 65)
        angle = octaves / np.log2(400 / 65) * np.pi / 2
        return np.array([np.cos(angle), np.sin(angle)], np.float32)


def crossing_pitch(samples: npt.NDArray[np.float32], sample_rate: int) -> float | None:
    """How much oftener the last 0.2 s that can be heard cross zero than all that can, in semitones."""
    heard = samples[: np.flatnonzero(np.abs(samples) > 0.01).max(initial=-1) + 1]
    if len(heard) < 2:
        return None
    rates = [np.mean(np.diff(np.signbit(part))) for part in (heard[-sample_rate // 5 :], heard)]
    return 12 * math.log2(rates[0] / rates[1]) if all(rates) else None


def judges(*texts: str, encoder: TellsVoices | None = None) -> Judges:
    """All, hearing ``texts``."""
    return Judges(TellTale(texts), encoder or SpectrumEncoder(), crossing_pitch)


def tone(hertz: float, seconds: float, level: float = 0.2) -> npt.NDArray[np.float32]:
    """A steady tone at 24 kHz."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def silence(seconds: float) -> npt.NDArray[np.float32]:
    return np.zeros(int(seconds * RATE), np.float32)


def noise(seconds: float, rms: float, seed: int = 0) -> npt.NDArray[np.float32]:
    return (rms * np.random.default_rng(seed).standard_normal(int(seconds * RATE))).astype(np.float32)
