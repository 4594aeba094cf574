"""Whether the pitch rises or falls at the end of a turn, in semitones from the turn's own middle; and whether a codec
keeps it."""

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

# For the comparison of two recordings: 50 ms every 10 ms, of what lies below 1 kHz.
_COMPARED_SAMPLES, _BAND_RATE = 400, 2_000
_SHORTEST_LAG, _LONGEST_LAG = 20, 123
_CLEAR_CORRELATION, _LOUD_RMS = 0.9, 0.03
_AS_HIGH = 0.9
_SAME_SEMITONES = 1.0

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


def same_pitch(recorded: Samples, made: Samples, sample_rate: int) -> npt.NDArray[np.bool_]:
    """Wherever ``recorded`` has a clear pitch, whether ``made`` has it, to a semitone: (windows,), one each 10 ms.

    Both (n,), any rate, in step with each other; the longer one's end does not count. Pitch is a peak of the
    autocorrelation between 65 and 400 Hz, clear where the highest is above 0.9.
    """
    length = min(len(recorded), len(made))
    if length < _COMPARED_SAMPLES * sample_rate / _RATE:
        return np.zeros(0, np.bool_)
    lags, correlations, loudness = periods(recorded[:length], sample_rate)
    clear = (correlations > _CLEAR_CORRELATION) & (loudness > _LOUD_RMS)
    made_lags, _, _ = periods(made[:length], sample_rate)
    return np.abs(12 * np.log2(made_lags[clear] / lags[clear])) < _SAME_SEMITONES


def periods(samples: Samples, sample_rate: int) -> tuple[npt.NDArray[np.int64], Pitch, Pitch]:
    """Of windows of 50 ms, one each 10 ms: the lag at which each is like itself, in samples at 8 kHz, how like at best,
    and its RMS. ``samples``: at least one window, any rate."""
    low = soxr.resample(soxr.resample(samples, sample_rate, _BAND_RATE), _BAND_RATE, _RATE)
    windows = np.lib.stride_tricks.sliding_window_view(low, _COMPARED_SAMPLES)[::_HOP_SAMPLES].astype(np.float64)
    windows = windows - windows.mean(1, keepdims=True)
    power = np.abs(np.fft.rfft(windows, 2 * _COMPARED_SAMPLES, axis=1)) ** 2
    likeness = np.fft.irfft(power, axis=1)[:, : _LONGEST_LAG + 1]
    # A longer lag leaves fewer samples to compare.
    overlap = 1 - np.arange(_LONGEST_LAG + 1) / _COMPARED_SAMPLES
    likeness = likeness / np.maximum(likeness[:, :1], 1e-9) / overlap
    searched = likeness[:, _SHORTEST_LAG:]
    highest = searched.max(1)
    # Two periods are as like as one: of peaks about as high, the first.
    peak = np.zeros(searched.shape, np.bool_)
    peak[:, 1:-1] = (searched[:, 1:-1] >= searched[:, :-2]) & (searched[:, 1:-1] >= searched[:, 2:])
    peak &= searched >= _AS_HIGH * highest[:, None]
    first = np.where(peak.any(1), peak.argmax(1), searched.argmax(1))
    return first + _SHORTEST_LAG, highest, np.sqrt((windows**2).mean(1))
