"""A TCP relay on loopback that resets its connections when asked to: what a train does to a phone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType

_CHUNK_BYTES = 2**16
# Closing throws away what is unsent, and says so to the peer.
_RESET = struct.pack("ii", 1, 0)


class Relay:
    """``async with Relay(host, port) as relay:`` listens on ``relay.port`` and forwards to the server, until cut."""

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self._target = host, port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def cut(self) -> None:
        """Reset every connection, both ways; new ones are taken."""
        for writer in self._writers:
            reset(writer)

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = {writer}
        try:
            ahead, onward = await asyncio.open_connection(*self._target)
            ends.add(onward)
            self._writers |= ends
            await asyncio.gather(_pump(reader, onward), _pump(ahead, writer))
        except OSError:
            pass
        finally:
            self._writers -= ends
            for end in ends:
                reset(end)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward up to the end, then end the other side too."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection without a word. Twice does no harm."""
    found: socket.socket | None = writer.get_extra_info("socket")
    if found is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
