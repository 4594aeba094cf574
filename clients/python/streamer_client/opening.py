"""The WebSocket handshake, and what to tell the user when it fails."""

from __future__ import annotations

import asyncio

from websockets.asyncio.client import ClientConnection as Socket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from streamer_client.address import dialogue_url, is_loopback
from streamer_client.errors import HandshakeError
from streamer_protocol import SUBPROTOCOL

MAX_MESSAGE_BYTES = 16 * 2**20
_CLOSE_TIMEOUT_S = 2.0
_MAX_BODY_CHARS = 300


async def open_socket(url: str, api_key: str | None, timeout_s: float) -> Socket:
    """A WebSocket that speaks the dialogue protocol. Raises HandshakeError, which says what to do."""
    address = dialogue_url(url)
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key.strip()}"}
    try:
        socket = await connect(
            address,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            additional_headers=headers,
            compression=None,  # the audio is compressed already
            open_timeout=timeout_s,
            close_timeout=_CLOSE_TIMEOUT_S,
            max_size=MAX_MESSAGE_BYTES,
            proxy=None if is_loopback(address) else True,
        )
    except InvalidStatus as error:
        raise HandshakeError(_refusal(address, error)) from error
    except (InvalidHandshake, InvalidURI) as error:
        raise HandshakeError(f"{address} did not answer as a WebSocket server: {error}") from error
    except (asyncio.TimeoutError, TimeoutError) as error:  # two classes before Python 3.11
        raise HandshakeError(f"{address} did not answer within {timeout_s:g} s") from error
    except OSError as error:
        text = f"cannot reach {address}: {error}. Is the server running (`streamer serve`)?"
        raise HandshakeError(text) from error
    if socket.subprotocol != SUBPROTOCOL:
        await socket.close()
        raise HandshakeError(f"{address} does not speak {SUBPROTOCOL}: is it a dialogue streamer server?")
    return socket


def _refusal(address: str, error: InvalidStatus) -> str:
    status = error.response.status_code
    body = (error.response.body or b"").decode(errors="replace").strip()[:_MAX_BODY_CHARS]
    advice = {
        401: "pass the right api_key",
        403: "this key or origin is not allowed",
        404: "the path is wrong; the server's is usually /v1/dialogue",
        503: "the server is busy or stopping; try again later",
    }.get(status, "")
    return f"{address} refused the connection: " + "; ".join(filter(None, [f"HTTP {status}", body, advice]))
