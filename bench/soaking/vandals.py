"""Clients that are slow, broken or hostile. What they get is their own affair; what they leave behind is not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import websockets
from websockets.asyncio.client import ClientConnection as Socket

from bench.soaking.grammar import frame
from bench.soaking.guests import SCRIPT, TEXT
from bench.soaking.relay import Relay, reset
from bench.soaking.tally import Tally
from bench.soaking.target import Target
from streamer_protocol import HEADER_BYTES, Error, RemoteProtocolError
from streamer_protocol.parsing import parse_server

LONG_STOP_S = 60.0
_PATIENCE_S = 90.0
_FUZZ_MESSAGES = 300
_FUZZ_DAMAGED = 0.3
_UPGRADE = (
    "GET /v1/dialogue HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
# Frames that no WebSocket client may send: unmasked, reserved bits, an opcode of nobody's, 2**62 bytes, a lone end.
_BROKEN_FRAMES = (
    b"\x81\x02hi",
    b"\xf1\x80\0\0\0\0",
    b"\x83\x80\0\0\0\0",
    b"\x81\xff" + struct.pack(">Q", 2**62) + b"\0\0\0\0abc",
    b"\x80\x80\0\0\0\0",
    b"\x88\x83\0\0\0\0\x03\xe7x",
)
Life = Callable[[random.Random], Awaitable[None]]


class Vandals:
    """One life at a time by :meth:`live`; each picks its kind by its dice."""

    def __init__(self, target: Target, tally: Tally) -> None:
        self._target = target
        self._tally = tally
        self._lives: dict[str, Life] = {
            "sends nothing": self._mute,
            "half a handshake": self._half_handshake,
            "opens no session": self._no_session,
            "garbage for a request": self._garbage,
            "broken frames": self._broken_frames,
            "vanishes": self._vanish,
            "half-closes": self._half_close,
            "cancels and vanishes": self._cancel,
            "stops reading": self._stop,
            "reads slowly": self._read_slowly,
            "fuzzes": self._fuzz,
            "fuzzes on": self._fuzz,
            "floods": self._flood,
            "false tokens": self._false_tokens,
            "leaves HTTP": self._leave_http,
        }

    async def live(self, dice: random.Random, *, long_stop: bool = False) -> None:
        """Come, misbehave, be gone. ``long_stop``: the one who stops reading for a minute."""
        kind = "stops reading for 60 s" if long_stop else dice.choice([*self._lives])
        life = self._stop_long if long_stop else self._lives[kind]
        self._tally.connects += 1
        try:
            await asyncio.wait_for(life(dice), _PATIENCE_S)
        except asyncio.TimeoutError:
            self._tally.problem(f"a vandal ({kind}) was held for {_PATIENCE_S:g} s")
        except (OSError, EOFError, aiohttp.ClientError, websockets.WebSocketException):
            # Thrown out, as it should be.
            pass
        self._tally.disconnects[kind] += 1

    @contextlib.asynccontextmanager
    async def _tcp(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(self._target.host, self._target.port)
        try:
            yield reader, writer
        finally:
            reset(writer)

    @contextlib.asynccontextmanager
    async def _session(self, dice: random.Random, *, url: str = "", **start: Any) -> AsyncIterator[Socket]:
        """A session that has begun; left without a good-bye."""
        options: dict[str, Any] = {"ping_interval": None, "max_queue": 4, "compression": None, "open_timeout": 60}
        socket = await websockets.connect(url or self._target.url, **options)
        try:
            audio = dice.choice([{"format": "opus"}, {"format": "pcm_s16le", "sample_rate": 48000}])
            await self._say(socket, "session.start", audio=audio, seed=dice.randrange(1000), **start)
            yield socket
        finally:
            socket.transport.abort()

    async def _say(self, socket: Socket, kind: str, **fields: Any) -> None:
        self._tally.sent += 1
        await socket.send(json.dumps({"type": kind, **fields}))

    async def _hear(self, socket: Socket, n: int) -> None:
        """So many messages or frames; each is one that the protocol has."""
        for _ in range(n):
            data = await socket.recv()
            if isinstance(data, bytes):
                self._tally.frames += 1
                if len(data) <= HEADER_BYTES:
                    self._tally.problem("an audio frame without audio")
                continue
            self._tally.received += 1
            message = parse_server(data)
            if isinstance(message, RemoteProtocolError):
                self._tally.problem(f"the server said what is no message: {message}")
            elif isinstance(message, Error):
                self._tally.refusals[message.code] += 1
                if message.code == "internal":
                    self._tally.problem(f"a vandal was told internal: {message.message}")

    async def _wait_end(self, reader: asyncio.StreamReader) -> None:
        while await reader.read(2**16):
            pass

    async def _mute(self, dice: random.Random) -> None:
        async with self._tcp() as (reader, _):
            if dice.random() < 0.5:
                await self._wait_end(reader)

    async def _half_handshake(self, dice: random.Random) -> None:
        async with self._tcp() as (reader, writer):
            request = _UPGRADE.format(host=self._target.host).encode()
            writer.write(request[: dice.randrange(1, len(request) - 1)])
            if dice.random() < 0.5:
                await self._wait_end(reader)

    async def _no_session(self, dice: random.Random) -> None:
        async with self._tcp() as (reader, writer):
            writer.write(_UPGRADE.format(host=self._target.host).encode())
            await self._wait_end(reader)

    async def _garbage(self, dice: random.Random) -> None:
        async with self._tcp() as (reader, writer):
            writer.write(dice.randbytes(dice.randrange(1, 5000)))
            if dice.random() < 0.5:
                writer.write_eof()
            await self._wait_end(reader)

    async def _broken_frames(self, dice: random.Random) -> None:
        async with self._tcp() as (reader, writer):
            writer.write(_UPGRADE.format(host=self._target.host).encode())
            await reader.readuntil(b"\r\n\r\n")
            writer.write(dice.choice(_BROKEN_FRAMES))
            await self._wait_end(reader)

    async def _vanish(self, dice: random.Random) -> None:
        async with self._session(dice) as socket:
            await self._say(socket, "script.append", text=SCRIPT)
            await self._hear(socket, dice.randrange(12))

    async def _half_close(self, dice: random.Random) -> None:
        async with Relay(self._target.host, self._target.port) as relay:
            async with self._session(dice, url=f"ws://127.0.0.1:{relay.port}/v1/dialogue") as socket:
                await self._say(socket, "turn.create", turn="x", speaker="S1", text=TEXT)
                await self._hear(socket, dice.randrange(6))
                socket.transport.write_eof()
                await self._hear(socket, 10_000)

    async def _cancel(self, dice: random.Random) -> None:
        async with self._session(dice) as socket:
            for i in range(dice.randrange(1, 5)):
                await self._say(socket, "turn.append", turn=f"t{i}", speaker="S1", text=TEXT)
                await self._hear(socket, dice.randrange(4))
                await self._say(socket, "turn.cancel", played_ms=dice.randrange(2000))

    async def _stop(self, dice: random.Random) -> None:
        async with self._session(dice) as socket:
            for i in range(8):
                await self._say(socket, "turn.create", turn=f"t{i}", speaker="S1", text=TEXT)
            await asyncio.sleep(dice.uniform(0.5, 8.0))
            await self._hear(socket, dice.choice([0, 20, 200]))

    async def _stop_long(self, dice: random.Random) -> None:
        """A minute without reading; whether the connection is still there afterwards goes into the report."""
        async with self._session(dice) as socket:
            for i in range(32):
                await self._say(socket, "turn.create", turn=f"t{i}", speaker="S1", text=TEXT)
            await asyncio.sleep(LONG_STOP_S)
            try:
                await self._hear(socket, 5000)
            finally:
                outcome = "closed by the server" if socket.close_code is not None else "read on"
                self._tally.disconnects[f"(after 60 s: {outcome})"] += 1

    async def _read_slowly(self, dice: random.Random) -> None:
        async with self._session(dice) as socket:
            await self._say(socket, "script.append", text=SCRIPT)
            for _ in range(dice.randrange(5, 40)):
                await self._hear(socket, 1)
                await asyncio.sleep(0.1)

    async def _fuzz(self, dice: random.Random) -> None:
        """Messages by the grammar, and a ping at the end: what was sent before it has been answered when that is."""
        async with self._session(dice) as socket:
            reading = asyncio.create_task(self._hear(socket, 10**9))
            try:
                for _ in range(_FUZZ_MESSAGES):
                    data = frame(dice, _FUZZ_DAMAGED)
                    self._tally.sent += 1
                    await socket.send(data, text=dice.random() > 0.02)
                await self._say(socket, "turn.cancel")
                await self._say(socket, "session.close")
                await asyncio.wait([reading], timeout=dice.choice([0, 1, 5]))
            finally:
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError, websockets.ConnectionClosed):
                    await reading

    async def _flood(self, dice: random.Random) -> None:
        async with self._session(dice) as socket:
            n = dice.randrange(100, 800)
            for i in range(n):
                await self._say(socket, "ping", id=f"p{i}")
            await self._hear(socket, n + 1)
            await socket.close()

    async def _false_tokens(self, dice: random.Random) -> None:
        options: dict[str, Any] = {"ping_interval": None, "compression": None}
        async with websockets.connect(self._target.url, **options) as socket:
            for _ in range(5):
                token = dice.randbytes(dice.randrange(1, 90)).hex()
                await self._say(socket, "session.start", resume=token, last_frame=dice.randrange(2**32))
                await self._hear(socket, 1)

    async def _leave_http(self, dice: random.Random) -> None:
        body = json.dumps({"model": "any", "input": TEXT * 3, "voice": self._target.voice, "response_format": "pcm"})
        head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: {self._target.host}\r\nContent-Type: application/json\r\n"
        async with self._tcp() as (reader, writer):
            request = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
            writer.write(request[: dice.choice([len(request), dice.randrange(len(request))])])
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(reader.read(dice.randrange(1, 50_000)), dice.random() * 2)
