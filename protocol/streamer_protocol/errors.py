"""Stable error codes of the protocol, and the exceptions of its two ends."""

from __future__ import annotations

from enum import Enum

from streamer_protocol.messages import Error


class ErrorCode(str, Enum):
    """An error code: its wire value, one line of meaning, and the WebSocket close code if it is fatal."""

    meaning: str
    close_code: int | None

    def __new__(cls, value: str, meaning: str, close_code: int | None = None) -> ErrorCode:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.close_code = close_code
        return member

    INVALID_JSON = "invalid_json", "The message is not JSON."
    INVALID_UTF8 = "invalid_utf8", "The text frame is not UTF-8.", 1007
    INVALID_MESSAGE = "invalid_message", "Unknown type or field, or a wrong value; `message` names it."
    BINARY_NOT_ALLOWED = "binary_not_allowed", "Clients send text frames only."
    MESSAGE_TOO_LARGE = "message_too_large", "The message exceeds max_message_bytes.", 1009
    SESSION_NOT_STARTED = "session_not_started", "The context is not open: wait for session.ready."
    SESSION_ALREADY_STARTED = "session_already_started", "The context is open already."
    UNKNOWN_VOICE = "unknown_voice", "The server has no voice of that id."
    UNKNOWN_TURN = "unknown_turn", "The context has no such turn."
    DUPLICATE_TURN = "duplicate_turn", "The turn or script id is taken."
    INVALID_SCRIPT = "invalid_script", "The script cannot be split into turns."
    TOO_MANY_SPEAKERS = "too_many_speakers", "More speakers than max_speakers."
    NO_SPEECH = "no_speech", "The text has nothing that can be spoken."
    TEXT_TOO_LONG = "text_too_long", "The text exceeds max_text_chars."
    NOT_SUPPORTED = "not_supported", "This server or model does not do that."
    OVERLOADED = "overloaded", "No capacity now; retry_after_ms says when to try again."
    TOO_MANY_CONTEXTS = "too_many_contexts", "The socket has max_contexts open."
    QUEUE_FULL = "queue_full", "max_queued_turns turns wait already."
    INTERNAL = "internal", "The server failed; its log says more."
    SHUTTING_DOWN = "shutting_down", "The server is stopping.", 1001
    RATE_LIMITED = "rate_limited", "Too many requests; retry_after_ms says when to try again."
    UNAUTHORIZED = "unauthorized", "The API key or token is missing, wrong or expired.", 1008
    FORBIDDEN = "forbidden", "This key or origin may not do that.", 1008
    TOO_MANY_SESSIONS = "too_many_sessions", "The key has max_sessions_per_key sessions."
    RESUME_FAILED = "resume_failed", "The session cannot be resumed: start a new one."
    HANDSHAKE_TIMEOUT = "handshake_timeout", "No session was opened within handshake_timeout_ms.", 1008

    @property
    def fatal(self) -> bool:
        """Whether the socket closes after this error by default."""
        return self.close_code is not None

    def __str__(self) -> str:
        return str(self._value_)


def make_error(
    code: ErrorCode,
    message: str,
    *,
    context: str = "main",
    turn: str | None = None,
    retry_after_ms: int | None = None,
) -> Error:
    """An `error` message with the code's default `fatal`."""
    return Error(
        context=context,
        code=code.value,
        message=message,
        turn=turn,
        fatal=code.fatal,
        retry_after_ms=retry_after_ms,
    )


class LocalProtocolError(Exception):
    """This end tried to send what the protocol does not allow here: a bug on this side."""


class RemoteProtocolError(Exception):
    """The server broke the protocol; given as an event, never raised by the protocol code.

    `context` is the dialogue concerned, or None if the data was unreadable.
    """

    def __init__(self, message: str, context: str | None = None) -> None:
        super().__init__(message)
        self.context = context


class HeaderError(ValueError):
    """A binary frame is not a valid audio frame."""
