"""A WebSocket server that plays a script, for what a real server can hardly be made to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np
import opuslib_next
from websockets.asyncio.server import ServerConnection as Socket
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from streamer_protocol import (
    AudioFrame,
    AudioKind,
    Limits,
    Queued,
    ScriptAccepted,
    ScriptAppend,
    ScriptTurn,
    ServerConnection,
    ServerMessage,
    SessionClose,
    SessionClosed,
    SessionIdle,
    SessionReady,
    SessionStart,
    TurnCompleted,
    TurnStarted,
)

Kind = TypeVar("Kind")
Script = Callable[["Peer"], Awaitable[object]]


class Peer:
    """The server's end of one connection."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.protocol = ServerConnection()
        self.start = SessionStart()

    async def expect(self, kind: type[Kind]) -> Kind:
        """The next message, which must be of that type."""
        data = await self.socket.recv()
        (event,) = self.protocol.receive_text(data)
        assert isinstance(event, kind), event
        return event

    async def send(self, *messages: ServerMessage | AudioFrame) -> None:
        for message in messages:
            await self.socket.send(self.protocol.send(message))

    async def open(self, resume_token: str | None = None) -> None:
        self.start = await self.expect(SessionStart)
        await self.send(self.ready(resume_token=resume_token))

    def ready(self, **fields: Any) -> SessionReady:
        start = self.start
        told = {"session": "s", "handle": 7, "model": "tiny", "audio": start.audio, "voices": start.voices}
        return SessionReady(**{**told, "context": start.context, "limits": Limits(), **fields})

    async def resume(self, before: Peer, received: int) -> None:
        """Go on with the session of a connection that broke."""
        start = await self.expect(SessionStart)
        context = before.protocol.release(start.context)
        ready = before.ready(resume_token="next", resumed=True, received=received)
        await self.socket.send(self.protocol.adopt(context, ready))

    async def accept(self, turns: int = 1) -> list[str]:
        """Answer the next script; returns its turn ids."""
        script = (await self.expect(ScriptAppend)).script
        names = [f"{script}.{number}" for number in range(1, turns + 1)]
        parts = tuple(ScriptTurn(turn=name, speaker="S1", text="x") for name in names)
        await self.send(ScriptAccepted(script=script or "", turns=parts))
        return names

    async def finish(self) -> None:
        await self.expect(SessionClose)
        await self.send(SessionClosed(reason="client"))
        await self.socket.wait_closed()


@asynccontextmanager
async def serving(script: Script, **options: Any) -> AsyncIterator[str]:
    """The address of a server that plays `script` on each connection; its failed assertions fail the test."""
    failures: list[Exception] = []

    async def handle(socket: Socket) -> None:
        try:
            await script(Peer(socket))
        except ConnectionClosed:
            pass
        except Exception as error:
            failures.append(error)

    options = {"subprotocols": ["dialogue.v1"], "compression": None} | options
    async with serve(handle, "127.0.0.1", 0, **options) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
    if failures:
        raise failures[0]


def opus_packets(count: int) -> list[bytes]:
    encoder = opuslib_next.Encoder(24_000, 1, "audio")
    tone = (8_000 * np.sin(np.arange(count * 1920) * 0.1)).astype("<i2").reshape(count, 1920)
    return [encoder.encode(frame.tobytes(), 1920) for frame in tone]


PACKETS = opus_packets(4)


def started(turn: str, index: int = 0, first_frame: int = 0) -> TurnStarted:
    return TurnStarted(turn=turn, index=index, speaker="S1", first_frame=first_frame)


def audio(frame: int, turn_index: int = 0, last: bool = False, payload: bytes = b"") -> AudioFrame:
    payload = payload or PACKETS[frame % len(PACKETS)]
    return AudioFrame(handle=7, turn_index=turn_index, frame=frame, kind=AudioKind.OPUS, last=last, payload=payload)


def completed(turn: str, index: int = 0, reason: Any = "end") -> TurnCompleted:
    return TurnCompleted(turn=turn, index=index, frames=1, audio_ms=80, ttfa_ms=1.0, rtf=0.1, reason=reason)


async def speak(peer: Peer) -> None:
    """A whole, faultless dialogue of one script with two turns."""
    await peer.open()
    first, second = await peer.accept(turns=2)
    await peer.send(Queued(turn=second, position=0), started(first), audio(0), audio(1, last=True))
    await peer.send(completed(first), started(second, 1, 2), audio(2, 1, last=True), completed(second, 1))
    await peer.send(SessionIdle())
    await peer.finish()
