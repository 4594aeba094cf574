"""One line an event on stderr, as JSON or for people to read. Nobody who logs ever waits for who reads the log.

What is spoken is private: it is logged only where the configuration asks for it.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import threading
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Final, Literal, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from streamer.performance import TurnReport
from streamer.server.redaction import redact

LogFormat = Literal["json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]

_MAX_QUEUED_LINES: Final = 10_000
_CLOSE_S: Final = 2.0
_STDERR: Final = 2
# A client's mistake may be long; it is in the answer to the client as well.
_MAX_MESSAGE_CHARS: Final = 500


class _Dropped:
    """Lines lost since the process began: those that found no place in the queue, those that could not be written."""

    queue_full = 0
    unwritten = 0


def dropped_records() -> int:
    """How many log lines were dropped because their reader was too slow or gone."""
    return _Dropped.queue_full + _Dropped.unwritten


def get_logger(name: str = "streamer") -> structlog.stdlib.BoundLogger:
    """A logger of events with named values: ``get_logger().info("session opened", session=...)``.

    It goes through ``logging``, so that it is silent below a warning until :func:`configure_logging`.
    """
    processors: Sequence[Processor] = [
        structlog.stdlib.filter_by_level,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ]
    logger = structlog.wrap_logger(
        logging.getLogger(name), processors=processors, wrapper_class=structlog.stdlib.BoundLogger, context_class=dict
    )
    return cast(structlog.stdlib.BoundLogger, logger)


class SessionLog:
    """The lines of one session. ``key`` is the name of the API key, never the key; ``text`` logs what is spoken."""

    def __init__(self, session: str, context: str, key: str | None, *, text: bool) -> None:
        self._log = get_logger().bind(session=session, context=context, key=key)
        self._text = text

    def opened(self, *, resumed: bool = False, **values: object) -> None:
        """The session is ready, for the first time or over a new connection."""
        self._log.info("session resumed" if resumed else "session opened", **values)

    def closed(self, reason: str, **values: object) -> None:
        """The session has ended."""
        self._log.info("session closed", reason=reason, **values)

    def turn_completed(self, report: TurnReport, speaker: int = 0, text: str = "") -> None:
        """A turn is over: how it went, who spoke (0: not known), and its text if texts are logged."""
        spoken = {"text": text} if self._text else {}
        self._log.info(
            "turn completed",
            turn=report.turn,
            index=report.index,
            speaker=f"S{speaker}" if speaker else None,
            frames=report.frames,
            audio_ms=report.audio_ms,
            ttfa_ms=_rounded(report.ttfa_ms, 1),
            rtf=_rounded(report.rtf, 3),
            reason=report.reason,
            **spoken,
        )

    def refused(self, code: str, message: str, turn: str | None = None) -> None:
        """The client was told an error. The message may quote the client, so it is kept with the texts only."""
        said = {"message": message[:_MAX_MESSAGE_CHARS]} if self._text else {}
        self._log.info("refused", code=str(code), turn=turn, **said)


class LogOutput:
    """Logging as configured, until it is closed; made by :func:`configure_logging`."""

    def __init__(self, level: LogLevel, formatter: logging.Formatter, fd: int) -> None:
        records: queue.Queue[logging.LogRecord | None] = queue.Queue(_MAX_QUEUED_LINES)
        self._listener = _Writer(records, formatter, fd)
        self._root = logging.getLogger()
        self._before = (self._root.handlers[:], self._root.level)
        self._root.handlers[:] = [_DroppingHandler(records)]
        self._root.setLevel(level.upper())
        self._listener.start()

    def __enter__(self) -> LogOutput:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what is queued, if its reader takes it within two seconds, and put back what was configured before."""
        handlers, level = self._before
        self._root.handlers[:] = handlers
        self._root.setLevel(level)
        # A reader that has stopped for good must not keep the process.
        stopper = threading.Thread(target=self._listener.stop, name="log stop", daemon=True)
        stopper.start()
        stopper.join(_CLOSE_S)


def configure_logging(level: LogLevel, format: LogFormat, fd: int = _STDERR) -> LogOutput:
    """Send everything that the process logs, the libraries' lines too, to ``fd`` as lines of one format."""
    return LogOutput(level, _formatter(format), fd)


def _formatter(format: LogFormat) -> logging.Formatter:
    render: Processor = structlog.processors.JSONRenderer()
    safe = [_without_secrets]
    if format == "console":
        # Its own way of showing exceptions prints the values of variables.
        plain = structlog.dev.plain_traceback
        render = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=plain, pad_level=False)
        safe.append(_printable_values)
    return structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *safe, render],
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            _time_of_record,
            structlog.processors.format_exc_info,
        ],
    )


def _time_of_record(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    # The line may be made long after the record.
    created = datetime.fromtimestamp(event["_record"].created, timezone.utc)
    return {**event, "timestamp": created.isoformat().replace("+00:00", "Z")}


def _without_secrets(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """No secret leaves in a line, whoever wrote it."""
    return {key: _hidden(value) for key, value in event.items()}


def _hidden(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, dict):
        return {str(key): _hidden(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hidden(inner) for inner in value]
    return redact(str(value))


def _printable_values(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Nothing that a peer chose moves the cursor of a terminal or begins a line."""
    trace = event.pop("exception", None)
    shown = {key: _printable(value) if isinstance(value, str) else value for key, value in event.items()}
    return shown if trace is None else {**shown, "exception": "\n".join(map(_printable, trace.splitlines()))}


def _printable(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


class _DroppingHandler(logging.handlers.QueueHandler):
    """Hands records over; where the queue is full they are counted instead."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        if not isinstance(record.msg, dict):
            # What the arguments are may change before the line is made.
            record.msg, record.args = record.getMessage(), None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            _Dropped.queue_full += 1


class _Writer(logging.handlers.QueueListener):
    """Makes the lines and writes them to a file descriptor, on a thread of its own.

    Neither through ``sys.stderr`` nor as a handler of ``logging``: a writer that is stuck would hold their locks, and
    the process could not exit.
    """

    def __init__(self, records: queue.Queue[logging.LogRecord | None], formatter: logging.Formatter, fd: int) -> None:
        super().__init__(records)
        self._records = records
        self._formatter = formatter
        self._fd = fd

    def enqueue_sentinel(self) -> None:
        """Wait for a place: the queue may be full."""
        self._records.put(None)

    def handle(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            line = self._formatter.format(record)
        except Exception as error:
            line = f"a log line of {record.name} could not be made: {type(error).__name__}"
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            _Dropped.unwritten += 1
