"""The listening socket: how many connections there may be, and how long one may take to ask for something."""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from aiohttp import web


class Listener:
    """Listens for ``runner`` (set up already). A connection that brings no whole request in time is closed.

    ``handshake_s`` is that time, TLS included; above ``max_connections`` newcomers are closed at once.
    """

    def __init__(self, runner: web.AppRunner, *, handshake_s: float, max_connections: int) -> None:
        self._runner = runner
        self._handshake_s = handshake_s
        self._max_connections = max_connections
        # Connections that have not asked for anything yet; one that breaks off stays here until its time is over.
        self._unheard: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Listen; the port, which for 0 is one that was free. Raises OSError."""
        handshake_s = self._handshake_s if tls is not None else None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._accept, host, port, ssl=tls, backlog=1024, ssl_handshake_timeout=handshake_s
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Take no more connections; those that are there are the runner's."""
        if self._server is not None:
            self._server.close()
        for timer in self._unheard.values():
            timer.cancel()
        self._unheard.clear()

    def heard(self, request: web.Request) -> None:
        """A whole request has come on this connection."""
        timer = self._unheard.pop(request.protocol, None)
        if timer is not None:
            timer.cancel()

    def _accept(self) -> asyncio.BaseProtocol:
        server = self._runner.server
        assert server is not None
        if len(server.connections) >= self._max_connections:
            return _Turned()
        protocol = server()
        timer = asyncio.get_running_loop().call_later(self._handshake_s, self._give_up, protocol)
        self._unheard[protocol] = timer
        return protocol

    def _give_up(self, protocol: web.RequestHandler) -> None:
        del self._unheard[protocol]
        protocol.force_close()


class _Turned(asyncio.Protocol):
    """Closes the connection that it is given."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()
