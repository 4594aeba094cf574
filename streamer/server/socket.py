"""One WebSocket: frames to the protocol's state machine, its events to contexts, and everything back."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from aiohttp import WSMsgType, web
from msgspec.structs import replace

from streamer.performance import ListenerGone
from streamer.server.config import ServerConfig
from streamer.server.context import DialogueContext, Rejection
from streamer.server.state import ServerState
from streamer_protocol import (
    AudioFrame,
    Error,
    ErrorCode,
    LocalProtocolError,
    Ping,
    Pong,
    Rejected,
    ScriptAppend,
    ServerConnection,
    ServerEvent,
    ServerMessage,
    SessionClose,
    SessionClosed,
    SessionStart,
    TurnCancel,
    TurnCreate,
    make_error,
    message_type,
)

_log = logging.getLogger(__name__)
_GOING_AWAY = 1001


class DialogueSocket:
    """Serves one accepted WebSocket until it ends, whatever way; then nothing of it is left."""

    def __init__(self, state: ServerState, config: ServerConfig, ws: web.WebSocketResponse) -> None:
        self._state = state
        self._ws = ws
        self._connection = ServerConnection(config.limits)
        self._config = config
        self.contexts: dict[str, DialogueContext] = {}
        self._ending = asyncio.Lock()

    async def serve(self) -> None:
        """Read until the peer or the protocol closes the socket."""
        self._state.add(self)
        try:
            # The iteration also answers pings, so it must go on while contexts speak.
            async for frame in self._ws:
                if frame.type is WSMsgType.TEXT:
                    events = self._connection.receive_text(frame.data)
                elif frame.type is WSMsgType.BINARY:
                    events = self._connection.receive_binary(frame.data)
                else:
                    break
                for event in events:
                    await self._handle(event)
                if self._connection.closing is not None:
                    await self._ws.close(code=self._connection.closing)
        except ListenerGone:
            pass
        finally:
            await asyncio.gather(*(context.close() for context in self.contexts.values()))
            self.contexts.clear()
            self._state.discard(self)

    async def finish(self, reason: str) -> None:
        """Tell every context that it is closed, then close the socket: the server is going away."""
        with contextlib.suppress(ListenerGone):
            for name in list(self.contexts):
                await self._close_context(name, reason)
        async with self._ending:
            await self._ws.close(code=_GOING_AWAY)

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
            handle = self._state.next_handle()
            context = await DialogueContext.open(self._state.speech, self._config, handle, event, self._send)
            self.contexts[event.context] = context
            await self._send(context.ready)
        elif isinstance(event, TurnCreate):
            self._refuse_while_draining(event, event.turn)
            await self._context(event.context).create_turn(event)
        elif isinstance(event, ScriptAppend):
            self._refuse_while_draining(event, event.script)
            await self._context(event.context).append_script(event)
        elif isinstance(event, TurnCancel):
            self._context(event.context).cancel(event)
        elif isinstance(event, SessionClose):
            await self._close_context(event.context, "closed by the client")
        else:
            text = f"{message_type(event)} is not served by this version"
            turn = getattr(event, "turn", None)
            raise Rejection(make_error(ErrorCode.NOT_SUPPORTED, text, context=event.context, turn=turn))

    def _refuse_while_draining(self, event: SessionStart | TurnCreate | ScriptAppend, turn: str | None) -> None:
        if self._state.draining:
            error = make_error(ErrorCode.SHUTTING_DOWN, "the server is stopping", context=event.context, turn=turn)
            # Other turns of this socket may still be running: it is closed when they are done.
            raise Rejection(replace(error, fatal=False))

    async def _close_context(self, name: str, reason: str) -> None:
        # The client and a server that is stopping may close at once: one of them does it, the other waits.
        async with self._ending:
            context = self.contexts.pop(name, None)
            if context is not None:
                await context.close()
                await self._send(SessionClosed(context=name, reason=reason))

    def _context(self, name: str) -> DialogueContext:
        if name not in self.contexts:
            text = f"context `{name}` is being closed"
            raise Rejection(make_error(ErrorCode.SESSION_NOT_STARTED, text, context=name))
        return self.contexts[name]

    async def _send(self, message: ServerMessage | AudioFrame) -> None:
        """Encode and write one message; waits while the reader is behind. Raises ListenerGone when nobody is there."""
        if self._ws.closed:
            raise ListenerGone
        try:
            if isinstance(message, AudioFrame):
                await self._ws.send_bytes(self._connection.send(message))
            else:
                await self._ws.send_str(self._connection.send(message))
        except LocalProtocolError:
            # A bug on this side: say so to the log and to the client, and send nothing that breaks the protocol.
            _log.exception("refused to send a message that breaks the protocol")
            raise
        except (ConnectionError, RuntimeError) as error:
            raise ListenerGone from error
        if isinstance(message, Error) and message.fatal:
            await self._ws.close(code=self._connection.closing or _GOING_AWAY)
