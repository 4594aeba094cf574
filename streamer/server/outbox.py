"""What a session sends: in order, on whatever socket it is attached to, and again on the next if it was lost."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from streamer.performance import ListenerGone
from streamer_protocol import HEADER_BYTES, AudioFrame, Context, Error, ServerMessage, close_code, pack

# After so much, the client is asked whether it has it all.
_ASK_BYTES = 32 * 2**10
# Who lets this many times ``replay_bytes`` pile up, and still asks for more, gives no receipts.
_MOST_HELD = 2
_NO_RECEIPTS_CLOSE_CODE = 1008
_FRAME_NUMBER = struct.Struct("<I")
_FRAME_NUMBER_OFFSET = HEADER_BYTES - _FRAME_NUMBER.size


class Link(Protocol):
    """The socket that a session is attached to. Both calls raise ListenerGone when nobody is there."""

    async def write(self, data: str | bytes) -> None:
        """One text or binary frame; waits while the reader is behind."""

    async def ask_receipt(self, handle: int, position: int) -> None:
        """Find out, without waiting, when the client has all that was written so far."""

    async def abort(self, code: int) -> None:
        """Close the socket after a fatal error."""

    def left(self, name: str, *, taken: bool) -> None:
        """The session of this context has ended, or was taken by another socket."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """A place in what was sent: the last audio frame before it, and how many messages came after that."""

    frame: int | None
    messages_after: int

    def after(self, data: str | bytes) -> _Mark:
        if isinstance(data, bytes):
            return _Mark(_FRAME_NUMBER.unpack_from(data, _FRAME_NUMBER_OFFSET)[0], 0)
        return _Mark(self.frame, self.messages_after + 1)


class NotHeld(LookupError):
    """What a client asks to be sent again is not there."""


class Outbox:
    """The messages and audio frames of one session, numbered from 0 by their position.

    They are kept until :meth:`acknowledge`, ``replay_bytes`` at most: then senders wait. With ``replay_bytes`` 0
    nothing is kept, and a lost socket is the end. All methods belong to one event loop.
    """

    def __init__(self, context: Context, handle: int, replay_bytes: int) -> None:
        self.context = context
        self.link: Link | None = None
        self._handle = handle
        self._replay_bytes = replay_bytes
        self._log: deque[str | bytes] = deque()
        self._acknowledged = _Mark(None, 0)
        self._first = 0
        self._next = 0
        self._held_bytes = 0
        self._unasked_bytes = 0
        self._ask_bytes = min(_ASK_BYTES, replay_bytes)
        self._ended = False
        self._writing = asyncio.Lock()
        self._attached = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def held_bytes(self) -> int:
        """What is kept for the client, should it have to come again."""
        return self._held_bytes

    async def send(self, message: ServerMessage | AudioFrame, *, refusal: bool = False, patient: bool = True) -> None:
        """Take the next message, and return when it is written; waits while there is no socket or no room.

        Not ``patient``: without a socket it is left to the next one, and room is not waited for. That is for who
        reads the socket: receipts come by reading, and so does the news that the socket is gone.
        Raises ListenerGone when it will never be written, LocalProtocolError for what does not fit the session's state.
        """
        while patient and not self._room.is_set():
            await self._room.wait()
        if self._ended and self.link is None:
            raise ListenerGone
        data = pack(self.context, message, refusal=refusal)
        self._log.append(data)
        self._held_bytes += len(data)
        if self._replay_bytes and self._held_bytes > self._replay_bytes and not self._ended:
            self._room.clear()
        position = self._first + len(self._log)
        if self.link is not None and self._next == position - 1 and not self._writing.locked():
            # Nobody is before it: the usual case, which is to cost little.
            await self._write_next(self.link)
        else:
            await self._flush(position, patient=patient)
        if self.link is None:
            return
        if isinstance(message, Error) and message.fatal:
            await self.link.abort(close_code(message))
        elif not patient and self._held_bytes - len(data) > _MOST_HELD * self._replay_bytes > 0:
            await self.link.abort(_NO_RECEIPTS_CLOSE_CODE)

    async def flush(self) -> None:
        """Write what is not written yet."""
        await self._flush(self._first + len(self._log), patient=True)

    def attach(self, link: Link, position: int | None = None) -> None:
        """Write to this socket from now on, beginning with what stands at ``position`` (None: with what comes next)."""
        self.link = link
        if position is not None:
            self.acknowledge(position)
            self._next = position
        self._attached.set()

    def detach(self) -> None:
        """There is no socket; who sends waits."""
        self.link = None
        self._attached.clear()
        if self._ended or not self._replay_bytes:
            self.end()

    def end(self) -> None:
        """No other socket will come: who waits for one, now or later, gets ListenerGone."""
        self._ended = True
        self._attached.set()
        self._room.set()

    def acknowledge(self, position: int) -> None:
        """The client has everything before ``position``."""
        for _ in range(min(position, self._next) - self._first):
            data = self._log.popleft()
            self._acknowledged = self._acknowledged.after(data)
            self._held_bytes -= len(data)
            self._first += 1
        if self._held_bytes <= self._replay_bytes:
            self._room.set()

    def position_after(self, last_frame: int | None, messages_after: int) -> int:
        """Where to go on for a client that has ``last_frame`` and so many messages after it.

        Raises NotHeld for what was never sent, or is known to have arrived already.
        """
        mark = self._acknowledged
        for position, data in enumerate((*self._log, None), start=self._first):
            if mark.frame == last_frame and mark.messages_after >= messages_after:
                return position
            if data is not None:
                mark = mark.after(data)
        raise NotHeld(f"nothing is held that follows audio frame {last_frame} and {messages_after} messages")

    async def _flush(self, position: int, *, patient: bool) -> None:
        while self._next < position:
            if self.link is None:
                if self._ended:
                    raise ListenerGone
                if not patient:
                    return
                # Not under the lock: others may have no patience.
                await self._attached.wait()
                continue
            async with self._writing:
                link = self.link
                if link is not None and self._next < position:
                    await self._write_next(link)

    async def _write_next(self, link: Link) -> None:
        data = self._log[self._next - self._first]
        # Counted before the wait: who is broken off while waiting has written all the same.
        self._next += 1
        try:
            await link.write(data)
            if not self._replay_bytes:
                self.acknowledge(self._next)
                return
            self._unasked_bytes += len(data)
            if self._unasked_bytes >= self._ask_bytes:
                self._unasked_bytes = 0
                await link.ask_receipt(self._handle, self._next)
        except ListenerGone:
            if self.link is link:
                self.detach()
