"""Simulated sessions: how they talk, and what they hear."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from bench.simulation.machines import Machine
from streamer.engine.playback import PlaybackClock
from streamer.engine.sequence import ScheduledSequence

BLOCK_ROWS = 16
FRAME_S = 0.08
_SHORTEST_S, _LONGEST_S = 1.0, 30.0
# As the server bounds turns: three times the usual length and two seconds.
_RUNAWAY_FACTOR, _RUNAWAY_S = 3.0, 2.0


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What sessions do. Lengths of turns are log-normal around ``turn_s``, pauses and lives exponential.

    A share of ``reading`` sessions asks for the next turn as soon as one is made; the others hear a turn out and think
    for ``think_s``, or interrupt it. Who is refused asks again until ``patience_s`` are over. ``arrival_s``: mean time
    until a session that is over is followed by a new one.
    """

    turn_s: float = 4.0
    turn_spread: float = 0.6
    think_s: float = 2.0
    reading: float = 0.5
    interrupting: float = 0.1
    turns: float = 6.0
    arrival_s: float = 1.0
    patience_s: float = 15.0
    n_voices: int = 6


@dataclass(slots=True, eq=False)
class Turn:
    """One turn as its listener hears it: a player that starts with the first frame and waits for each late one."""

    asked_s: float
    n_frames: int
    in_hand_s: float
    interrupted_after_s: float | None = None
    first_audio_s: float | None = None
    plays_until_s: float = 0.0
    longest_underrun_s: float = 0.0

    @property
    def ttfa_s(self) -> float | None:
        """From asking for the turn to its first audio."""
        return None if self.first_audio_s is None else self.first_audio_s - self.asked_s

    @property
    def silence_s(self) -> float | None:
        """How long the listener waited: for a turn asked for while the last one played, after its end."""
        return None if self.first_audio_s is None else max(0.0, self.first_audio_s - self.asked_s - self.in_hand_s)

    def hear(self, now_s: float) -> None:
        """A frame has come."""
        if self.first_audio_s is None:
            self.first_audio_s = now_s
            self.plays_until_s = max(now_s, self.asked_s + self.in_hand_s)
        elif now_s > self.plays_until_s:
            self.longest_underrun_s = max(self.longest_underrun_s, now_s - self.plays_until_s)
            self.plays_until_s = now_s
        self.plays_until_s += FRAME_S


@dataclass(slots=True, eq=False)
class SimulatedSequence(ScheduledSequence):
    """What the scheduler sees of a turn."""

    session: Session = field(kw_only=True)
    turn: Turn = field(kw_only=True)


@dataclass(slots=True, eq=False)
class Session:
    """A dialogue with one listener, whose choices come from ``dice``. No two have the same ``number``."""

    number: int
    behaviour: Behaviour
    dice: random.Random
    voice: int = 0
    reads: bool = False
    turns_left: int = 1
    clock: PlaybackClock = field(default_factory=PlaybackClock)
    silent_from_s: float = 0.0
    sequence: SimulatedSequence | None = None
    _said_s: list[float] = field(default_factory=list)

    @classmethod
    def random(cls, number: int, behaviour: Behaviour, dice: random.Random) -> Session:
        """A new session; it says at least one turn."""
        n_turns = 1 + int(dice.expovariate(1 / (behaviour.turns - 1)))
        return cls(
            number, behaviour, dice, dice.randrange(behaviour.n_voices), dice.random() < behaviour.reading, n_turns
        )

    def thinks_s(self) -> float:
        """How long the listener takes to answer."""
        return self.dice.expovariate(1 / self.behaviour.think_s)

    def ask(self, asked_s: float) -> Turn:
        """The next turn."""
        b = self.behaviour
        length_s = min(max(self.dice.lognormvariate(0, b.turn_spread) * b.turn_s, _SHORTEST_S), _LONGEST_S)
        interrupts = self.dice.random() < b.interrupting and not self.reads
        after_s = self.dice.uniform(0.2, 0.9) * length_s
        self.turns_left -= 1
        in_hand_s = max(0.0, self.silent_from_s - asked_s)
        return Turn(asked_s, round(length_s / FRAME_S), in_hand_s, after_s if interrupts else None)

    def request(self, turn: Turn, machine: Machine) -> SimulatedSequence:
        """The prompt: a reference that others may share, the text of recent turns and their audio."""
        history_s = 0.0
        for said_s in reversed(self._said_s):
            if history_s + said_s > machine.history_s:
                break
            history_s += said_s
        length_s = turn.n_frames * FRAME_S
        own_rows = int((history_s + length_s) * machine.text_rows_per_s + history_s / FRAME_S) + 8
        n_rows = machine.reference_rows + own_rows
        n_shared = machine.reference_rows // BLOCK_ROWS
        keys = [f"voice {self.voice} {i}".encode() for i in range(n_shared)]
        keys += [f"{self.number} {self.turns_left} {i}".encode() for i in range(n_shared, n_rows // BLOCK_ROWS)]
        max_rows = int((length_s * _RUNAWAY_FACTOR + _RUNAWAY_S) / FRAME_S) + machine.n_vq
        return SimulatedSequence(n_rows, max_rows, keys, clock=self.clock, session=self, turn=turn)

    def said(self, turn: Turn) -> None:
        """No more of the turn is made."""
        self.sequence = None
        if turn.first_audio_s is not None:
            self.silent_from_s = turn.plays_until_s
            self._said_s.append(turn.plays_until_s - turn.first_audio_s)
