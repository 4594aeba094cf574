"""The server: WebSocket, HTTP, who may use them; its start and its graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from streamer.performance import TurnReport
from streamer.server.auth import Guard, auth_middleware, is_loopback
from streamer.server.config import ServerConfig
from streamer.server.http import HttpHooks, HttpService, HttpSettings
from streamer.server.keys import Identity, KeyRing
from streamer.server.listening import Listener
from streamer.server.logs import SessionLog
from streamer.server.metrics import Metrics
from streamer.server.origins import OriginPolicy, install_origins
from streamer.server.pages import page_routes
from streamer.server.readiness import readiness
from streamer.server.refusals import refusal
from streamer.server.sessions import Sessions
from streamer.server.signing import Signer, load_secret
from streamer.server.socket import DialogueSocket
from streamer.server.state import ServerState
from streamer.server.tls import server_context
from streamer.server.tokens import ClientTokens, token_routes
from streamer.speech import Speech
from streamer_protocol import SUBPROTOCOL, asyncapi

_log = logging.getLogger(__name__)
_GOODBYE_S = 2.0


class DialogueServer:
    """``async with DialogueServer(speech, config) as server:`` listens from entry to exit.

    The engine inside ``speech`` must be started by the caller and outlives the server. Raises KeyFileError,
    SecretError, OriginError, TlsError or StoreError, which say what is wrong with a setting.
    """

    def __init__(self, speech: Speech, config: ServerConfig | None = None) -> None:
        self.config = c = config or ServerConfig()
        signer = Signer(load_secret(c.secret_file))
        keys = None if c.keys_file is None else KeyRing.from_file(c.keys_file)
        tokens = None if keys is None else ClientTokens(signer, keys)
        sessions = Sessions(c.limits, signer, speech.engine.config.max_sessions)
        metrics = Metrics(speech, lambda: len(self.state.sockets))
        self.state = ServerState(speech, sessions, metrics)
        self._tls = None if c.tls_cert is None else server_context(c.tls_cert, c.tls_key)
        self._http = HttpService(self.state, self._http_settings())
        app = web.Application(middlewares=[self._observe, auth_middleware(Guard(keys, tokens))])
        install_origins(app, OriginPolicy(c.origins, c.host_names, loopback=is_loopback(c.host)), position=1)
        app.on_response_prepare.append(_name_request)
        app.add_routes(
            [
                web.get("/v1/dialogue", self._dialogue),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/v1/asyncapi.json", self._asyncapi),
                *token_routes(tokens),
                *self._http.routes(),
                *page_routes(),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self._listener = Listener(
            self._runner, handshake_s=c.limits.handshake_timeout_ms / 1000, max_connections=c.max_connections
        )
        self.port = c.port
        self._hurry = asyncio.Event()

    @property
    def url(self) -> str:
        """Where the dialogue socket is."""
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"{'ws' if self._tls is None else 'wss'}://{host}:{self.port}/v1/dialogue"

    async def __aenter__(self) -> DialogueServer:
        await self._runner.setup()
        try:
            self.port = await self._listener.start(self.config.host, self.config.port, self._tls)
        except BaseException:
            await self._runner.cleanup()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def hurry(self) -> None:
        """Have :meth:`stop` wait for no turn any more."""
        self._hurry.set()

    async def stop(self) -> None:
        """Take nothing new, let running turns finish for ``drain_s``, then close every session and the listener."""
        self.state.draining = True
        sessions = self.state.sessions
        # Who waits to be resumed is not waited for: nothing of it can be heard.
        running = [
            asyncio.create_task(session.performance.wait_idle())
            for session in sessions.all()
            if session.outbox.link is not None
        ]
        running.append(asyncio.create_task(self._http.wait_idle()))
        hurry = asyncio.create_task(self._hurry.wait())
        finished = asyncio.gather(*running)
        await asyncio.wait((finished, hurry), timeout=self.config.drain_s, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        finished.cancel()
        endings = [asyncio.create_task(session.end("shutting_down")) for session in sessions.all()]
        if endings:
            # Not longer: a client that does not read would not hear the good-bye.
            await asyncio.wait(endings, timeout=_GOODBYE_S)
        endings += [asyncio.create_task(dialogue.finish()) for dialogue in list(self.state.sockets)]
        for failure in await asyncio.gather(*endings, return_exceptions=True):
            if failure is not None:
                _log.error("a session could not be closed in order", exc_info=failure)
        await self._listener.stop()
        await self._runner.cleanup()
        await sessions.settle()

    def _http_settings(self) -> HttpSettings:
        c, sessions, metrics = self.config, self.state.sessions, self.state.metrics

        def completed(request: web.Request, report: TurnReport) -> None:
            metrics.turn_completed(report)
            SessionLog("http", "", request["identity"].name, text=False).turn_completed(report)

        hooks = HttpHooks(
            admit=lambda request: sessions.has_room(request["identity"]),
            dismiss=lambda request: sessions.dismiss(request["identity"]),
            completed=completed,
            refused=metrics.refused,
            sent=lambda n_bytes: metrics.sent("audio", n_bytes),
        )
        return HttpSettings(
            limits=c.limits,
            voices_store=c.voices_store,
            send_buffer_bytes=c.send_buffer_bytes,
            opus_complexity=c.opus_complexity,
            hooks=hooks,
        )

    @web.middleware
    async def _observe(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Count the request, whatever becomes of it."""
        self._listener.heard(request)
        route = request.match_info.route.resource
        status = 500
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as answer:
            status = answer.status
            raise
        finally:
            self.state.metrics.http_request("other" if route is None else route.canonical, status)
        return response

    async def _dialogue(self, request: web.Request) -> web.StreamResponse:
        if self.state.draining:
            retry_after = str(max(1, round(self.config.drain_s)))
            return _problem(
                503,
                "shutting_down",
                "the server is stopping",
                {hdrs.RETRY_AFTER: retry_after},
            )
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
            # Pongs say how much the client has.
            autoping=False,
        )
        if not ws.can_prepare(request):
            return _problem(
                426,
                "not_supported",
                "this is a WebSocket endpoint",
                {hdrs.UPGRADE: "websocket"},
            )
        try:
            await ws.prepare(request)
        except ConnectionError:
            return _problem(400, "not_supported", "the client left before the handshake was done")
        _bound_buffers(request, self.config.send_buffer_bytes)
        identity: Identity = request["identity"]
        await DialogueSocket(self.state, self.config, ws, identity).serve()
        return ws

    async def _asyncapi(self, _: web.Request) -> web.Response:
        """The document of the socket."""
        return web.json_response(asyncapi.document())

    async def _healthz(self, _: web.Request) -> web.Response:
        """Alive: the process answers."""
        return web.json_response({"status": "ok"})

    async def _readyz(self, _: web.Request) -> web.Response:
        """Ready: new sessions are taken."""
        ready, reason = readiness(self.state)
        if not ready:
            return _problem(503, "shutting_down" if self.state.draining else "overloaded", reason)
        return web.json_response({"status": "ready", "model": self.state.speech.name})

    async def _metrics(self, request: web.Request) -> web.Response:
        """The figures, for Prometheus."""
        render = functools.partial(self.state.metrics.render, request.headers.get(hdrs.ACCEPT, ""))
        text, content_type = await asyncio.wrap_future(self.state.speech.workers.submit(render))
        return web.Response(body=text, headers={hdrs.CONTENT_TYPE: content_type})


async def serve(speech: Speech, config: ServerConfig, on_listening: Callable[[str], None] = lambda url: None) -> None:
    """Serve until SIGINT or SIGTERM, then stop gracefully; a second one stops at once.

    ``on_listening`` is told the address.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with DialogueServer(speech, config) as server:

        def on_signal() -> None:
            if stop.is_set():
                server.hurry()
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, on_signal)
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


async def _name_request(_: web.Request, response: web.StreamResponse) -> None:
    """Give each answer a name, which OpenAI's clients look for and tell with their errors."""
    response.headers["X-Request-Id"] = secrets.token_hex(8)


def _problem(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return refusal(status, code, message, "invalid_request_error" if status < 500 else "server_error", headers=headers)
