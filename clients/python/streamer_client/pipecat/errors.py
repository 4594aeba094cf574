"""What went wrong, in Pipecat's terms: an ErrorFrame that names the code."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pipecat.frames.frames import ErrorFrame
from pipecat.utils.errors import ErrorCategory, classify_http_exception

from streamer_client.errors import ConnectionLost, DialogueError, HandshakeError
from streamer_protocol import Error, ErrorCode, LocalProtocolError

# A permanent category makes Pipecat stop using the service, so only what no retry helps has one. Other codes are about
# one text: the application's.
_CATEGORIES: Mapping[str, ErrorCategory] = MappingProxyType(
    {
        ErrorCode.UNKNOWN_VOICE: ErrorCategory.INVALID_REQUEST,
        ErrorCode.NOT_SUPPORTED: ErrorCategory.INVALID_REQUEST,
        ErrorCode.UNAUTHORIZED: ErrorCategory.AUTHENTICATION,
        ErrorCode.FORBIDDEN: ErrorCategory.AUTHORIZATION,
        ErrorCode.OVERLOADED: ErrorCategory.RATE_LIMIT,
        ErrorCode.RATE_LIMITED: ErrorCategory.RATE_LIMIT,
        ErrorCode.QUEUE_FULL: ErrorCategory.RATE_LIMIT,
        ErrorCode.TOO_MANY_CONTEXTS: ErrorCategory.RATE_LIMIT,
        ErrorCode.TOO_MANY_SESSIONS: ErrorCategory.RATE_LIMIT,
        ErrorCode.INTERNAL: ErrorCategory.SERVER,
        ErrorCode.SHUTTING_DOWN: ErrorCategory.CONNECTIVITY,
        ErrorCode.RESUME_FAILED: ErrorCategory.CONNECTIVITY,
    }
)


def error_frame(error: Error | Exception) -> ErrorFrame:
    """The frame that tells of a server's `error` message or a client's exception."""
    if isinstance(error, Error):
        error = DialogueError.of(error)
    return ErrorFrame(str(error), exception=error, category=_category(error))


def _category(error: Exception) -> ErrorCategory:
    if isinstance(error, DialogueError):
        return _CATEGORIES.get(error.code, ErrorCategory.APPLICATION)
    if isinstance(error, LocalProtocolError | ValueError):
        return ErrorCategory.INVALID_REQUEST
    if isinstance(error, HandshakeError) and error.final:
        found = classify_http_exception(error.__cause__) if isinstance(error.__cause__, Exception) else None
        return found if found is not None and found.is_permanent else ErrorCategory.INVALID_REQUEST
    if isinstance(error, HandshakeError | ConnectionLost):
        return ErrorCategory.CONNECTIVITY
    return ErrorCategory.UNKNOWN
