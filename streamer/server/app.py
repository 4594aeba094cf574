"""The HTTP server: ``/v1/dialogue``, ``/healthz``, ``/readyz``; its start and its graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable

from aiohttp import hdrs, web

from streamer.server.config import ServerConfig
from streamer.server.socket import DialogueSocket
from streamer.server.state import ServerState
from streamer.speech import Speech

SUBPROTOCOL = "dialogue.v1"
_log = logging.getLogger(__name__)


class DialogueServer:
    """``async with DialogueServer(speech, config) as server:`` listens from entry to exit.

    The engine inside ``speech`` must be started by the caller and outlives the server.
    """

    def __init__(self, speech: Speech, config: ServerConfig | None = None) -> None:
        self.config = config or ServerConfig()
        self.state = ServerState(speech)
        app = web.Application()
        app.add_routes(
            [
                web.get("/v1/dialogue", self._dialogue),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self.port = self.config.port

    @property
    def url(self) -> str:
        """Where the dialogue socket is."""
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"ws://{host}:{self.port}/v1/dialogue"

    async def __aenter__(self) -> DialogueServer:
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.config.host, self.config.port)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Take nothing new, let running turns finish for ``drain_s``, then close every session and the listener."""
        self.state.draining = True
        running = [
            asyncio.create_task(context.performance.wait_idle())
            for dialogue in self.state.sockets
            for context in dialogue.contexts.values()
        ]
        if running:
            _, late = await asyncio.wait(running, timeout=self.config.drain_s)
            for task in late:
                task.cancel()
        endings = [dialogue.finish("shutting_down") for dialogue in list(self.state.sockets)]
        for failure in await asyncio.gather(*endings, return_exceptions=True):
            if failure is not None:
                _log.error("a socket could not be closed in order", exc_info=failure)
        await self._runner.cleanup()

    async def _dialogue(self, request: web.Request) -> web.StreamResponse:
        if self.state.draining:
            return _problem(503, "shutting_down", "the server is stopping")
        offered = request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL)
        if offered is not None and SUBPROTOCOL not in [name.strip() for name in offered.split(",")]:
            return _problem(400, "not_supported", f"the subprotocol is {SUBPROTOCOL}, not {offered!r}")
        ws = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            heartbeat=self.config.heartbeat_s,
            max_msg_size=self.config.max_frame_bytes,
            writer_limit=self.config.send_buffer_bytes,
            # Opus does not compress, and a deflate window a socket costs memory.
            compress=False,
            # The protocol checks UTF-8 itself, so that the peer is told what was wrong.
            decode_text=False,
        )
        if not ws.can_prepare(request):
            return _problem(426, "not_supported", "this is a WebSocket endpoint", {hdrs.UPGRADE: "websocket"})
        try:
            await ws.prepare(request)
        except ConnectionError:
            return _problem(400, "not_supported", "the client left before the handshake was done")
        _bound_buffers(request, self.config.send_buffer_bytes)
        await DialogueSocket(self.state, self.config, ws).serve()
        return ws

    async def _healthz(self, _: web.Request) -> web.Response:
        """Alive: the process answers."""
        return web.json_response({"status": "ok"})

    async def _readyz(self, _: web.Request) -> web.Response:
        """Ready: new sessions are taken."""
        failure = self.state.speech.engine.failure
        if self.state.draining:
            return _problem(503, "shutting_down", "the server is stopping")
        if failure is not None:
            return _problem(503, "internal", failure)
        return web.json_response({"status": "ready", "model": self.state.speech.name})


async def serve(speech: Speech, config: ServerConfig, on_listening: Callable[[str], None] = lambda url: None) -> None:
    """Serve until SIGINT or SIGTERM, then stop gracefully. ``on_listening`` is told the address."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    async with DialogueServer(speech, config) as server:
        on_listening(server.url)
        await stop.wait()
        _log.info("stopping: running turns have %g s to finish", config.drain_s)


def _bound_buffers(request: web.Request, n_bytes: int) -> None:
    """Keep little audio between the engine and the network: what lies there can't be cancelled any more."""
    transport = request.transport
    if transport is not None:
        transport.set_write_buffer_limits(high=n_bytes)
        # Left to itself, the kernel's buffer grows to megabytes: many minutes of Opus.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, n_bytes)


def _problem(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=status, headers=headers)
