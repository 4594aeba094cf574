"""What an HTTP request can be refused with, as OpenAI's clients expect to read it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import hdrs, web

_log = logging.getLogger(__name__)
_MAX_MESSAGE_CHARS = 400
_CLIENT_LEFT = 499
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CODES: dict[str, tuple[int, str]] = {
    "invalid_json": (400, "The body is not JSON."),
    "invalid_message": (400, "A field is missing or has a wrong value; `param` names it."),
    "not_supported": (400, "This server or model does not do that; `param` names the field."),
    "unknown_voice": (400, "The server has no voice of that id (404 where the path names it)."),
    "too_many_speakers": (400, "The text has a speaker beyond [S5], or more than max_speakers."),
    "no_speech": (400, "The text has nothing that can be spoken."),
    "text_too_long": (400, "The text exceeds max_text_chars, or a turn is longer than the model can speak."),
    "queue_full": (400, "The text has more turns than max_queued_turns."),
    "bad_voice_id": (400, "A voice id is 1 to 64 of a-z, 0-9, _ and -, and none of OpenAI's names."),
    "bad_recording": (400, "The recording can't be used; `message` says why."),
    "unauthorized": (401, "The API key is missing or wrong."),
    "forbidden": (403, "The key may not do this, or the page's origin is not allowed."),
    "voice_not_removable": (403, "The voice came with the server."),
    "request_timeout": (408, "The body did not arrive in time."),
    "voice_exists": (409, "There is a voice of that id."),
    "message_too_large": (413, "The body exceeds max_message_bytes, or the recording max_upload_bytes."),
    "not_multipart": (415, "An upload is multipart/form-data."),
    "rate_limited": (429, "Too many requests at once; Retry-After says when to try again."),
    "internal": (500, "The server failed; its log says more."),
    "storage_failed": (500, "The voices' folder can't be read or written."),
    "no_voice_store": (501, "The server was started without a folder for uploaded voices."),
    "overloaded": (503, "No capacity now; Retry-After says when to try again."),
    "shutting_down": (503, "The server is stopping."),
    "storage_full": (507, "The disk is full; nothing was kept."),
}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """What was wrong; `param` names the field, `code` is stable."""

    message: str
    code: str
    type: str = "server_error"
    param: str | None = None


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer that is an error."""

    error: ErrorDetail


class Problem(Exception):
    """A request that is refused or fails; ``code`` is one of CODES, others count as internal."""

    def __init__(
        self,
        code: str,
        message: str,
        param: str | None = None,
        *,
        status: int | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status or CODES.get(code, CODES["internal"])[0]
        self.retry_after_ms = retry_after_ms
        # A message may quote the peer, at any length.
        half = _MAX_MESSAGE_CHARS // 2
        clipped = message if len(message) <= 2 * half else f"{message[:half]} … {message[-half:]}"
        default_type = "invalid_request_error" if self.status < 500 else "server_error"
        self.detail = ErrorDetail(message=clipped, code=code, type=_TYPES.get(self.status, default_type), param=param)

    def response(self) -> web.Response:
        """The answer to send."""
        headers: dict[str, str] = {}
        if self.retry_after_ms is not None:
            headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(self.retry_after_ms / 1000)))
        return json_response(ErrorBody(error=self.detail), self.status, headers)


def json_response(body: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer from a msgspec struct."""
    return web.Response(body=msgspec.json.encode(body), status=status, headers=headers, content_type="application/json")


def answering(handler: Handler, refused: Callable[[str], None]) -> Handler:
    """A handler whose problems become answers; ``refused`` is told the code of each."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Problem as problem:
            refused(problem.detail.code)
            return problem.response()
        except web.HTTPException:
            raise
        except ConnectionError:
            # Nobody is there to read it.
            return web.Response(status=_CLIENT_LEFT)
        except Exception:
            _log.exception("a request could not be served: %s %s", request.method, request.path)
            refused("internal")
            return Problem("internal", "the server failed to serve this request").response()

    return answer


async def read_in_time(reading: Awaitable[bytes], timeout_s: float) -> bytes:
    """What the peer sends, or Problem ``request_timeout``."""
    try:
        return await asyncio.wait_for(reading, timeout_s)
    except asyncio.TimeoutError:
        raise Problem("request_timeout", f"the body did not arrive within {timeout_s:g} s") from None
