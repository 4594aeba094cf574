"""Time, listeners and a machine around the real scheduler."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace

from bench.simulation.listeners import BLOCK_ROWS, Behaviour, Session, SimulatedSequence, Turn
from bench.simulation.machines import Machine
from bench.simulation.results import Results
from streamer.engine.blocks import BlockManager
from streamer.engine.deadlines import Deadlines, Pacing
from streamer.engine.policies import FirstCome, Policy
from streamer.engine.scheduler import Plan, Refused, Scheduler
from streamer.engine.step_times import StepTimes

_REACTION_S = 0.5


class World:
    """Events in order of time, and the engine's loop between them. The same seed gives the same world."""

    def __init__(self, machine: Machine, *, pacing: Pacing | None, seed: int = 1) -> None:
        """``pacing`` None schedules first come, first served."""
        self.machine = machine
        self.now_s = 0.0
        self.busy_s = 0.0
        self.n_steps = 0
        self.turns: list[Turn] = []
        self.times = StepTimes()
        policy: Policy = FirstCome()
        if pacing is not None:
            policy = Deadlines(replace(pacing, first_frame_rows=machine.n_vq), self.times, machine.n_slots)
        self.scheduler: Scheduler[SimulatedSequence] = Scheduler(
            BlockManager(machine.kv_rows // BLOCK_ROWS, BLOCK_ROWS),
            policy,
            n_slots=machine.n_slots,
            max_waiting=4 * machine.n_slots,
            prefill_chunk_rows=machine.piece_rows,
            max_unsent_frames=10**9,
        )
        # The machine's noise and each listener's choices come from sources of their own, so that policies are compared
        # on the same listeners.
        self._seed = seed
        self._dice = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._numbers = itertools.count()

    def at(self, time_s: float, event: Callable[[], object]) -> None:
        """Let something happen then or, while a step is under way, after it."""
        heapq.heappush(self._events, (time_s, next(self._order), event))

    def crowd(self, n_sessions: int, behaviour: Behaviour) -> None:
        """Keep ``n_sessions`` open from the first seconds on: each that ends is followed by a new one."""
        for place in range(n_sessions):
            dice = random.Random(f"{self._seed} {place}")
            self._arrive(dice.uniform(0, behaviour.turn_s + behaviour.think_s), behaviour, dice)

    def run(self, until_s: float) -> None:
        """Live until then."""
        while self.now_s < until_s:
            while self._events and self._events[0][0] <= self.now_s:
                heapq.heappop(self._events)[2]()
            self.scheduler.admit(self.now_s)
            plan = self.scheduler.plan(self.now_s)
            if plan.empty:
                # No step is to come back at the very moment at which a pause ends.
                wakes_s = self.scheduler.wakes_s()
                next_s = [until_s, *([] if wakes_s is None else [wakes_s + 1e-6])]
                next_s += [self._events[0][0]] if self._events else []
                self.now_s = max(self.now_s, min(next_s))
            else:
                self._step(plan)

    def results(self, after_s: float = 0.0, before_s: float = math.inf) -> Results:
        """Of the turns asked for in that time."""
        turns = [t for t in self.turns if after_s <= t.asked_s < before_s]
        return Results.of(turns, busy=self.busy_s / max(self.now_s, 1e-9), steps=self.n_steps)

    def ask(self, session: Session, asked_s: float) -> Turn:
        """The session's next turn."""
        turn = session.ask(asked_s)
        self.turns.append(turn)
        self._submit(session, turn, asked_s)
        return turn

    def interrupt(self, session: Session, now_s: float) -> None:
        """What the listener has in hand is thrown away, what is being made is stopped."""
        sequence = session.sequence
        if sequence is not None:
            self.scheduler.remove(sequence, heard=False)
            session.said(sequence.turn)
        session.clock.flush(session.clock.made_s, now_s)
        session.silent_from_s = now_s
        self._go_on(session, now_s + _REACTION_S)

    def _submit(self, session: Session, turn: Turn, now_s: float) -> None:
        sequence = session.request(turn, self.machine)
        try:
            self.scheduler.submit(sequence, now_s)
            session.sequence = sequence
        except Refused as refusal:
            again_s = now_s + (refusal.retry_after_ms or 1000) / 1000
            if again_s < turn.asked_s + session.behaviour.patience_s:
                self.at(again_s, lambda: self._submit(session, turn, again_s))
            else:
                self._arrive(again_s, session.behaviour, session.dice)

    def _arrive(self, time_s: float, behaviour: Behaviour, dice: random.Random) -> None:
        session = Session.random(next(self._numbers), behaviour, dice)
        self.at(time_s, lambda: self.ask(session, time_s))

    def _go_on(self, session: Session, time_s: float) -> None:
        if session.turns_left:
            self.at(time_s, lambda: self.ask(session, time_s))
        else:
            end_s = max(time_s, session.silent_from_s)
            wait_s = session.dice.expovariate(1 / session.behaviour.arrival_s)
            self._arrive(end_s + wait_s, session.behaviour, session.dice)

    def _step(self, plan: Plan[SimulatedSequence]) -> None:
        seconds = self.machine.seconds(plan.work, self._dice)
        self.now_s += seconds
        self.busy_s += seconds
        self.n_steps += 1
        self.times.measured(plan.work, seconds)
        for sequence, n_rows in plan.pieces:
            self.scheduler.prefilled(sequence, n_rows)
        self.scheduler.decoded(plan.decode)
        for sequence in plan.decode:
            if sequence.n_new_rows >= self.machine.n_vq:
                self._frame(sequence)

    def _frame(self, sequence: SimulatedSequence) -> None:
        session, turn, now_s = sequence.session, sequence.turn, self.now_s
        self.scheduler.frame_made(sequence, now_s)
        sequence.unsent_frames = 0
        turn.hear(now_s)
        if sequence.n_frames == 1 and turn.interrupted_after_s is not None:
            then_s = turn.plays_until_s + turn.interrupted_after_s
            self.at(then_s, lambda: self.interrupt(session, then_s))
        if sequence.n_frames == turn.n_frames:
            self.scheduler.remove(sequence)
            session.said(turn)
            if turn.interrupted_after_s is None:
                self._go_on(session, now_s if session.reads else turn.plays_until_s + session.thinks_s())


def simulate(
    machine: Machine, n_sessions: int, behaviour: Behaviour, *, pacing: Pacing | None, seconds: float, seed: int = 1
) -> Results:
    """Some seconds of a crowd; turns of the first fifth, while it forms, and of the last tenth are not counted."""
    world = World(machine, pacing=pacing, seed=seed)
    world.crowd(n_sessions, behaviour)
    world.run(seconds)
    return world.results(0.2 * seconds, 0.9 * seconds)
