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
        self._room = asyncio.Event()
        self._room.set()
        self._reading = False
        self._ended = False
        self._error: ClientError | None = None

    async def put(self, item: Item, size_bytes: int) -> None:
        """Append; waits for room first."""
        await self._room.wait()
        self._items.append((item, size_bytes))
        self._held_bytes += size_bytes
        self._update_room()
        self._changed.set()

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
            self._update_room()
            return item
        if self._error is not None:
            raise self._error
        return None

    def end(self, error: ClientError | None = None) -> None:
        """Nothing more will come. Only the first call counts."""
        if not self._ended:
            self._ended, self._error = True, error
            self._changed.set()

    def lift_limit(self) -> None:
        """Stop holding the writer back."""
        self._max_bytes = None
        self._update_room()

    def _update_room(self) -> None:
        if self._max_bytes is None or self._held_bytes < self._max_bytes:
            self._room.set()
        else:
            self._room.clear()
