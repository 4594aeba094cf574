"""Connections to the server: one for the conversation, and another for a while when that one is busy."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress

from livekit.agents.utils import ConnectionPool

from streamer_client.dialogue import Dialogue
from streamer_client.errors import ClientError, ConnectionLost, HandshakeError
from streamer_client.events import Audio, Event, Reconnecting
from streamer_protocol import LocalProtocolError, SessionClosed, TurnTruncated

_log = logging.getLogger(__name__)

Opener = Callable[[float], AbstractAsyncContextManager[Dialogue]]  # takes the time it may take, in seconds


class Listener:
    """The events of one turn, for whoever speaks it."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[Event | Exception] = asyncio.Queue()

    def put(self, event: Event | Exception) -> None:
        """The next event, or what ends them."""
        self._arrived.put_nowait(event)

    async def next(self) -> Event:
        """The next event; raises what ended them."""
        event = await self._arrived.get()
        if isinstance(event, Exception):
            raise event
        return event


class Line:
    """One connection with one dialogue, read by itself; events go to the listeners of their turns.

    `sick`: it answers too late, and is not to be used again. `closing`: somebody sees to its end.
    """

    def __init__(self, dialogue: Dialogue, stack: AsyncExitStack, on_end: Callable[[Line], None]) -> None:
        self.dialogue = dialogue
        self.sick = False
        self.closing = False
        self._stack = stack
        self._on_end = on_end
        self._listeners: dict[str, Listener] = {}
        self._kept_ms: defaultdict[str, float] = defaultdict(float)  # by turn, in order: what counts as heard
        self._ended: Exception | None = None
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, opener: Opener, timeout_s: float, on_end: Callable[[Line], None]) -> Line:
        """Connect. Raises ClientError."""
        async with AsyncExitStack() as stack:
            dialogue = await stack.enter_async_context(opener(timeout_s))
            return cls(dialogue, stack.pop_all(), on_end)

    def listen(self, turn: str) -> Listener:
        """Give the events of this turn to a listener, from now until `leave`."""
        listener = self._listeners[turn] = Listener()
        if self._ended is not None:
            listener.put(self._ended)
        return listener

    def leave(self, turn: str) -> None:
        """What else comes of this turn is thrown away."""
        self._listeners.pop(turn, None)

    async def cancel(self, turn: str) -> None:
        """Stop a turn. What was sent of it counts as heard, until `heard` says otherwise."""
        await self._tell(self.dialogue.cancel(turn))

    async def heard(self, turn: str, heard_ms: float, *, interrupted: bool) -> None:
        """The listener's report: so much of the turn was heard; all that there will be, if `interrupted`."""
        before_ms = 0.0
        for name, kept_ms in self._kept_ms.items():
            if name == turn:
                break
            before_ms += kept_ms
        played_ms = round(before_ms + heard_ms)
        if interrupted:
            await self._tell(self.dialogue.cancel(turn, played_ms=played_ms))
        else:
            await self._tell(self.dialogue.played(played_ms))

    async def close(self) -> None:
        """End the dialogue and the connection."""
        try:
            await self._stack.aclose()
        finally:
            # The end of the dialogue is the end of its events.
            await asyncio.wait([self._reader])

    async def _tell(self, message: Awaitable[None]) -> None:
        """Send what comes to nothing if the dialogue has ended, or does not know the turn."""
        with suppress(ClientError, LocalProtocolError):
            await message

    async def _read(self) -> None:
        ended: Exception = ConnectionLost("the dialogue has ended")
        try:
            async for event in self.dialogue.events():
                if isinstance(event, SessionClosed):
                    ended = ConnectionLost(f"the server closed the session ({event.reason})")
                self._take(event)
        except ClientError as error:
            ended = error
        finally:
            self._ended = ended
            for listener in self._listeners.values():
                listener.put(ended)
            self._on_end(self)

    def _take(self, event: Event) -> None:
        if isinstance(event, Audio):
            self._kept_ms[event.turn] += event.duration_ms
        elif isinstance(event, TurnTruncated):
            self._kept_ms[event.turn] = event.heard_ms
        elif isinstance(event, Reconnecting):
            _log.warning("%s; attempt %d to reconnect", event.reason, event.attempt)
        listener = self._listeners.get(getattr(event, "turn", None) or "")
        if listener is not None:
            listener.put(event)


class Lines:
    """Leases lines. The first is the conversation's and is kept, so that each turn follows from those before.

    A turn that comes while it is busy gets a line of its own, which is closed afterwards.
    """

    def __init__(self, opener: Callable[[], Opener]) -> None:
        self.model = "unknown"
        self._opener = opener
        self._pool: ConnectionPool[Line] = ConnectionPool(connect_cb=self._connect, close_cb=self._close)
        self._home: Line | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    @asynccontextmanager
    async def lease(self, timeout_s: float) -> AsyncIterator[tuple[Line, float, bool]]:
        """A line for one speech, the seconds it took to get it, and whether it was there. Raises ClientError."""
        line = await self._pool.get(timeout=timeout_s)
        try:
            yield line, self._pool.last_acquire_time, self._pool.last_connection_reused
        finally:
            if line is self._home and not line.sick:
                self._pool.put(line)
            else:
                self._drop(line)

    def prewarm(self) -> None:
        """Connect in the background."""
        self._pool.prewarm()

    def invalidate(self) -> None:
        """The next lease gets a new line; those that speak go on to their end."""
        self._pool.invalidate()
        self._home = None

    async def aclose(self) -> None:
        """Close all lines, and open no more: who speaks must not come back by trying again."""
        self._closed = True
        await self._pool.aclose()
        while self._closing:
            await asyncio.wait(self._closing)

    async def _connect(self, timeout_s: float) -> Line:
        if self._closed:
            raise HandshakeError("the TTS was closed here")
        line = await Line.open(self._opener(), timeout_s, self._drop)
        self.model = line.dialogue.ready.model
        if self._home is None:
            self._home = line
        return line

    async def _close(self, line: Line) -> None:
        self._drop(line)

    def _drop(self, line: Line) -> None:
        """Close it in the background: the next speech must not wait for a server that does not answer."""
        if self._home is line:
            self._home = None
        self._pool.remove(line)
        if not line.closing:
            line.closing = True
            task = asyncio.create_task(line.close())
            self._closing.add(task)
            task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.warning("a connection was not closed in order: %s", task.exception())
