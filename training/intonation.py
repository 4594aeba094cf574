"""Questions that rise: the pitch at the end of recorded speech, bent upwards by Praat's overlap-add."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamer.evaluation import ending_of
from streamer.evaluation.signals import Samples

# Questions begin to rise this long before their voice ends, and have risen this far above their middle a little earlier
# than at the very end, where voices fade.
RISE_SEMITONES = 7.0
_RISE_SECONDS, _HIGH_SECONDS = 0.45, 0.15
_LOWEST_HZ, _HIGHEST_HZ = 60.0, 450.0
_PITCH_SECONDS = 0.01
# Less than this has no intonation to speak of.
_LEAST_SECONDS, _LEAST_PITCHES = 0.2, 10


def intone(samples: Samples, sample_rate: int, text: str) -> Samples:
    """The speech of ``text``: as it is, or with a rising end where yes or no would be the answer."""
    return raise_end(samples, sample_rate) if ending_of(text) == "yes_no_question" else samples


def raise_end(samples: Samples, sample_rate: int, semitones: float = RISE_SEMITONES) -> Samples:
    """(n,) -> (n,): towards the end of the voice the pitch goes, evenly in semitones, from what it is to ``semitones``
    above the recording's median. What has hardly any voice stays as it is."""
    from parselmouth import Sound
    from parselmouth.praat import call

    if len(samples) < _LEAST_SECONDS * sample_rate:
        return samples
    sound = Sound(samples.astype(np.float64), sample_rate)
    manipulation: Any = call(sound, "To Manipulation", _PITCH_SECONDS, _LOWEST_HZ, _HIGHEST_HZ)
    tier: Any = call(manipulation, "Extract pitch tier")
    n_pitches = call(tier, "Get number of points")
    if n_pitches < _LEAST_PITCHES:
        return samples
    times = np.array([call(tier, "Get time from index", i + 1) for i in range(n_pitches)])
    hertz = np.array([call(tier, "Get value at index", i + 1) for i in range(n_pitches)])
    middle = float(np.median(hertz))
    begin = times[-1] - _RISE_SECONDS
    share = np.clip((times - begin) / (_RISE_SECONDS - _HIGH_SECONDS), 0, 1)
    raised = 12 * np.log2(hertz / middle) * (1 - share) + semitones * share
    call(tier, "Remove points between", begin, times[-1])
    for time, above in zip(times[share > 0], raised[share > 0], strict=True):
        call(tier, "Add point", time, middle * 2 ** (above / 12))
    call([tier, manipulation], "Replace pitch tier")
    made = call(manipulation, "Get resynthesis (overlap-add)").values[0]
    return np.asarray(made[: len(samples)], np.float32)
