"""One dialogue behind its API: what arrives for it, what it says, and how it lives through a lost connection."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Protocol

from streamer_client.audio import OpusDecoder
from streamer_client.errors import (
    ClientError,
    ConnectionLost,
    DialogueError,
    EventsNotRead,
    HandshakeError,
)
from streamer_client.events import Event, Reconnecting, Resumed, audio_event
from streamer_client.live import LiveTurns
from streamer_client.outbox import Outbox
from streamer_client.queue import ByteBoundedQueue
from streamer_client.settings import ClientSettings
from streamer_protocol import (
    AudioFrame,
    ClientConnection,
    ClientMessage,
    Context,
    Error,
    Ping,
    Pong,
    ServerMessage,
    SessionClose,
    SessionClosed,
    SessionReady,
    SessionStart,
    TurnCancel,
    TurnCompleted,
    TurnStarted,
)

_EVENT_BYTES = 200  # what an event costs besides its payload


class Line(Protocol):
    """The connection, as its dialogues see it."""

    @property
    def shared(self) -> bool:
        """Whether there are other dialogues on it."""

    def say(self, message: ClientMessage) -> None:
        """Send what is not counted and not sent again; comes to nothing while there is no socket."""

    def wake(self) -> None:
        """Something waits in an outbox."""

    def forget(self, session: Session) -> None:
        """The session has ended."""


class Session:
    """From session.start to its end, over as many sockets as it takes. Belongs to one event loop."""

    def __init__(
        self, line: Line, start: SessionStart, decoder: OpusDecoder | None, settings: ClientSettings, resume: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        self.name = start.context
        self.queue: ByteBoundedQueue[Event] = ByteBoundedQueue(settings.max_held_bytes)
        self.outbox = Outbox(start.context, settings.max_unsent_bytes)
        self.live = LiveTurns()
        self.numbers = itertools.count(1)
        self.failure: ClientError | None = None
        self.lost_at_s: float | None = None
        self.lost_by = ""
        self._line = line
        self._decoder = decoder
        self._settings = settings
        self._resume = resume
        self._ready: asyncio.Future[SessionReady] = loop.create_future()
        self._over: asyncio.Future[None] = loop.create_future()
        self._pongs: dict[str, asyncio.Future[None]] = {}
        self._turn_of_index: dict[int, str] = {}
        self._context: Context | None = None
        self._token: str | None = None
        self._closing = False

    @property
    def ready(self) -> SessionReady:
        """The server's first answer."""
        return self._ready.result()

    async def wait_ready(self, timeout_s: float) -> None:
        """Return when the session is open. Raises DialogueError if it is refused, ClientError for what else happens."""
        done, _ = await asyncio.wait([self._ready], timeout=timeout_s)
        if not done:
            raise HandshakeError(f"the server opened no session within {timeout_s:g} s", final=False)
        self._ready.result()

    async def send(self, message: ClientMessage) -> None:
        """Send, now or when the connection is back; waits while too much is on its way, but not to cancel."""
        if not isinstance(message, TurnCancel):
            await self.outbox.wait_room()
        if self.failure is not None:
            raise self.failure
        self.outbox.put(message)
        self._line.wake()

    async def ping(self, timeout_s: float) -> float:
        """Round trip in milliseconds."""
        if self.failure is not None:
            raise self.failure
        name = f"p{next(self.numbers)}"
        pong = self._pongs[name] = asyncio.get_running_loop().create_future()
        began_s = time.perf_counter()
        try:
            if self.outbox.attached:
                self._line.say(Ping(context=self.name, id=name))
            done, _ = await asyncio.wait([pong], timeout=timeout_s)
            if not done:
                raise ConnectionLost(f"no answer to a ping within {timeout_s:g} s")
            pong.result()
        finally:
            del self._pongs[name]
        return (time.perf_counter() - began_s) * 1000

    async def close(self) -> None:
        """End the session: in order if there is a socket, else at once. Twice does no harm."""
        self.queue.lift_limit()
        if not self._ready.done():
            # The server may still be about to open it.
            self._line.say(SessionClose(context=self.name))
        try:
            if self.outbox.attached and not self._closing:
                self._closing = True
                self.outbox.put(SessionClose(context=self.name))
                self._line.wake()
            if self.outbox.attached:
                await asyncio.wait([self._over], timeout=self._settings.close_timeout_s)
        finally:
            self.finish(ConnectionLost("the dialogue was closed here"), expected=True)

    async def take(self, event: ServerMessage | AudioFrame, protocol: ClientConnection) -> None:
        """What the server says to this dialogue. Raises ProtocolError for what can't be."""
        if isinstance(event, AudioFrame):
            turn = self._turn_of_index[event.turn_index]
            heard = audio_event(event, self.name, turn, self.ready.audio.sample_rate, self._decoder)
            decoded_bytes = 0 if heard.decoded is None else heard.decoded.nbytes
            await self._keep(heard, _EVENT_BYTES + len(event.payload) + decoded_bytes)
        elif isinstance(event, SessionReady):
            self._open(event, protocol)
        elif isinstance(event, Pong):
            self._take_pong(event)
        elif isinstance(event, Error) and not self.outbox.attached:
            self.fail(DialogueError.of(event))
        else:
            if isinstance(event, TurnStarted):
                self._turn_of_index[event.index] = event.turn
            elif isinstance(event, TurnCompleted):
                self._turn_of_index.pop(event.index, None)
            self.live.note(event, protocol.context(self.name))
            await self._keep(event, _EVENT_BYTES)
            if isinstance(event, SessionClosed):
                self.finish(ConnectionLost(f"the session is closed ({event.reason})"), expected=True)

    def lose(self, protocol: ClientConnection, lost: ConnectionLost) -> None:
        """The socket is gone: wait for another, or end."""
        self.outbox.detach()
        self._context = protocol.release(self.name)
        if self._closing:
            self.finish(lost, expected=True)
        elif not self._resume or self._token is None or self._context is None:
            self.finish(lost)
        else:
            self.lost_by = str(lost)
            if self.lost_at_s is None:
                self.lost_at_s = time.monotonic()

    def deadline_s(self) -> float:
        """Until when, by the steady clock, the server keeps a lost session."""
        assert self.lost_at_s is not None
        return self.lost_at_s + self.ready.limits.resume_grace_ms / 1000

    def reconnecting(self, event: Reconnecting) -> None:
        """Tell the user what is being tried."""
        self.queue.put_now(event, _EVENT_BYTES)

    def resume(self, protocol: ClientConnection) -> str:
        """The encoded session.start that goes on with a lost session."""
        assert self._context is not None and self._token is not None
        return protocol.resume(self.name, self._context, self._token)

    def fail(self, failure: ClientError) -> None:
        """End by a fault; of a session that was lost, the loss is told as well."""
        if self.lost_at_s is not None and not isinstance(failure, ConnectionLost):
            failure = ConnectionLost(f"{self.lost_by}, and the session can't be resumed: {failure}")
        self.finish(failure)

    def finish(self, failure: ClientError, *, expected: bool = False) -> None:
        """Nothing more will come: who waits or asks for more gets `failure`, event readers if unexpected."""
        self.failure = self.failure or failure
        self.queue.end(None if expected else failure)
        self.outbox.end()
        self._line.forget(self)
        if not self._over.done():
            self._over.set_result(None)
        futures: list[asyncio.Future[SessionReady] | asyncio.Future[None]]
        futures = [self._ready, *self._pongs.values()]
        for waiting in futures:
            if not waiting.done():
                waiting.set_exception(failure)
                waiting.exception()  # marks it as seen: whoever waited may be gone

    def _open(self, ready: SessionReady, protocol: ClientConnection) -> None:
        self._token = ready.resume_token
        errors = self.outbox.attach(protocol, ready.received)
        if not self._ready.done():
            self._ready.set_result(ready)
        if self.lost_at_s is not None:
            lost_ms = round((time.monotonic() - self.lost_at_s) * 1000)
            self.lost_at_s = None
            self.queue.put_now(Resumed(lost_ms), _EVENT_BYTES)
        for error in errors:
            self.queue.put_now(error, _EVENT_BYTES)
        for name in self._pongs:
            self._line.say(Ping(context=self.name, id=name))
        self._line.wake()

    def _take_pong(self, pong: Pong) -> None:
        waiting = self._pongs.get(pong.id or "")
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
        else:
            self.outbox.take_receipt(pong.id)

    async def _keep(self, event: Event, size_bytes: int) -> None:
        """Queue an event. One dialogue alone may hold the server back for ever; others need the socket, too."""
        while not await self.queue.wait_room(self._settings.unread_patience_s):
            if self._line.shared:
                held = f"{self._settings.max_held_bytes} bytes of events"
                text = f"dialogue `{self.name}` left {held} unread for {self._settings.unread_patience_s:g} s"
                self._line.say(SessionClose(context=self.name))
                self.finish(EventsNotRead(f"{text}, which holds up the other dialogues of its connection"))
                return
        self.queue.put_now(event, size_bytes)
