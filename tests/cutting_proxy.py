"""A TCP proxy on loopback that breaks connections on purpose: what networks do to a socket, at a chosen moment."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Literal

Direction = Literal["up", "down"]  # up: from the client to the server
BOTH: tuple[Direction, ...] = ("up", "down")

_CHUNK_BYTES = 2**16
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() throws away what is unsent and sends RST


class CuttingProxy:
    """Forwards bytes to `port` and counts them; everything else must be asked for.

    `async with CuttingProxy(server_port) as proxy:` listens on `proxy.port` (`proxy.url` for WebSocket clients).
    What is asked for holds for the connections of now; `stall`, `drop` and `cut_after` hold for later ones as well.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.port = 0
        self.accepted = 0  # connections that were forwarded
        self.refused = 0
        self.forwarded_bytes: dict[Direction, int] = {"up": 0, "down": 0}
        self._target = host, port
        self._refusals = 0
        self._limits: dict[Direction, int] = {}
        self._dropping: set[Direction] = set()
        self._flowing: dict[Direction, asyncio.Event] = {}
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The address of the proxy for a WebSocket client, without a path."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def live(self) -> int:
        """How many connections are being forwarded now."""
        return len(self._links)

    def cut(self) -> None:
        """Reset every connection, both ways; what is under way is lost."""
        for link in list(self._links):
            link.reset()

    def half_close(self, direction: Direction = "down") -> None:
        """End one direction in order (FIN); the other goes on."""
        for link in self._links:
            link.finish(direction)

    def stall(self, *directions: Direction) -> None:
        """Stop forwarding (both ways by default); the senders' buffers fill up."""
        for direction in directions or BOTH:
            self._flowing[direction].clear()

    def drop(self, *directions: Direction) -> None:
        """Read and throw away (both ways by default): to each end, the other looks dead."""
        self._dropping.update(directions or BOTH)

    def resume(self) -> None:
        """End `stall` and `drop`; of a connection that has lost bytes, only a cut is left to make."""
        self._dropping.clear()
        for flowing in self._flowing.values():
            flowing.set()

    def refuse(self, n: int) -> None:
        """Reset the next `n` connections as soon as they are made."""
        self._refusals = n

    def cut_after(self, *, up: int | None = None, down: int | None = None) -> None:
        """Cut when so many more bytes were forwarded in this direction; once, and whichever comes first."""
        wanted: tuple[tuple[Direction, int | None], ...] = (("up", up), ("down", down))
        self._limits = {direction: n_bytes for direction, n_bytes in wanted if n_bytes is not None}

    async def wait_accepted(self, n: int) -> None:
        """Return when `n` connections have been forwarded since the start."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.accepted >= n)

    async def wait_refused(self, n: int) -> None:
        """Return when `n` connections have been refused since the start."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.refused >= n)

    async def wait_live(self, n: int) -> None:
        """Return when exactly `n` connections are being forwarded."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.live == n)

    async def __aenter__(self) -> CuttingProxy:
        for direction in BOTH:
            self._flowing[direction] = asyncio.Event()
            self._flowing[direction].set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.resume()
        self.cut()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusals:
            self._refusals -= 1
            self.refused += 1
            await self._tell()
            _reset(writer)
            return
        try:
            ahead, onward = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        link = _Link(writer, onward)
        self._links.add(link)
        self.accepted += 1
        await self._tell()
        try:
            await asyncio.gather(self._pump(reader, link, "up"), self._pump(ahead, link, "down"))
        finally:
            link.reset() if link.broken else link.close()
            self._links.discard(link)
            await self._tell()

    async def _pump(self, reader: asyncio.StreamReader, link: _Link, direction: Direction) -> None:
        try:
            while data := await reader.read(_CHUNK_BYTES):
                await self._flowing[direction].wait()
                await self._forward(data, link, direction)
            await self._flowing[direction].wait()
            link.finish(direction)
        except ConnectionError:
            link.reset()

    async def _forward(self, data: bytes, link: _Link, direction: Direction) -> None:
        if direction in self._dropping or direction in link.finished:
            return
        limit_bytes = self._limits.get(direction)
        piece = data if limit_bytes is None else data[:limit_bytes]
        link.writers[direction].write(piece)
        self.forwarded_bytes[direction] += len(piece)
        if limit_bytes is not None and len(piece) == limit_bytes:
            self._limits.clear()
            link.reset()
            return
        if limit_bytes is not None:
            self._limits[direction] = limit_bytes - len(piece)
        await link.writers[direction].drain()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class _Link:
    """The two sockets of one forwarded connection."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.writers: dict[Direction, asyncio.StreamWriter] = {"up": server, "down": client}
        self.finished: set[Direction] = set()
        self.broken = False

    def finish(self, direction: Direction) -> None:
        if direction not in self.finished and not self.broken:
            self.finished.add(direction)
            with contextlib.suppress(OSError):
                self.writers[direction].write_eof()

    def reset(self) -> None:
        self.broken = True
        for writer in self.writers.values():
            _reset(writer)

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    found: socket.socket | None = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        if found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
