"""How much of what was handed to the transport has been played, as far as Pipecat tells."""

from __future__ import annotations

from dataclasses import dataclass

_MAX_TURNS = 64


@dataclass(slots=True)
class _Part:
    """One turn's audio: what was handed on so far, and whether that is all."""

    pushed_ms: float = 0.0
    ended: bool = False


class Playback:
    """A clock of what is heard. The transport says when it begins and when it stops; between, it plays in real time.

    Times are milliseconds of a steady clock, durations milliseconds of audio. Turns are played in the order of their
    first `push`. What was dropped is never heard, and does not count.
    """

    def __init__(self) -> None:
        self._parts: dict[str, _Part] = {}
        self._before_ms = 0.0  # heard of turns that are over
        self._played_ms = 0.0
        self._as_of_ms = 0.0
        self._playing = False

    def push(self, turn: str, duration_ms: float, now_ms: float) -> None:
        """Audio goes to the transport."""
        self._advance(now_ms)
        if turn not in self._parts and len(self._parts) >= _MAX_TURNS:
            # Where nobody ever tells that something was played, nothing is kept for ever.
            self._forget(next(iter(self._parts)))
        self._parts.setdefault(turn, _Part()).pushed_ms += duration_ms

    def end(self, turn: str) -> None:
        """All audio of the turn was pushed."""
        if turn in self._parts:
            self._parts[turn].ended = True

    def started(self, now_ms: float) -> None:
        """The transport begins to play."""
        self._advance(now_ms)
        self._playing = True

    def stopped(self, now_ms: float) -> None:
        """The transport has nothing left to play, of this turn at least."""
        self._advance(now_ms)
        if self._playing and self._parts:
            turn, head = next(iter(self._parts.items()))
            self._played_ms = self._before_ms + head.pushed_ms
            if head.ended:
                self._forget(turn)
        self._playing = False

    def played_ms(self, now_ms: float) -> float:
        """All that was heard until now."""
        self._advance(now_ms)
        return self._played_ms

    def heard_ms(self, turn: str, now_ms: float) -> float:
        """What was heard of a turn that is not yet over."""
        self._advance(now_ms)
        begin_ms = self._before_ms
        for name, part in self._parts.items():
            if name == turn:
                return min(max(self._played_ms - begin_ms, 0.0), part.pushed_ms)
            begin_ms += part.pushed_ms
        return 0.0

    def holds(self, turn: str) -> bool:
        """Whether some of the turn's audio was pushed, and is not known to have been heard to its end."""
        return turn in self._parts

    def drop(self, turn: str, now_ms: float) -> None:
        """What was not heard of the turn by now never will be."""
        heard_ms = self.heard_ms(turn, now_ms)
        if turn in self._parts:
            self._parts[turn].pushed_ms = heard_ms
            if heard_ms or turn == next(iter(self._parts)):
                self._forget(turn)
            else:
                del self._parts[turn]
        if not self._parts:
            self._playing = False

    def _advance(self, now_ms: float) -> None:
        if self._playing and self._parts:
            # No further than this turn: that it was played to its end is told.
            head = next(iter(self._parts.values()))
            elapsed_ms = max(now_ms - self._as_of_ms, 0.0)
            self._played_ms = min(self._played_ms + elapsed_ms, self._before_ms + head.pushed_ms)
        self._as_of_ms = now_ms

    def _forget(self, turn: str) -> None:
        self._before_ms += self._parts.pop(turn).pushed_ms
        self._played_ms = max(self._played_ms, self._before_ms)
