"""One WebSocket: frames to the protocol's state machine, its events to sessions, and everything back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
import time

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web
from msgspec.structs import replace

from streamer.performance import ListenerGone
from streamer.server.config import ServerConfig
from streamer.server.context import DialogueContext
from streamer.server.keys import Identity
from streamer.server.rate import TokenBucket
from streamer.server.rejection import Rejection
from streamer.server.state import ServerState
from streamer_protocol import (
    Error,
    ErrorCode,
    LocalProtocolError,
    Ping,
    Playback,
    Pong,
    Rejected,
    ScriptAppend,
    ServerConnection,
    ServerEvent,
    ServerMessage,
    SessionClose,
    SessionClosed,
    SessionStart,
    TurnAppend,
    TurnCancel,
    TurnCommit,
    TurnCreate,
    make_error,
)

_log = logging.getLogger(__name__)
# A WebSocket ping of ours carries whose receipt it asks for: context handle, position in what was sent.
_RECEIPT = struct.Struct("<IQ")
_BURST_S = 2.0
# A client that says so is done with its sessions; any other end is a connection that was lost.
_MEANT = (WSCloseCode.OK, WSCloseCode.GOING_AWAY)


class DialogueSocket:
    """Serves one accepted WebSocket until it ends, whatever way. It is the link of the sessions on it."""

    def __init__(self, state: ServerState, config: ServerConfig, ws: web.WebSocketResponse, identity: Identity) -> None:
        self._state = state
        self._ws = ws
        self._identity = identity
        self._config = config
        limits = config.limits
        self._connection = ServerConnection(limits)
        self._messages = TokenBucket(limits.max_messages_per_s, _BURST_S * limits.max_messages_per_s)
        self._bytes = TokenBucket(limits.max_bytes_per_s, _BURST_S * limits.max_bytes_per_s)
        self._sessions: dict[str, DialogueContext] = {}
        self._unused_timer: asyncio.TimerHandle | None = None
        self._unused_limit_ms = limits.handshake_timeout_ms
        self._unused_until_s = 0.0
        self._finished = False

    async def serve(self) -> None:
        """Read until the peer or the protocol closes the socket."""
        self._state.add(self)
        self._watch(self._config.limits.handshake_timeout_ms)
        try:
            # The reading also answers pings, so it must go on while sessions speak.
            async for frame in self._ws:
                await self._take(frame)
                if self._connection.closing is not None:
                    await self._ws.close(code=self._connection.closing)
        except ListenerGone:
            pass
        finally:
            self._cancel_watch()
            await self._leave()
            self._state.discard(self)

    async def finish(self) -> None:
        """Close the socket, whose sessions have ended: the server is going away."""
        self._finished = True
        await self._ws.close(code=WSCloseCode.GOING_AWAY)

    async def write(self, data: str | bytes) -> None:
        """One text or binary frame; waits while the reader is behind. Raises ListenerGone when nobody is there."""
        if self._ws.closed:
            raise ListenerGone
        try:
            if isinstance(data, str):
                await self._ws.send_str(data)
            else:
                await self._ws.send_bytes(data)
        except (ConnectionError, RuntimeError) as error:
            raise ListenerGone from error

    async def ask_receipt(self, handle: int, position: int) -> None:
        """Ping: the pong comes when the client has read everything before it."""
        if self._ws.closed:
            raise ListenerGone
        try:
            await self._ws.ping(_RECEIPT.pack(handle, position))
        except (ConnectionError, RuntimeError) as error:
            raise ListenerGone from error

    async def abort(self, code: int) -> None:
        """Close after a fatal error; the sessions of this socket end with it."""
        self._finished = True
        await self._ws.close(code=code)

    def left(self, name: str, *, taken: bool) -> None:
        """A session has ended, or goes on with another socket."""
        self._sessions.pop(name, None)
        if taken:
            self._connection.release(name)
            self._state.sessions.spawn(self._tell_taken(name))
        if not self._sessions:
            self._watch(self._config.limits.idle_timeout_ms)

    async def _tell_taken(self, name: str) -> None:
        with contextlib.suppress(ListenerGone, LocalProtocolError):
            await self._send(SessionClosed(context=name, reason="resumed elsewhere"))

    async def _leave(self) -> None:
        """Let go of the sessions: who may come back for them finds them waiting."""
        meant = self._finished or self._ws.close_code in _MEANT or self._connection.closing is not None
        for name, session in list(self._sessions.items()):
            if self._sessions.get(name) is not session:
                # Taken by another socket meanwhile.
                continue
            context = self._connection.context(name)
            if session.resumable and not meant and context is not None and context.open:
                self._connection.release(name)
                session.lose()
            else:
                session.outbox.detach()
                await session.end("the connection is gone")
        self._sessions.clear()

    async def _take(self, frame: WSMessage) -> None:
        """One frame from the client."""
        if frame.type is WSMsgType.TEXT or frame.type is WSMsgType.BINARY:
            self._state.metrics.received(len(frame.data))
            await self._hold_back(len(frame.data))
            receive = self._connection.receive_text if frame.type is WSMsgType.TEXT else self._connection.receive_binary
            for event in receive(frame.data):
                await self._handle(event)
        elif frame.type is WSMsgType.PING:
            with contextlib.suppress(ConnectionError, RuntimeError):
                await self._ws.pong(frame.data)
        elif frame.type is WSMsgType.PONG and len(frame.data) == _RECEIPT.size:
            handle, position = _RECEIPT.unpack(frame.data)
            for session in self._sessions.values():
                if session.handle == handle:
                    session.acknowledge(position)

    async def _hold_back(self, n_bytes: int) -> None:
        """Who sends faster than allowed is read more slowly: nothing is lost, and nobody else notices."""
        for bucket, n in ((self._messages, 1), (self._bytes, n_bytes)):
            # The only event to wait for is that time passes.
            while (wait_s := bucket.take(n, time.monotonic())) > 0:  # noqa: ASYNC110
                await asyncio.sleep(wait_s)

    async def _handle(self, event: ServerEvent) -> None:
        try:
            await self._dispatch(event)
        except Rejection as rejection:
            await self._send(rejection.error)
        except (ListenerGone, ConnectionError):
            raise
        except Exception:
            _log.exception("a message could not be served")
            context = getattr(event, "context", "main")
            await self._send(make_error(ErrorCode.INTERNAL, "the server failed to serve this message", context=context))

    async def _dispatch(self, event: ServerEvent) -> None:
        if isinstance(event, Rejected):
            await self._send(event.error)
        elif isinstance(event, Ping):
            await self._send(Pong(context=event.context, id=event.id))
        elif isinstance(event, SessionStart):
            self._refuse_while_draining(event, None)
            self._check_identity(event)
            # Who is being answered is not late; who is refused has no more time than before.
            self._cancel_watch()
            try:
                await (self._start(event) if event.resume is None else self._resume(event))
            finally:
                if not self._sessions:
                    self._go_on_watching()
        else:
            await self._serve(self._session(event.context), event)

    async def _serve(
        self,
        session: DialogueContext,
        event: TurnCreate | TurnAppend | TurnCommit | ScriptAppend | TurnCancel | Playback | SessionClose,
    ) -> None:
        session.touch()
        if isinstance(event, TurnCreate):
            self._refuse_while_draining(event, event.turn)
            await session.create_turn(event)
        elif isinstance(event, ScriptAppend):
            self._refuse_while_draining(event, event.script)
            await session.append_script(event)
        elif isinstance(event, TurnAppend):
            if not session.writes(event.turn):
                self._refuse_while_draining(event, event.turn)
            session.append_text(event)
        elif isinstance(event, TurnCommit):
            session.commit_text(event)
        elif isinstance(event, TurnCancel):
            await session.cancel(event)
        elif isinstance(event, Playback):
            session.played(event)
        else:
            await session.end("closed by the client")

    async def _start(self, event: SessionStart) -> None:
        sessions = self._state.sessions
        context = self._connection.context(event.context)
        assert context is not None
        sessions.admit(event, self._identity)
        try:
            session = await DialogueContext.open(self._state, self._config, event, context, self._identity)
        except BaseException:
            sessions.dismiss(self._identity)
            raise
        sessions.add(session)
        session.journal.opened()
        self._hold(session)
        await self.write(self._connection.send(session.ready()))
        if session.holder is self:
            session.attach(self)

    async def _resume(self, event: SessionStart) -> None:
        session, position = self._state.sessions.claim(event, self._identity)
        if session.holder is not None:
            session.holder.left(session.name, taken=True)
            session.outbox.detach()
        text = self._connection.adopt(session.outbox.context, session.ready(resumed=True))
        self._hold(session)
        await self.write(text)
        if session.holder is self:
            session.attach(self, position)

    def _hold(self, session: DialogueContext) -> None:
        """Serve the session from now on, unless another socket takes it over."""
        session.holder = self
        self._sessions[session.name] = session
        self._cancel_watch()

    def _check_identity(self, event: SessionStart) -> None:
        expires_at_s = self._identity.expires_at_s
        if expires_at_s is not None and time.time() >= expires_at_s:
            text = "session.start: the token has expired: connect again with a new one"
            raise Rejection(make_error(ErrorCode.UNAUTHORIZED, text, context=event.context))

    def _refuse_while_draining(
        self, event: SessionStart | TurnCreate | TurnAppend | ScriptAppend, turn: str | None
    ) -> None:
        if self._state.draining:
            retry_after_ms = int(self._config.drain_s * 1000)
            text = "the server is stopping"
            error = make_error(
                ErrorCode.SHUTTING_DOWN, text, context=event.context, turn=turn, retry_after_ms=retry_after_ms
            )
            # Other turns of this socket may still be running: it is closed when they are done.
            raise Rejection(replace(error, fatal=False))

    def _session(self, name: str) -> DialogueContext:
        session = self._sessions.get(name)
        if session is None or session.ending:
            text = f"context `{name}` is being closed"
            raise Rejection(make_error(ErrorCode.SESSION_NOT_STARTED, text, context=name))
        return session

    async def _send(self, message: ServerMessage) -> None:
        """A message of this socket; what belongs to a session goes its way, and comes again if it was lost."""
        session = self._sessions.get(message.context)
        if isinstance(message, Error):
            if session is None:
                self._state.metrics.refused(message.code)
            else:
                session.journal.refused(message.code, message.message, message.turn)
        if session is not None and not isinstance(message, Pong):
            await session.send(message, refusal=self._connection.is_refusal(message), patient=False)
            return
        try:
            text = self._connection.send(message)
        except LocalProtocolError:
            # A bug on this side: say so to the log, and send nothing that breaks the protocol.
            _log.exception("refused to send a message that breaks the protocol")
            raise
        await self.write(text)
        if isinstance(message, Error) and message.fatal:
            await self.abort(self._connection.closing or WSCloseCode.GOING_AWAY)

    def _watch(self, limit_ms: int) -> None:
        """Close a socket on which no session is opened for so long."""
        self._cancel_watch()
        self._unused_limit_ms = limit_ms
        self._unused_until_s = asyncio.get_running_loop().time() + limit_ms / 1000
        self._go_on_watching()

    def _go_on_watching(self) -> None:
        loop = asyncio.get_running_loop()
        self._unused_timer = loop.call_at(
            self._unused_until_s, lambda: self._state.sessions.spawn(self._close_unused())
        )

    def _cancel_watch(self) -> None:
        if self._unused_timer is not None:
            self._unused_timer.cancel()
            self._unused_timer = None

    async def _close_unused(self) -> None:
        if self._unused_timer is None:
            # A session.start came with the last of the time.
            return
        with contextlib.suppress(ListenerGone):
            text = f"no session was opened within {self._unused_limit_ms} ms"
            await self._send(make_error(ErrorCode.HANDSHAKE_TIMEOUT, text))
