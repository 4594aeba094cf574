"""Whether the pitch rises or falls at the end of a turn, in semitones from the turn's own middle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import soxr

from streamer.evaluation.signals import SILENCE, Samples

# A speaker's pitch stays below 500 Hz, so 8 kHz is enough, and quick.
_RATE = 8_000
_LOWEST_HZ, _HIGHEST_HZ = 65.0, 500.0
# 64 ms, four periods of the lowest pitch, every 10 ms.
_WINDOW_SAMPLES, _HOP_SAMPLES = 512, 80
_HOP_SECONDS = _HOP_SAMPLES / _RATE
# Steps of 0.25 would take a fifth of the time, but would find a third less voiced in a low, creaky voice.
_GRID_SEMITONES = 0.1
_END_SECONDS = 0.2
_LEAST_VOICED_SECONDS = 0.25
# What the tracker needs grows with the turn: this bounds its memory.
_LONGEST_SECONDS = 30

Pitch = npt.NDArray[np.float64]


def final_pitch_semitones(samples: Samples, sample_rate: int) -> float | None:
    """How far the pitch at the end of a turn lies above (+) or below (-) the turn's median pitch, in semitones.

    The end is the last 0.2 s of voiced time. None where less than 0.25 s is voiced. Of a longer turn, the last 30 s
    count. ``samples``: (n,), any rate. Raises ImportError where librosa is missing.
    """
    loud = np.flatnonzero(np.abs(samples) > SILENCE)
    audible = samples[loud[0] : loud[-1] + 1] if len(loud) else samples[:0]
    if len(audible) < _LEAST_VOICED_SECONDS * sample_rate:
        return None
    return rise_of(voiced_semitones(audible[-_LONGEST_SECONDS * sample_rate :], sample_rate), _HOP_SECONDS)


def rise_of(semitones: Pitch, hop_seconds: float) -> float | None:
    """The median of the last 0.2 s above that of all, None for less than 0.25 s: (n,) voiced pitches, one a hop.

    Medians, so that a few frames an octave off change nothing.
    """
    if len(semitones) < round(_LEAST_VOICED_SECONDS / hop_seconds):
        return None
    end = semitones[-round(_END_SECONDS / hop_seconds) :]
    return float(np.median(end) - np.median(semitones))


def voiced_semitones(samples: Samples, sample_rate: int) -> Pitch:
    """The pitch of the voiced frames, one each 10 ms, in semitones above 65 Hz: (n,), by probabilistic YIN."""
    from librosa import pyin

    hertz, voiced, _ = pyin(
        soxr.resample(samples, sample_rate, _RATE),
        fmin=_LOWEST_HZ,
        fmax=_HIGHEST_HZ,
        sr=_RATE,
        frame_length=_WINDOW_SAMPLES,
        hop_length=_HOP_SAMPLES,
        resolution=_GRID_SEMITONES,
    )
    return np.asarray(12 * np.log2(hertz[voiced] / _LOWEST_HZ), np.float64)
