"""What is written down of one session: its lines in the log, its figures, its spans."""

from __future__ import annotations

from streamer.performance import TurnReport
from streamer.server.logs import SessionLog
from streamer.server.metrics import Metrics
from streamer.server.tracing import SessionTrace


class Journal:
    """For one session and one event loop. With ``keep_text`` what is spoken is logged; else it is not even kept."""

    def __init__(self, metrics: Metrics, session: str, context: str, key: str, *, keep_text: bool) -> None:
        self._metrics = metrics
        self._log = SessionLog(session, context, key, text=keep_text)
        self._trace = SessionTrace(session=session, key=key)
        self._keep_text = keep_text
        # Who says what, until it has been said.
        self._lines: dict[str, tuple[int, str]] = {}
        self._silent: set[str] = set()

    def opened(self) -> None:
        """The session is ready."""
        self._metrics.session_opened()
        self._log.opened()

    def resumed(self) -> None:
        """The session goes on over another connection."""
        self._metrics.session_resumed()
        self._log.opened(resumed=True)

    def closed(self, reason: str) -> None:
        """The session has ended."""
        self._metrics.session_closed()
        self._log.closed(reason)
        self._trace.end(reason)

    def turn_asked(self, turn: str, speaker: int, text: str = "") -> None:
        """A turn was asked for."""
        self._lines[turn] = (speaker, text if self._keep_text else "")
        self._silent.add(turn)
        self._trace.turn_opened(turn, speaker=f"S{speaker}")

    def expected(self) -> list[str]:
        """The turns that were asked for and are not over."""
        return list(self._lines)

    def turn_text(self, turn: str, text: str) -> None:
        """More of a turn's text has come."""
        if self._keep_text and turn in self._lines:
            speaker, before = self._lines[turn]
            self._lines[turn] = (speaker, before + text)

    def turn_queued(self, turn: str) -> None:
        """The turn waits for the engine."""
        self._trace.turn_event(turn, "queued")

    def turn_started(self, turn: str) -> None:
        """The engine has begun with the turn's prompt."""
        self._trace.turn_event(turn, "prefill")

    def audio_sent(self, turn: str, n_bytes: int) -> None:
        """An audio frame of the turn leaves."""
        self._metrics.sent("audio", n_bytes)
        if turn in self._silent:
            self._silent.discard(turn)
            self._trace.turn_event(turn, "first_audio")

    def message_sent(self, n_bytes: int) -> None:
        """A message leaves."""
        self._metrics.sent("message", n_bytes)

    def turn_completed(self, report: TurnReport) -> None:
        """A turn is over."""
        speaker, text = self._lines.pop(report.turn, (0, ""))
        self._silent.discard(report.turn)
        self._metrics.turn_completed(report)
        self._log.turn_completed(report, speaker, text)
        self._trace.turn_ended(report.turn, report.reason, frames=report.frames)

    def refused(self, code: str, message: str, turn: str | None) -> None:
        """The client is told an error."""
        self._metrics.refused(code)
        self._log.refused(code, message, turn)
