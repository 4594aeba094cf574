"""Silence, noise before speech, and clicks at frame borders, on sounds whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation.stand_ins import RATE, noise, silence, tone

from streamer.evaluation.signals import border_clicks, lead_noise_dbfs, silence_seconds

FRAME = 1920


def test_silence_at_both_ends() -> None:
    samples = np.zeros(1000, np.float32)
    samples[200:701] = 0.5
    assert silence_seconds(samples, 1000) == (0.2, 0.299)
    assert silence_seconds(np.full(500, 0.0099, np.float32), 1000) == (0.5, 0.0)
    assert silence_seconds(np.zeros(0, np.float32), 1000) == (0.0, 0.0)


def test_noise_before_the_first_word_is_measured_up_to_speech() -> None:
    level_db = -50.0
    sound = np.concatenate((noise(0.2, 10 ** (level_db / 20)), tone(200, 1.0)))
    assert lead_noise_dbfs(sound, RATE) == pytest.approx(level_db, abs=0.5)
    assert lead_noise_dbfs(np.concatenate((silence(0.1), tone(200, 1.0))), RATE) == -100
    # A burst 14 dB below the speech is loud enough to count as its beginning.
    assert lead_noise_dbfs(np.concatenate((tone(300, 0.1, 0.04), tone(200, 1.0))), RATE) is None
    assert lead_noise_dbfs(tone(200, 1.0), RATE) is None
    assert lead_noise_dbfs(silence(0.01), RATE) is None


def test_nothing_marks_the_borders_of_a_seamless_sound() -> None:
    clicks = border_clicks(noise(60.0, 0.1), RATE, FRAME)
    assert clicks.n_borders == 749
    assert clicks.ratio == pytest.approx(1.0, abs=0.1)
    assert clicks.n_clicks == 0


def stepped(size: float, offset: int) -> np.ndarray:
    """A tone whose every frame begins ``size`` higher or lower than the last one ended, ``offset`` samples late."""
    sound = tone(150, 4.0) + noise(4.0, 0.001)
    steps = (np.arange(len(sound)) - offset) // FRAME % 2
    return (sound + size * steps).astype(np.float32)


def test_steps_at_borders_are_rough_and_large_ones_are_clicks() -> None:
    small, large = (border_clicks(stepped(size, 0), RATE, FRAME) for size in (0.005, 0.1))
    assert small.ratio is not None and 2 < small.ratio < 10 and small.n_clicks == 0
    assert large.ratio is not None and large.ratio > 100
    assert large.n_clicks == large.n_borders == 49


def test_a_step_counts_at_the_border_alone() -> None:
    """Two second differences span a border, so that a step one sample off still bends one of them."""
    clicks = {offset: border_clicks(stepped(0.1, offset), RATE, FRAME).n_clicks for offset in (-2, -1, 0, 1, 2, 700)}
    assert clicks == {-2: 0, -1: 49, 0: 49, 1: 49, 2: 0, 700: 0}


def test_borders_in_silence_and_near_the_end_are_left_out() -> None:
    sound = np.concatenate((silence(0.4), tone(150, 0.4)))
    sound[FRAME] = 0.009
    # Ten frames: borders 5 to 9 touch the tone.
    assert border_clicks(sound, RATE, FRAME).n_borders == 5
    assert border_clicks(tone(150, 0.16)[: FRAME + 239], RATE, FRAME).n_borders == 0
    assert border_clicks(tone(150, 0.16)[: FRAME + 240], RATE, FRAME).n_borders == 1
    assert border_clicks(silence(1.0), RATE, FRAME).ratio is None
    assert border_clicks(np.zeros(0, np.float32), RATE, FRAME).n_borders == 0


def test_a_level_without_any_sound_is_no_division_by_zero() -> None:
    assert border_clicks(np.full(FRAME * 3, 0.5, np.float32), RATE, FRAME).ratio == 0
