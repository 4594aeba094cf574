"""The queue between the socket's reader and the user: bounded in bytes, never dropping anything."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

from streamer_client.errors import ClientError

Item = TypeVar("Item")


class ByteBoundedQueue(Generic[Item]):
    """One writer, one reader at a time, one event loop. `put` waits while `max_bytes` or more are held."""

    def __init__(self, max_bytes: int) -> None:
        self._items: deque[tuple[Item, int]] = deque()
        self._max_bytes: int | None = max_bytes
        self._held_bytes = 0
        self._changed = asyncio.Event()
        self._room: asyncio.Future[None] | None = None
        self._reading = False
        self._ended = False
        self._error: ClientError | None = None

    async def put(self, item: Item, size_bytes: int) -> None:
        """Append; waits for room first."""
        await self.wait_room()
        self.put_now(item, size_bytes)

    def put_now(self, item: Item, size_bytes: int) -> None:
        """Append, room or not. Comes to nothing once the queue has ended."""
        if not self._ended:
            self._items.append((item, size_bytes))
            self._held_bytes += size_bytes
            self._changed.set()

    async def wait_room(self, timeout_s: float | None = None) -> bool:
        """Whether there is room, having waited for it so long (None: for ever)."""
        while self._full:
            if self._room is None or self._room.done():
                self._room = asyncio.get_running_loop().create_future()
            done, _ = await asyncio.wait([self._room], timeout=timeout_s)
            if not done:
                return False
        return True

    async def get(self) -> Item | None:
        """The next item; None after the last one, or the error that the queue ended with.

        Raises ClientError if another task waits here already.
        """
        if self._reading:
            raise ClientError("the events are being read by another task; read them in one place")
        self._reading = True
        try:
            while not self._items and not self._ended:
                self._changed.clear()
                await self._changed.wait()
        finally:
            self._reading = False
        if self._items:
            item, size_bytes = self._items.popleft()
            self._held_bytes -= size_bytes
            self._tell_room()
            return item
        if self._error is not None:
            raise self._error
        return None

    def end(self, error: ClientError | None = None) -> None:
        """Nothing more will come. Only the first call counts."""
        if not self._ended:
            self._ended, self._error = True, error
            self._changed.set()
            self._tell_room()

    def lift_limit(self) -> None:
        """Stop holding the writer back."""
        self._max_bytes = None
        self._tell_room()

    @property
    def _full(self) -> bool:
        return not self._ended and self._max_bytes is not None and self._held_bytes >= self._max_bytes

    def _tell_room(self) -> None:
        if self._room is not None and not self._room.done() and not self._full:
            self._room.set_result(None)
