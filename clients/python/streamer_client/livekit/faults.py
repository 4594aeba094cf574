"""Our errors in the framework's terms, which decide what it does next: try again, fall back or give up."""

from __future__ import annotations

from livekit.agents import APIConnectionError, APIError, APIStatusError

from streamer_client.errors import ClientError, DialogueError, HandshakeError, ProtocolError
from streamer_protocol import ErrorCode, LocalProtocolError

_BAD_REQUEST = 400
# The framework takes 429 and 5xx for passing, other 4xx for final.
_STATUS: dict[str, int] = {
    ErrorCode.UNAUTHORIZED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.UNKNOWN_VOICE: 404,
    ErrorCode.MESSAGE_TOO_LARGE: 413,
    ErrorCode.TEXT_TOO_LONG: 413,
    ErrorCode.OVERLOADED: 429,
    ErrorCode.QUEUE_FULL: 429,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.TOO_MANY_CONTEXTS: 429,
    ErrorCode.TOO_MANY_SESSIONS: 429,
    ErrorCode.INTERNAL: 500,
    ErrorCode.SHUTTING_DOWN: 503,
    ErrorCode.HANDSHAKE_TIMEOUT: 503,
    ErrorCode.RESUME_FAILED: 503,
}


def api_error(error: ClientError | LocalProtocolError, *, audio_sent: bool) -> APIError:
    """The framework's error for `error`; after audio was sent, one that is not tried again.

    A second attempt would begin the text anew, and the listener has heard its beginning.
    """
    if isinstance(error, DialogueError):
        return APIStatusError(
            str(error),
            status_code=_STATUS.get(error.code, _BAD_REQUEST),
            body={"code": error.code, "turn": error.turn, "retry_after_ms": error.retry_after_ms},
            retryable=not audio_sent,
        )
    final = isinstance(error, LocalProtocolError | ProtocolError) or (isinstance(error, HandshakeError) and error.final)
    return APIConnectionError(str(error), retryable=not (final or audio_sent))
