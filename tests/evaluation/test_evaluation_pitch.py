"""Where the pitch of a turn ends: the arithmetic, and the tracker on sounds whose contour is known."""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt
import pytest
from evaluation.stand_ins import RATE, noise, silence, tone

from streamer.evaluation import final_pitch_semitones
from streamer.evaluation.pitch import rise_of, same_pitch

HOP_SECONDS = 0.01


def test_the_end_is_the_last_fifth_of_a_second_against_all() -> None:
    level = np.full(80, 12.0)
    assert rise_of(np.concatenate((level, np.full(20, 16.0))), HOP_SECONDS) == 4
    assert rise_of(np.concatenate((level, np.full(20, 7.0))), HOP_SECONDS) == -5
    # Nine of the last twenty frames are outvoted, and what comes before the twenty is no part of the end.
    assert rise_of(np.concatenate((level, np.full(9, 16.0))), HOP_SECONDS) == 0
    assert rise_of(np.concatenate((level, np.full(50, 17.0), np.full(20, 16.0))), HOP_SECONDS) == 4


def test_frames_an_octave_off_change_nothing() -> None:
    semitones = np.concatenate((np.full(80, 12.0), np.full(20, 15.0)))
    semitones[[5, 40, 41, 85]] += 12
    semitones[[90, 99]] -= 12
    assert rise_of(semitones, HOP_SECONDS) == 3


def test_a_quarter_of_a_second_must_be_voiced() -> None:
    assert rise_of(np.full(24, 12.0), HOP_SECONDS) is None
    assert rise_of(np.full(25, 12.0), HOP_SECONDS) == 0
    assert rise_of(np.zeros(0), HOP_SECONDS) is None


def test_silence_and_very_short_sounds_need_no_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "librosa", None)
    short = np.concatenate((silence(0.5), tone(200, 0.2), silence(0.5)))
    for sound in (silence(2.0), np.zeros(0, np.float32), noise(2.0, 0.001), short):
        assert final_pitch_semitones(sound, RATE) is None
    with pytest.raises(ImportError, match="librosa"):
        final_pitch_semitones(tone(200, 1.0), RATE)


def voice(hertz: float, *contour: tuple[float, float], rate: int = RATE) -> npt.NDArray[np.float32]:
    """A buzz with twelve harmonics and a little noise; ``contour``: seconds and the semitones reached by then."""
    seconds = [0.0, *(second for second, _ in contour)]
    semitones = np.interp(
        np.arange(int(seconds[-1] * rate)) / rate, seconds, [0.0, *(reached for _, reached in contour)]
    )
    phase = 2 * np.pi * np.cumsum(hertz * 2 ** (semitones / 12)) / rate
    buzz = sum(np.sin(k * phase) / k for k in range(1, 13)) * 0.1
    return (buzz + np.random.default_rng(0).normal(0, 0.003, len(phase))).astype(np.float32)


@pytest.mark.parametrize("hertz", [90, 130, 210, 300])
@pytest.mark.parametrize("semitones", [-5, 0, 4])
def test_a_glide_at_the_end_is_measured(hertz: float, semitones: float) -> None:
    """It glides for 0.3 s, so that the middle of the last 0.2 s has gone two thirds of the way."""
    pytest.importorskip("librosa")
    sound = np.concatenate((silence(0.3), voice(hertz, (0.9, 0), (1.2, semitones)), silence(0.4)))
    assert final_pitch_semitones(sound, RATE) == pytest.approx(semitones * 2 / 3, abs=0.5)


def test_pauses_hum_and_other_rates_change_nothing() -> None:
    pytest.importorskip("librosa")
    first, last = (voice(120, (0.6, 0), rate=16_000), voice(120, (0.3, 0), (0.4, 6), (0.6, 6), rate=16_000))
    pause = np.zeros(8_000, np.float32)
    hum = (0.005 * np.sin(2 * np.pi * 70 * np.arange(16_000) / 16_000)).astype(np.float32)
    sound = np.concatenate((first, pause, last, hum))
    assert final_pitch_semitones(sound, 16_000) == pytest.approx(6, abs=0.5)


def test_what_has_no_pitch_has_no_end() -> None:
    pytest.importorskip("librosa")
    assert final_pitch_semitones(noise(1.0, 0.1), RATE) is None
    assert final_pitch_semitones(np.concatenate((noise(1.0, 0.05), tone(200, 0.15))), RATE) is None


def test_of_a_very_long_turn_the_last_half_minute_counts() -> None:
    pytest.importorskip("librosa")
    sound = np.concatenate((voice(250, (35.0, 0), rate=8_000), voice(125, (30.0, 0), rate=8_000)))
    assert final_pitch_semitones(sound, 8_000) == pytest.approx(0, abs=0.2)


@pytest.mark.parametrize("hertz", [75, 95, 170, 350])
@pytest.mark.parametrize(("off", "share"), [(0.0, 1.0), (0.5, 1.0), (2.0, 0.0), (-2.0, 0.0)])
def test_a_codec_keeps_a_pitch_to_a_semitone(hertz: float, off: float, share: float) -> None:
    made = voice(hertz * 2 ** (off / 12), (1.0, 0))
    assert same_pitch(voice(hertz, (1.0, 0)), made, RATE).mean() == share


def test_only_where_the_recording_has_a_clear_pitch_is_it_asked_for() -> None:
    recorded = np.concatenate((voice(100, (0.5, 0)), noise(0.5, 0.1), silence(0.5)))
    same = same_pitch(recorded, np.concatenate((noise(0.5, 0.1), voice(100, (1.0, 0)))), RATE)
    assert 40 <= len(same) <= 50
    assert same.mean() < 0.25
    # Three times as loud, a little late and a little longer, it has the pitch that it had.
    assert same_pitch(recorded, np.concatenate((silence(0.005), 3 * recorded)), RATE).mean() > 0.9
    assert len(same_pitch(noise(1.0, 0.1), recorded, RATE)) == 0
    assert len(same_pitch(recorded, recorded[:600], RATE)) == 0
