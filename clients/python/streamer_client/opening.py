"""The WebSocket handshake, and what to tell the user when it fails."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from http import HTTPStatus

from websockets.asyncio.client import ClientConnection as Socket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidProxy, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from streamer_client.address import dialogue_url, is_loopback, with_token, without_secrets
from streamer_client.errors import HandshakeError
from streamer_protocol import SUBPROTOCOL

MAX_MESSAGE_BYTES = 16 * 2**20
_CLOSE_TIMEOUT_S = 2.0
_MAX_BODY_CHARS = 300
_ADVICE = {
    401: "pass the right api_key or token",
    403: "this key or origin is not allowed",
    404: "the path is wrong; the server's is usually /v1/dialogue",
    503: "the server is busy or stopping; try again later",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server and how to be let in. Raises HandshakeError for what can't be meant.

    `api_key` travels in a header, `token` (short-lived, for clients that must not have the key) in the address.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        address = dialogue_url(self.url)
        if self.api_key is not None and self.token is not None:
            raise HandshakeError("both `api_key` and `token` are given; the server takes one of them")
        if self.tls is not None and not address.startswith("wss:"):
            raise HandshakeError(f"`ssl` is given, but {without_secrets(address)} is not encrypted; use wss://")

    @property
    def address(self) -> str:
        """The full address, with the token."""
        address = dialogue_url(self.url)
        return address if self.token is None else with_token(address, self.token)

    @property
    def headers(self) -> dict[str, str]:
        """What goes with the handshake."""
        return {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key.strip()}"}

    def __str__(self) -> str:
        return without_secrets(self.address)


async def open_socket(endpoint: Endpoint, timeout_s: float, heartbeat_s: float) -> Socket:
    """A WebSocket that speaks the dialogue protocol. Raises HandshakeError, which says what to do."""
    encrypted = endpoint.address.startswith("wss:")
    try:
        socket = await connect(
            endpoint.address,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            additional_headers=endpoint.headers,
            compression=None,  # the audio is compressed already
            open_timeout=timeout_s,
            ping_interval=heartbeat_s,
            ping_timeout=heartbeat_s,
            # Who answers no ping gets no longer to say good-bye.
            close_timeout=min(_CLOSE_TIMEOUT_S, heartbeat_s),
            max_size=MAX_MESSAGE_BYTES,
            proxy=None if is_loopback(endpoint.address) else True,
            ssl=endpoint.tls or True if encrypted else None,
        )
    except (InvalidHandshake, InvalidURI, InvalidProxy, OSError, asyncio.TimeoutError) as error:
        raise _explained(endpoint, error, timeout_s) from error
    if socket.subprotocol != SUBPROTOCOL:
        try:
            await socket.close()
        finally:
            socket.transport.abort()
        raise HandshakeError(f"{endpoint} does not speak {SUBPROTOCOL}: is it a dialogue streamer server?")
    return socket


def _explained(endpoint: Endpoint, error: Exception, timeout_s: float) -> HandshakeError:
    """What went wrong, for the user; not final if it may be gone by the next attempt."""
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        passing = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS
        return HandshakeError(_refusal(endpoint, error), final=not passing)
    if isinstance(error, InvalidHandshake | InvalidURI | InvalidProxy):
        if isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError | ConnectionError):
            return HandshakeError(f"{endpoint} broke the connection before it answered", final=False)
        said = str(error).replace(endpoint.address, str(endpoint))
        return HandshakeError(f"{endpoint} did not answer as a WebSocket server: {said}")
    if isinstance(error, asyncio.TimeoutError | TimeoutError):  # two classes before Python 3.11
        return HandshakeError(f"{endpoint} did not answer within {timeout_s:g} s", final=False)
    if isinstance(error, ssl.SSLCertVerificationError):
        return HandshakeError(
            f"{endpoint} has a certificate that is not trusted: {error}. Pass `ssl`, a context that does"
        )
    text = f"cannot reach {endpoint}: {error}. Is the server running (`streamer serve`)?"
    return HandshakeError(text, final=False)


def _refusal(endpoint: Endpoint, error: InvalidStatus) -> str:
    status = error.response.status_code
    body = (error.response.body or b"").decode(errors="replace").strip()[:_MAX_BODY_CHARS]
    said = "; ".join(filter(None, [f"HTTP {status}", body, _ADVICE.get(status, "")]))
    return f"{endpoint} refused the connection: {said}"
