"""Scheduling by deadline: whoever's listener runs dry first goes first. No tensors, no clock, no threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamer.engine.sequence import Plan, ScheduledSequence, SequenceT, decode_work
from streamer.engine.step_times import StepTimes, StepWork

# Between two turns that leave the queue, before any has: a guess that refuses nobody too soon.
_FIRST_TURN_GAP_S = 0.2
_SHORTEST_RETRY_MS, _LONGEST_RETRY_MS = 500, 30_000
# Rows after which the mix of prompts and speech is half forgotten, in steps, and before which it says little.
_MIX_MEMORY, _LEAST_MIX_ROWS = 0.999, 200.0


@dataclass(frozen=True, slots=True)
class Pacing:
    """How listeners are served. All in seconds of real time, which are also seconds of audio.

    ``first_frame_rows``: rows until a turn's first frame is complete. ``max_lead_s``: who is this far ahead pauses,
    and goes on at ``resume_lead_s``. ``first_audio_goal_s``: the deadline of a turn that nobody hears yet.
    ``reserve_s``: audio in hand that prompts may not eat into; ``longest_prefill_s``: how much of them one step takes
    at most. ``patience_s``: a prompt goes on after this long, whoever runs dry. ``standby_s``: with more than this in
    hand a stream stands aside while another has no audio yet. ``lend_lead_s``: with more than this, which should be
    less, it may lend its slot. ``horizon_s``, ``full_load``: a turn is admitted if what all listeners need within the
    horizon takes no more than this share of it. ``max_wait_s``: a session's first turn that would wait longer is
    refused. ``spoken_before_s``: head start of a session that has spoken over one that has not.
    """

    frame_s: float = 0.08
    first_frame_rows: int = 16
    max_lead_s: float = 10.0
    first_audio_goal_s: float = 0.15
    reserve_s: float = 0.06
    longest_prefill_s: float = 0.1
    patience_s: float = 1.0
    standby_s: float = 2.5
    lend_lead_s: float = 2.0
    horizon_s: float = 4.0
    full_load: float = 1.0
    max_wait_s: float = 5.0
    spoken_before_s: float = 1.0

    @property
    def resume_lead_s(self) -> float:
        """A pause lasts a while, so that those who return can decode a good many rows, and more of them together."""
        return max(self.max_lead_s - 2.0, self.max_lead_s / 2)

    @property
    def return_lead_s(self) -> float:
        """Who lent a slot gets one back with this much in hand, be it from one with not much more."""
        return self.lend_lead_s / 2


class Deadlines:
    """A :class:`Policy`: earliest deadline first, prompts in the slack of those who play, admission by forecast.

    A turn's deadline is when its listener runs dry, or ``first_audio_goal_s`` after it was asked for, if that is
    later. It is *due* when its next row or piece must begin for that, at the pace of recent steps.
    """

    def __init__(self, pacing: Pacing, times: StepTimes, n_slots: int) -> None:
        self.pacing = pacing
        self._times = times
        self._n_slots = n_slots
        self._step_s = times.seconds(StepWork(1, 1))
        self._turn_gap_s = _FIRST_TURN_GAP_S
        self._ended_s: float | None = None
        self._recent_prefill_s = 0.0
        self._recent_rows = 0.0

    def due_s(self, sequence: ScheduledSequence) -> float:
        """When the next work on the sequence must begin at the latest."""
        p, clock = self.pacing, sequence.clock
        if sequence.n_frames:
            return clock.dry_at_s
        rows = max(p.first_frame_rows - sequence.n_new_rows, 1)
        work_s = (rows - 1) * self._step_s + self._prefill_s(sequence.n_unread_rows)
        return max(clock.dry_at_s, sequence.submitted_s + p.first_audio_goal_s) - work_s

    def refusal(self, sequence: ScheduledSequence, n_waiting: int) -> int | None:
        """Refuses a session's first turn where the queue is longer than anyone would wait."""
        wait_s = n_waiting * self._turn_gap_s
        if wait_s <= self.pacing.max_wait_s or sequence.clock.started:
            return None
        return int(min(max(wait_s * 1000, _SHORTEST_RETRY_MS), _LONGEST_RETRY_MS))

    def order(self, waiting: Sequence[SequenceT], parked: Sequence[SequenceT], now_s: float) -> list[SequenceT]:
        """Those who lent a slot and need one, then all by due time, a session that has spoken with its head start."""

        def key(sequence: ScheduledSequence) -> tuple[bool, float]:
            head_start_s = self.pacing.spoken_before_s if sequence.clock.started else 0.0
            return not self._must_return(sequence, now_s), self.due_s(sequence) - head_start_s

        return sorted([*parked, *waiting], key=key)

    def admits(self, sequence: ScheduledSequence, live: Sequence[ScheduledSequence], now_s: float) -> bool:
        """Whether everyone's needs within the horizon fit into it; always where nothing else is to be done."""
        p = self.pacing
        if all(s.resting for s in live):
            return True
        total_rows = most_rows = kv_rows = unread_rows = 0.0
        for s in (*live, sequence):
            # What is in hand counts for those who rest only: others will be asked for more as soon as it is used up.
            need_s = p.horizon_s - (s.clock.lead_s(now_s) if s.resting else 0.0)
            rows = min(max(need_s, 0.0) / p.frame_s, s.max_rows - s.n_new_rows)
            total_rows += rows
            most_rows = max(most_rows, rows)
            kv_rows += rows * (s.n_prompt_rows + s.n_new_rows)
            unread_rows += s.n_unread_rows
        steps = max(most_rows, total_rows / self._n_slots)
        seconds = self._times.seconds(StepWork(steps, total_rows, kv_rows, 0, unread_rows))
        # Whoever speaks will have further turns, and each brings a prompt.
        seconds += total_rows * self._recent_prefill_s / max(self._recent_rows, _LEAST_MIX_ROWS)
        return seconds <= p.full_load * p.horizon_s

    def gives_way(self, running: Sequence[SequenceT], to: ScheduledSequence, now_s: float) -> SequenceT | None:
        """The one furthest ahead, if it can do without its slot for a while and ``to`` can't."""
        p = self.pacing
        last = max((s for s in running if s.prefilled), key=lambda s: s.clock.dry_at_s, default=None)
        if last is None:
            return None
        lead_s = last.clock.lead_s(now_s)
        if to.prefilled:
            spared = self._must_return(to, now_s) and lead_s > to.clock.lead_s(now_s) + p.return_lead_s / 2
        else:
            spared = lead_s > p.lend_lead_s and self.due_s(last) > self.due_s(to) + p.return_lead_s
        return last if spared else None

    def rests(self, sequence: ScheduledSequence, now_s: float, *, in_company: bool) -> bool:
        """From ``max_lead_s`` in hand until ``resume_lead_s`` are left; in company until a frame has been played.

        So those who rest wake together and decode in one batch, not each by itself.
        """
        p, lead_s = self.pacing, sequence.clock.lead_s(now_s)
        if not sequence.resting:
            return lead_s >= p.max_lead_s
        return lead_s > (p.max_lead_s - p.frame_s if in_company else p.resume_lead_s)

    def wakes_s(self, sequence: ScheduledSequence) -> float:
        """When no more than ``resume_lead_s`` are left."""
        return sequence.clock.dry_at_s - self.pacing.resume_lead_s

    def compose(
        self, ready: Sequence[SequenceT], prompts: Sequence[SequenceT], piece_rows: int, now_s: float
    ) -> Plan[SequenceT]:
        """The rows that can't wait, or all rows if nobody is in a hurry; and as much of the prompts as these allow."""
        p = self.pacing
        slack_s = {s: self.due_s(s) - now_s for s in (*ready, *prompts)}
        batch = sorted(ready, key=lambda s: slack_s[s])
        if any(not s.n_frames and slack < p.standby_s for s, slack in slack_s.items()):
            batch = [s for s in batch if slack_s[s] < p.standby_s]
        step_s = self._decode_s(batch)
        least_s = min((slack_s[s] for s in batch if s.n_frames), default=step_s)
        if least_s < step_s:
            # Fewer rows take less time, but only who can spare another such step may be left out to save the first.
            batch = [s for s in batch if slack_s[s] < 2 * step_s + p.reserve_s]
            step_s = self._decode_s(batch)
        playing_s = min((slack_s[s] for s in ready if s.n_frames or s.clock.lead_s(now_s)), default=p.longest_prefill_s)
        room_s = min(playing_s - step_s - p.reserve_s, p.longest_prefill_s)
        by_due = sorted(prompts, key=lambda s: slack_s[s])
        pieces = self._pieces(by_due, piece_rows, room_s, now_s, at_least_one=not batch)
        self._learn_mix(step_s, batch, pieces)
        return Plan(pieces, batch)

    def ended(self, n_waiting: int, now_s: float) -> None:
        """Learns how long those who wait in line wait for each other."""
        if n_waiting and self._ended_s is not None:
            self._turn_gap_s += 0.2 * (now_s - self._ended_s - self._turn_gap_s)
        self._ended_s = now_s if n_waiting else None

    def _pieces(
        self, prompts: Sequence[SequenceT], piece_rows: int, room_s: float, now_s: float, *, at_least_one: bool
    ) -> list[tuple[SequenceT, int]]:
        pieces: list[tuple[SequenceT, int]] = []
        for s in prompts:
            starved = now_s - s.touched_s > self.pacing.patience_s
            for n_rows in s.pieces(piece_rows):
                room_s -= self._prefill_s(n_rows)
                if room_s < 0 and not (starved or (at_least_one and not pieces)):
                    return pieces
                starved = False
                pieces.append((s, n_rows))
        return pieces

    def _learn_mix(
        self, step_s: float, batch: Sequence[ScheduledSequence], pieces: Sequence[tuple[ScheduledSequence, int]]
    ) -> None:
        if batch:
            self._step_s = step_s
        self._recent_prefill_s = _MIX_MEMORY * self._recent_prefill_s + sum(self._prefill_s(n) for _, n in pieces)
        self._recent_rows = _MIX_MEMORY * self._recent_rows + len(batch)

    def _must_return(self, sequence: ScheduledSequence, now_s: float) -> bool:
        return sequence.prefilled and sequence.clock.lead_s(now_s) < self.pacing.return_lead_s

    def _decode_s(self, batch: Sequence[ScheduledSequence]) -> float:
        return self._times.seconds(decode_work(batch))

    def _prefill_s(self, n_rows: int) -> float:
        return self._times.seconds(StepWork(pieces=1, prefill_rows=n_rows)) if n_rows else 0.0
