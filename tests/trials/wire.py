"""A WebSocket client down to its bytes: what goes over the wire, and when it is read, is for the test to say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

from serving import WAIT_S
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from streamer.server import DialogueServer
from streamer_protocol import AudioFrame

# So little room on the way that a server feels at once when nobody reads.
NARROW_BYTES = 4096


class Wire:
    """A socket and the protocol beside it. ``messages``: what has come, JSON decoded and audio frames unpacked.

    ``silent``: pings are not answered.
    """

    def __init__(self, url: str) -> None:
        self.protocol = ClientProtocol(parse_uri(url), subprotocols=[Subprotocol("dialogue.v1")])
        self.socket = socket.socket()
        self.messages: list[dict[str, Any] | AudioFrame] = []
        self.ended = False
        self.silent = False
        self._open = False

    def request(self) -> bytes:
        """The bytes of the handshake."""
        self.protocol.send_request(self.protocol.connect())
        return b"".join(self.protocol.data_to_send())

    def frame(self, kind: str, **fields: Any) -> bytes:
        """The bytes of a message; all kinds of them may go together."""
        return self.text(json.dumps({"type": kind, **fields}).encode())

    def text(self, data: bytes) -> bytes:
        """The bytes of a text frame that holds whatever it may."""
        return Frame(Opcode.TEXT, data).serialize(mask=True)

    async def send(self, data: bytes, step_bytes: int = 2**20) -> None:
        """Write, so many bytes at a time; the server has a turn after each."""
        loop = asyncio.get_running_loop()
        for begin in range(0, len(data), step_bytes):
            await loop.sock_sendall(self.socket, data[begin : begin + step_bytes])
            await asyncio.sleep(0)

    async def read(self, step_bytes: int = 2**16) -> None:
        """Read once, so many bytes at most, and answer pings."""
        loop = asyncio.get_running_loop()
        data = await asyncio.wait_for(loop.sock_recv(self.socket, step_bytes), WAIT_S)
        if not data:
            self.ended = True
            return
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            if isinstance(event, Response):
                assert event.status_code == 101, event
                self._open = True
            elif isinstance(event, Frame):
                self._take(event)
        answer = b"".join(self.protocol.data_to_send())
        if answer and not self.silent:
            await loop.sock_sendall(self.socket, answer)

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT:
            self.messages.append(json.loads(bytes(frame.data)))
        elif frame.opcode is Opcode.BINARY:
            self.messages.append(AudioFrame.unpack(bytes(frame.data)))
        elif frame.opcode is Opcode.CLOSE:
            self.ended = True

    async def read_until_open(self) -> None:
        """Read the answer to the handshake."""
        while not self._open:
            await self.read()

    async def read_until(self, kind: str, step_bytes: int = 2**16) -> dict[str, Any]:
        """Read on until such a message comes, or has come since the last one that was waited for."""
        seen = len(self.messages)
        while True:
            for message in self.messages[seen:]:
                if isinstance(message, dict) and message["type"] == kind:
                    return message
            seen = len(self.messages)
            assert not self.ended, f"closed before {kind}"
            await self.read(step_bytes)

    @property
    def frames(self) -> list[AudioFrame]:
        return [message for message in self.messages if isinstance(message, AudioFrame)]

    @property
    def messages_after(self) -> int:
        """How many have come since the last audio frame, as a resuming client counts them."""
        n = 0
        for message in reversed(self.messages):
            if isinstance(message, AudioFrame):
                break
            n += message["type"] not in ("session.ready", "pong")
        return n

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """The messages of these types, in order."""
        return [m for m in self.messages if isinstance(m, dict) and m["type"] in kinds]


@contextlib.asynccontextmanager
async def connected(server: DialogueServer, *, narrow: bool = False) -> AsyncIterator[Wire]:
    """A TCP connection, nothing more."""
    wire = Wire(server.url)
    with wire.socket:
        if narrow:
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW_BYTES)
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.socket.setblocking(False)
        await asyncio.get_running_loop().sock_connect(wire.socket, ("127.0.0.1", server.port))
        yield wire


@contextlib.asynccontextmanager
async def opened(server: DialogueServer, *, narrow: bool = False) -> AsyncIterator[Wire]:
    """A WebSocket."""
    async with connected(server, narrow=narrow) as wire:
        await wire.send(wire.request())
        await wire.read_until_open()
        yield wire
