"""What becomes of each turn of a call: which audio still goes to the phone, and what the caller has heard."""

from __future__ import annotations

from dataclasses import dataclass

from streamer_client.live import LiveTurn
from streamer_client.twilio.events import TurnHeard, TurnRefused
from streamer_protocol import Error, TurnCompleted, TurnTruncated
from streamer_protocol.contexts import INERT_CODES

Outcome = TurnHeard | TurnRefused


@dataclass(slots=True, eq=False)
class _Turn:
    """`from_ms` and `to_ms`: its place in all audio of the call, as far as it was sent; None before the first."""

    text: str
    live: LiveTurn | None = None
    from_ms: float | None = None
    to_ms: float = 0.0
    started: bool = False
    refused: bool = False
    completed: bool = False
    cut: bool = False
    dropped: bool = False

    @property
    def heard_ms(self) -> int:
        return 0 if self.from_ms is None else round(self.to_ms - self.from_ms)


class Turns:
    """The turns that are not over, in order. Every turn ends as one TurnHeard, or as a TurnRefused."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}
        self._heard_ms = 0.0

    def __bool__(self) -> bool:
        return bool(self._turns)

    @property
    def speaking(self) -> bool:
        """Whether there is a turn that can be interrupted."""
        return any(not turn.cut for turn in self._turns.values())

    def add(self, name: str, text: str, live: LiveTurn | None = None) -> None:
        """A turn was asked for."""
        self._turns[name] = _Turn(text, live)

    def write(self, name: str, text: str) -> None:
        """More text of a live turn."""
        if name in self._turns:
            self._turns[name].text += text

    def takes_text(self, name: str) -> bool:
        """Whether a live turn was neither cut nor ended."""
        turn = self._turns.get(name)
        return turn is not None and not turn.cut

    def discard(self, name: str) -> None:
        """A live turn without any text is none."""
        self._turns.pop(name, None)

    def started(self, name: str) -> None:
        """Its audio follows."""
        if name in self._turns:
            self._turns[name].started = True

    def admit(self, name: str, from_ms: float, to_ms: float) -> bool:
        """Whether audio of this turn goes to the phone, in this place of all audio."""
        turn = self._turns.get(name)
        if turn is None:
            return False
        if turn.cut:
            turn.dropped = True
            return False
        turn.from_ms = from_ms if turn.from_ms is None else turn.from_ms
        turn.to_ms = to_ms
        return True

    def heard(self, heard_ms: float) -> list[Outcome]:
        """The caller has heard so much of all audio."""
        self._heard_ms = heard_ms
        return [outcome for name in list(self._turns) for outcome in self._settle(name)]

    def cut(self, heard_ms: float) -> list[Outcome]:
        """Everything is cut here. What the caller has heard of a turn is told by the server's answer."""
        outcomes = self.heard(heard_ms)
        for turn in self._turns.values():
            turn.cut = True
            turn.dropped = turn.to_ms > heard_ms
        return outcomes

    def completed(self, report: TurnCompleted) -> list[Outcome]:
        """No more audio comes."""
        turn = self._turns.get(report.turn)
        if turn is None:
            return []
        # Of a cancelled turn that sounded, the server tells what is kept.
        turn.completed = report.reason != "cancelled"
        if not turn.completed and not report.frames:
            return self._end(report.turn, "", 0, whole=False)
        return self._settle(report.turn)

    def truncated(self, report: TurnTruncated) -> list[Outcome]:
        """The server's answer to a cut."""
        if report.turn not in self._turns:
            return []
        return self._end(report.turn, report.text, report.heard_ms, whole=False)

    def failed(self, error: Error) -> list[Outcome]:
        """An error of the server about one turn."""
        turn = self._turns.get(error.turn or "")
        if turn is None or error.turn is None or error.code in INERT_CODES:
            return []
        goes_on = turn.started or (turn.live is not None and not turn.live.over)
        if goes_on:
            turn.refused = turn.refused or error.code != "text_too_long"
        else:
            del self._turns[error.turn]
        return [TurnRefused(error.turn, error.code, error.message)]

    def _settle(self, name: str) -> list[Outcome]:
        """A turn that was sent and heard to its end is over."""
        turn = self._turns[name]
        if turn.completed and not turn.dropped and turn.to_ms <= self._heard_ms:
            return self._end(name, turn.text, turn.heard_ms, whole=True)
        return []

    def _end(self, name: str, text: str, heard_ms: int, *, whole: bool) -> list[Outcome]:
        turn = self._turns.pop(name)
        if turn.refused and whole:
            # Which words were spoken before it failed is not known, and that it failed was told.
            return []
        return [TurnHeard(name, text, heard_ms, whole)]
