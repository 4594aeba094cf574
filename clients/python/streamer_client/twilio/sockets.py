"""What a phone bridge needs of a WebSocket library. The server side of `websockets` has it as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from websockets.exceptions import ConnectionClosed

MAX_REASON_BYTES = 123  # RFC 6455, 5.5

# How a library may say that the peer is gone.
SOCKET_ERRORS = (ConnectionClosed, OSError)


class PhoneSocket(Protocol):
    """One accepted WebSocket. Iterating ends, or raises ConnectionClosed or OSError, when the peer is gone.

    `send` must put its message on its way before it waits for anything, so that messages leave in the order of calls.
    """

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """The peer's messages."""

    async def send(self, message: str) -> None:
        """Send a text frame. Raises ConnectionClosed or OSError if the peer is gone."""

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close with a code and at most 123 bytes of reason; twice does no harm."""


def close_reason(text: str) -> str:
    """As much of a text as a close frame holds."""
    return text.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
