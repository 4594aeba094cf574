"""What the engine has done since it began, for whoever watches it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from streamer.engine.scheduler import Scheduler
from streamer.engine.sequence import Plan
from streamer.engine.step_times import StepTimes

# From a small model's step on a GPU to a large one's on a CPU.
STEP_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.08, 0.15, 0.3, 1.0)


@dataclass(frozen=True, slots=True)
class Counters:
    """A snapshot. Totals since the start: ``steps`` with ``step_s`` seconds in them, ``decoded_rows``,
    ``prefilled_rows``, ``frames``, ``parked`` (slots lent), turns ``refused`` for lack of room; ``predicted_underruns``
    (frames made in mid-turn when by the playback clock their listener had none left) with ``predicted_underrun_s`` of
    silence. ``step_times``: of the steps that were timed, how many took no longer than each of ``STEP_BOUNDS_S`` but
    longer than the one before, and how many took longer than all.

    The present: ``batch`` and ``last_step_s`` of the newest step, turns ``running``, ``resting`` (far ahead of their
    listeners), ``lending`` (without a slot) and ``waiting``; ``least_lead_s`` in hand of those who decode, None if
    nobody does. ``kv_blocks``: how many there are.
    """

    steps: int = 0
    step_s: float = 0.0
    decoded_rows: int = 0
    prefilled_rows: int = 0
    frames: int = 0
    parked: int = 0
    refused: int = 0
    predicted_underruns: int = 0
    predicted_underrun_s: float = 0.0
    step_times: tuple[int, ...] = (0,) * (len(STEP_BOUNDS_S) + 1)
    batch: int = 0
    last_step_s: float = 0.0
    running: int = 0
    resting: int = 0
    lending: int = 0
    waiting: int = 0
    least_lead_s: float | None = None
    kv_blocks: int = 0


@dataclass(slots=True, eq=False)
class StepMeter:
    """Times of consecutive steps, and totals. One thread writes; :meth:`snapshot` may be called from any.

    A step is timed from its beginning to the next one's, since a GPU may still be at work when the host is done;
    the last one before a rest is not timed.
    """

    times: StepTimes
    _totals: Counters = Counters()
    _plan: Plan[Any] | None = None
    _began_s: float = 0.0
    _step_times: list[int] = field(default_factory=lambda: [0] * (len(STEP_BOUNDS_S) + 1))

    def begin(self, plan: Plan[Any], now_s: float) -> None:
        """A step begins, and the one before it, if it was not broken off by a rest, is over."""
        t = self._totals
        if self._plan is not None:
            seconds = now_s - self._began_s
            self.times.measured(self._plan.work, seconds)
            self._step_times[bisect_left(STEP_BOUNDS_S, seconds)] += 1
            t = replace(t, step_s=t.step_s + seconds, last_step_s=seconds)
        self._plan, self._began_s = plan, now_s
        self._totals = replace(
            t,
            steps=t.steps + 1,
            decoded_rows=t.decoded_rows + len(plan.decode),
            prefilled_rows=t.prefilled_rows + sum(n for _, n in plan.pieces),
            batch=len(plan.decode),
            least_lead_s=min((s.clock.lead_s(now_s) for s in plan.decode if s.n_frames), default=None),
        )

    def rest(self) -> None:
        """The engine goes to sleep, or a step failed: what comes between two steps is not work."""
        self._plan = None

    def frames(self, late_s: Sequence[float]) -> None:
        """Frames were made, for listeners that had had nothing to play for so long."""
        t, late = self._totals, [s for s in late_s if s > 0]
        self._totals = replace(
            t,
            frames=t.frames + len(late_s),
            predicted_underruns=t.predicted_underruns + len(late),
            predicted_underrun_s=t.predicted_underrun_s + sum(late),
        )

    def parked(self, n: int) -> None:
        """Slots were lent."""
        self._totals = replace(self._totals, parked=self._totals.parked + n)

    def snapshot(self, scheduler: Scheduler[Any], n_refused: int) -> Counters:
        """The totals, with what the scheduler holds. Not while another thread changes the scheduler."""
        live = (*scheduler.running, *scheduler.parked)
        return replace(
            self._totals,
            refused=n_refused,
            step_times=tuple(self._step_times),
            running=len(scheduler.running),
            resting=sum(s.resting for s in live),
            lending=len(scheduler.parked),
            waiting=len(scheduler.waiting),
            kv_blocks=scheduler.blocks.n_blocks,
        )
