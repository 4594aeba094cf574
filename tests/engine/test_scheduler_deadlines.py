"""Earliest deadline first: who decodes, how much is prefilled, who rests, who lends its slot, who is let in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streamer.engine.blocks import BlockManager
from streamer.engine.deadlines import Deadlines, Pacing
from streamer.engine.playback import PlaybackClock
from streamer.engine.scheduler import Refused, ScheduledSequence, Scheduler
from streamer.engine.step_times import StepTimes, StepWork

FRAME_S = 0.08
PACING = Pacing(first_frame_rows=4, reserve_s=0.06, first_audio_goal_s=0.15)
NOW_S = 100.0


def trained(step_ms: float = 10, row_ms: float = 1, prompt_row_ms: float = 0.1) -> StepTimes:
    """Step times that were measured often enough to be believed."""
    times = StepTimes()
    for i in range(400):
        batch, rows = 1 + i % 16, 128 * (i % 3)
        work = StepWork(1, batch, batch * (100 + i % 7 * 200), rows / 128, rows)
        times.measured(work, (step_ms + batch * row_ms + rows * prompt_row_ms) / 1000)
    return times


def scheduler(
    n_slots: int = 4, pacing: Pacing = PACING, times: StepTimes | None = None
) -> Scheduler[ScheduledSequence]:
    return Scheduler(
        BlockManager(2000, 16),
        Deadlines(pacing, times or trained(), n_slots),
        n_slots=n_slots,
        max_waiting=50,
        prefill_chunk_rows=128,
        max_unsent_frames=10**6,
        frame_s=FRAME_S,
    )


def sequence(prompt: int = 128, clock: PlaybackClock | None = None) -> ScheduledSequence:
    return ScheduledSequence(prompt, 400, [], clock=clock or PlaybackClock())


def playing(s: Scheduler[ScheduledSequence], lead_s: float, prompt: int = 128) -> ScheduledSequence:
    """A running sequence whose listener has ``lead_s`` in hand."""
    q = sequence(prompt)
    s.submit(q, NOW_S - 5)
    assert s.admit(NOW_S - 5).started == [q]
    s.prefilled(q, prompt)
    for _ in range(4):
        s.decoded([q])
    s.frame_made(q, NOW_S - 5)
    q.clock.made_s, q.clock.dry_at_s = 20.0, NOW_S + lead_s
    return q


def asked(s: Scheduler[ScheduledSequence], prompt: int = 128, at_s: float = NOW_S) -> ScheduledSequence:
    """A sequence that has just been asked for."""
    q = sequence(prompt)
    s.submit(q, at_s)
    return q


def test_with_nobody_in_a_hurry_all_decode_nearest_to_silence_first() -> None:
    s = scheduler()
    far, near, middle = playing(s, 5), playing(s, 0.5), playing(s, 3)
    assert s.plan(NOW_S).decode == [near, middle, far]


def test_who_has_plenty_stands_aside_while_another_has_no_audio_yet() -> None:
    s = scheduler()
    far, near = playing(s, 5), playing(s, 0.5)
    new = asked(s)
    s.admit(NOW_S)
    plan = s.plan(NOW_S)
    assert (plan.pieces, plan.decode) == ([(new, 128)], [near])
    s.prefilled(new, 128)
    assert s.plan(NOW_S).decode == [new, near]
    for _ in range(4):
        s.decoded([new])
    s.frame_made(new, NOW_S)
    assert far in s.plan(NOW_S).decode


def test_a_turn_asked_for_long_before_its_listener_runs_dry_hurries_nobody() -> None:
    s = scheduler()
    far = playing(s, 5)
    talking = PlaybackClock(made_s=10, dry_at_s=NOW_S + 4)
    s.submit(sequence(clock=talking), NOW_S)
    s.admit(NOW_S)
    assert s.plan(NOW_S).decode == [far]


@pytest.mark.parametrize(("lead_s", "n_pieces"), [(0.08, 0), (0.09, 1), (0.15, 6), (3.0, 7)])
def test_a_prompt_takes_no_more_than_the_slack_of_those_who_play(lead_s: float, n_pieces: int) -> None:
    # A step takes 11 ms and 60 are kept in reserve; a piece takes 13; 100 ms of prompts are enough for one step.
    s = scheduler()
    playing(s, lead_s)
    new = asked(s, 2000)
    s.admit(NOW_S)
    assert s.plan(NOW_S).pieces == [(new, 128)] * n_pieces


def test_a_prompt_is_not_put_off_for_ever() -> None:
    s = scheduler()
    playing(s, 0.0)
    new = asked(s, 300, NOW_S - PACING.patience_s + 0.1)
    s.admit(NOW_S)
    assert s.plan(NOW_S).pieces == []
    assert s.plan(NOW_S + 0.2).pieces == [(new, 128)]
    s.prefilled(new, 128)
    assert s.plan(NOW_S + 0.3).pieces == []


def test_the_prompt_that_is_due_first_is_prefilled_first() -> None:
    s = scheduler()
    playing(s, 0.09)
    later, sooner = asked(s, 200, NOW_S), asked(s, 200, NOW_S - 0.05)
    s.admit(NOW_S)
    assert s.plan(NOW_S).pieces == [(sooner, 128)]
    # Far more to read means that it must begin sooner.
    long = asked(s, 1500, NOW_S)
    s.admit(NOW_S)
    assert s.plan(NOW_S).pieces == [(long, 128)]
    assert later in s.running


def test_a_stream_about_to_run_dry_is_not_kept_waiting_by_a_large_batch() -> None:
    s = scheduler(n_slots=16, times=trained(row_ms=4))
    crowd = [playing(s, 2.0 + i / 100) for i in range(14)]
    dry = playing(s, 0.02)
    assert s.plan(NOW_S).decode == [dry]
    dry.clock.dry_at_s = NOW_S + 0.2
    assert len(s.plan(NOW_S).decode) == 15
    # Where all are about to run dry, leaving some out would save none.
    for q in (dry, *crowd):
        q.clock.dry_at_s = NOW_S + 0.02
    assert len(s.plan(NOW_S).decode) == 15


def test_far_ahead_it_rests_and_goes_on_in_time() -> None:
    s = scheduler()
    q = playing(s, 10.1)
    assert s.plan(NOW_S).empty
    wakes_s = s.wakes_s()
    assert wakes_s is not None
    assert 1 < wakes_s - NOW_S < 10
    assert s.plan(wakes_s - 0.01).empty
    assert s.plan(wakes_s + 0.01).decode == [q]
    # It goes on until it is ahead again, not for a row at a time.
    s.frame_made(q, wakes_s + 0.02)
    assert s.plan(wakes_s + 0.03).decode == [q]
    assert s.wakes_s() is None


def test_those_who_rest_wake_together() -> None:
    s = scheduler()
    first, second, far = playing(s, 10.1), playing(s, 10.2), playing(s, 12.5)
    assert s.plan(NOW_S).empty
    wakes_s = s.wakes_s()
    assert wakes_s is not None
    assert s.plan(wakes_s + 0.01).decode == [first, second]
    assert far.resting


def test_a_report_that_less_was_played_lets_it_rest_and_one_of_more_hurries_it() -> None:
    s = scheduler()
    q = playing(s, 5.0)
    q.clock.played(9.0, NOW_S)
    assert s.plan(NOW_S).empty
    q.clock.played(19.9, NOW_S)
    assert s.plan(NOW_S).decode == [q]
    assert q.clock.lead_s(NOW_S) == pytest.approx(0.1)


def test_who_rests_lends_its_slot_and_costs_the_others_nothing() -> None:
    s = scheduler(n_slots=1)
    resting = playing(s, 10.5)
    new = asked(s)
    admission = s.admit(NOW_S)
    assert (admission.parked, admission.started) == ([resting], [new])
    alone = scheduler(n_slots=1)
    alone_new = asked(alone)
    alone.admit(NOW_S)
    assert [n for _, n in s.plan(NOW_S).pieces] == [n for _, n in alone.plan(NOW_S).pieces]
    assert s.plan(NOW_S).work == alone.plan(NOW_S).work
    assert alone_new in alone.running


def test_a_slot_goes_from_who_can_wait_to_who_can_not_and_back_in_time() -> None:
    s = scheduler(n_slots=1)
    ahead = playing(s, 3.0)
    new = asked(s)
    assert s.admit(NOW_S).parked == [ahead]
    assert s.admit(NOW_S + 1).resumed == []
    s.prefilled(new, 128)
    new.n_frames, new.clock.dry_at_s = 30, NOW_S + 4
    admission = s.admit(NOW_S + 2.1)
    assert (admission.parked, admission.resumed) == ([new], [ahead])


def test_nobody_lends_its_slot_that_needs_it() -> None:
    s = scheduler(n_slots=1)
    playing(s, 1.0)
    asked(s)
    admission = s.admit(NOW_S)
    assert (admission.parked, admission.started) == ([], [])


def test_a_session_that_has_spoken_goes_before_one_that_has_not() -> None:
    s = scheduler(n_slots=1)
    running = playing(s, 0.5)
    new = asked(s, at_s=NOW_S - 0.2)
    spoken = sequence(clock=PlaybackClock(made_s=5, dry_at_s=NOW_S - 3))
    s.submit(spoken, NOW_S)
    s.remove(running)
    assert s.admit(NOW_S).started == [spoken]
    s.remove(spoken)
    assert s.admit(NOW_S).started == [new]


def test_a_new_session_is_not_overtaken_for_ever() -> None:
    s = scheduler(n_slots=1)
    running = playing(s, 0.5)
    new = asked(s, at_s=NOW_S - 2)
    s.submit(sequence(clock=PlaybackClock(made_s=5, dry_at_s=NOW_S - 3)), NOW_S)
    s.remove(running)
    assert s.admit(NOW_S).started == [new]


def test_what_would_make_others_run_dry_waits_until_there_is_room() -> None:
    # 20 ms a row and 10 a step: four sequences take all of a second for a second of speech.
    s = scheduler(n_slots=16, times=trained(row_ms=20))
    first = playing(s, 0.5)
    others = [playing(s, 0.5) for _ in range(2)]
    new = asked(s)
    assert s.admit(NOW_S).started == []
    # A listener with more than enough needs nothing for a while.
    first.clock.dry_at_s = NOW_S + 10.5
    assert s.admit(NOW_S).started == [new]
    s.remove(others[0])
    another = asked(s)
    assert s.admit(NOW_S).started == [another]


def test_a_machine_that_is_too_slow_for_one_still_serves_one_after_another() -> None:
    s = scheduler(times=trained(step_ms=200))
    first, second = asked(s), asked(s)
    assert s.admit(NOW_S).started == [first]
    assert s.admit(NOW_S).started == []
    s.remove(first)
    assert s.admit(NOW_S).started == [second]


def test_a_queue_longer_than_anyone_would_wait_refuses_new_sessions_only() -> None:
    s = scheduler(n_slots=1, pacing=replace(PACING, max_wait_s=0.7))
    playing(s, 0.5)
    # As long as nothing else is known, turns are taken to leave the queue every 0.2 s.
    for _ in range(4):
        asked(s)
    with pytest.raises(Refused) as refusal:
        asked(s)
    assert refusal.value.code == "overloaded"
    assert refusal.value.retry_after_ms == 800
    s.submit(sequence(clock=PlaybackClock(made_s=5, dry_at_s=NOW_S)), NOW_S)
    # Turns of a hundredth of a second make a longer queue a short one.
    for i in range(5):
        s.admit(NOW_S + i / 100)
        s.remove(s.running[0])
    for _ in range(5):
        asked(s, at_s=NOW_S + 0.04)
    assert len(s.waiting) == 6


def test_what_an_interrupted_listener_threw_away_is_not_counted_as_in_hand() -> None:
    s = scheduler()
    q = playing(s, 5.0)
    q.clock.dry_at_s = NOW_S + 5.0
    q.n_frames = 25
    s.plan(NOW_S)
    s.remove(q, heard=False)
    # 2 s of it were this turn's; what came before it is still played.
    assert q.clock.lead_s(NOW_S) == pytest.approx(3.0)
    assert q.clock.made_s == pytest.approx(18.0)


def test_a_burst_that_finds_free_slots_is_refused_nothing() -> None:
    s = scheduler(n_slots=16, pacing=replace(PACING, max_wait_s=0.7))
    for _ in range(20):  # four more than the slots: the last of them waits for three others, 0.6 s
        asked(s)
    assert len(s.waiting) == 20
    with pytest.raises(Refused):
        asked(s)
