"""The playback clock, and the model of step times."""

from __future__ import annotations

import math
import random

import pytest

from streamer.engine.playback import PlaybackClock
from streamer.engine.step_times import StepTimes, StepWork


def test_audio_in_hand_is_what_was_made_less_what_has_been_played_since() -> None:
    clock = PlaybackClock()
    assert not clock.started
    assert clock.lead_s(50.0) == clock.late_s(50.0) == 0
    for _ in range(10):
        clock.add(0.08, 50.0)
    assert clock.lead_s(50.0) == pytest.approx(0.8)
    assert clock.lead_s(50.5) == pytest.approx(0.3)
    assert clock.late_s(50.5) == 0
    assert clock.late_s(51.0) == pytest.approx(0.2)


def test_silence_between_turns_is_nothing_to_catch_up_with() -> None:
    clock = PlaybackClock()
    clock.add(0.08, 10.0)
    clock.add(0.08, 60.0)
    assert clock.lead_s(60.0) == pytest.approx(0.08)


@pytest.mark.parametrize(("played_s", "lead_s"), [(0.0, 4.0), (1.5, 2.5), (4.0, 0.0), (9.0, 0.0), (-1.0, 4.0)])
def test_the_listeners_report_takes_the_place_of_what_was_assumed(played_s: float, lead_s: float) -> None:
    clock = PlaybackClock()
    clock.add(4.0, 10.0)
    clock.played(played_s, 12.0)
    assert clock.lead_s(12.0) == pytest.approx(lead_s)
    clock.add(1.0, 12.0)
    assert clock.lead_s(13.0) == pytest.approx(lead_s)


def test_a_report_before_any_audio_means_nothing() -> None:
    clock = PlaybackClock()
    clock.played(3.0, 10.0)
    assert clock.dry_at_s == -math.inf


def test_what_is_flushed_is_neither_in_hand_nor_part_of_later_reports() -> None:
    clock = PlaybackClock()
    clock.add(4.0, 10.0)
    clock.flush(3.0, 11.0)
    assert clock.lead_s(11.0) == 0
    clock.add(2.0, 11.0)
    # 1 s was heard before the flush; half a second of the rest since.
    clock.played(1.5, 11.5)
    assert clock.lead_s(11.5) == pytest.approx(1.5)
    clock.flush(0.5, 11.5)
    assert clock.lead_s(11.5) == pytest.approx(1.0)


def work(batch: int, context: int, rows: int = 0) -> StepWork:
    return StepWork(float(batch > 0), batch, batch * context, -(-rows // 128), rows)


@pytest.mark.parametrize(
    ("step_s", "row_s", "kv_s", "prompt_s"), [(0.009, 0.0015, 1e-6, 1.35e-4), (0.0075, 4e-5, 6e-8, 3e-5)]
)
def test_step_times_are_learned_from_noisy_steps(step_s: float, row_s: float, kv_s: float, prompt_s: float) -> None:
    def true_s(w: StepWork) -> float:
        return w.decode_steps * step_s + w.decode_rows * row_s + w.kv_rows * kv_s + w.prefill_rows * prompt_s

    dice, times = random.Random(1), StepTimes()
    for _ in range(300):
        w = work(dice.randrange(0, 17), dice.randrange(200, 1000), dice.choice([0, 0, 128, 256]))
        times.measured(w, true_s(w) * dice.lognormvariate(0, 0.05) * (10 if dice.random() < 0.01 else 1))
    for w in (work(1, 300), work(16, 800), work(8, 500, 128), work(0, 0, 256)):
        assert times.seconds(w) == pytest.approx(true_s(w), rel=0.25)


def test_what_no_longer_occurs_is_still_known() -> None:
    times = StepTimes()
    for i in range(300):
        times.measured(work(i % 8 + 1, 500, 128 * (i % 2)), 0.01 + 0.03 * (i % 2))
    before_s = times.seconds(work(0, 0, 128))
    for i in range(5000):
        times.measured(work(i % 8 + 1, 500), 0.01)
    assert times.seconds(work(0, 0, 128)) == pytest.approx(before_s, rel=0.2)
    assert times.seconds(work(4, 500)) == pytest.approx(0.01, rel=0.1)


def test_a_machine_that_slows_down_is_noticed_and_one_bad_step_is_not() -> None:
    times = StepTimes()
    for _ in range(200):
        times.measured(work(4, 500), 0.02)
    times.measured(work(4, 500), 5.0)
    assert times.seconds(work(4, 500)) < 0.03
    for _ in range(400):
        times.measured(work(4, 500), 0.2)
    assert times.seconds(work(4, 500)) == pytest.approx(0.2, rel=0.1)


def test_no_work_is_predicted_to_save_time() -> None:
    times = StepTimes()
    for i in range(500):
        times.measured(work(i % 8 + 1, 500, 128 * (i % 2)), 0.02 - 0.002 * (i % 8))
    for more in (work(9, 500), work(8, 2000), work(8, 500, 128)):
        assert times.seconds(more) >= times.seconds(work(8, 500)) > 0
