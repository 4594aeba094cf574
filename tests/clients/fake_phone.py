"""A phone company on loopback: a real WebSocket client that speaks as Twilio does, and a program that answers it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import websockets
from serving import WAIT_S
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection, serve

from streamer_client import Sampling
from streamer_client.twilio import CallEvent, PhoneLine, TurnHeard, bridge

STREAM = "MZ18ad3ab5a668481ce02b83e7395059f0"
SENTENCE = "The weather is so nice today, let us go for a walk."
GREEDY = Sampling(audio_temperature=0, text_temperature=0)
FORMAT = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
Program = Callable[[PhoneLine, CallEvent], Awaitable[object]]


class Switchboard:
    """Answers calls through the bridge. `program` is given every event; all that happened is kept."""

    def __init__(self, program: Program | None, options: dict[str, Any]) -> None:
        self.events: list[CallEvent] = []
        self.lines: list[PhoneLine] = []
        self.url = ""
        self._program = program
        self._options = options
        self._over = asyncio.Event()
        self._changed = asyncio.Event()

    async def answer(self, websocket: ServerConnection) -> None:
        """One call, to its end."""
        try:
            async with await bridge(websocket, **self._options) as line:
                self.lines.append(line)
                self._changed.set()
                async for event in line.events():
                    self.events.append(event)
                    self._changed.set()
                    if self._program is not None:
                        await self._program(line, event)
        finally:
            self._over.set()

    async def answered(self) -> PhoneLine:
        """Wait until the call can be spoken on."""
        while not self.lines:
            await self._change()
        return self.lines[0]

    async def heard(self, n: int) -> list[TurnHeard]:
        """Wait until so many turns are over for the caller."""
        while len(heard := [event for event in self.events if isinstance(event, TurnHeard)]) < n:
            await self._change()
        return heard

    async def _change(self) -> None:
        self._changed.clear()
        await asyncio.wait_for(self._changed.wait(), WAIT_S)

    async def over(self) -> list[CallEvent]:
        """Wait for the end of the call; everything that happened."""
        await asyncio.wait_for(self._over.wait(), WAIT_S)
        return self.events


@asynccontextmanager
async def switchboard(url: str, program: Program | None = None, **options: Any) -> AsyncIterator[Switchboard]:
    """A program that answers calls with a dialogue on the server at `url`."""
    board = Switchboard(program, {"url": url, "sampling": GREEDY, "seed": 1, **options})
    async with serve(board.answer, "127.0.0.1", 0, compression=None) as server:
        board.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        yield board


class Phone:
    """The far end of one call. It plays nothing by itself: marks come back when a test says so."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.log: list[dict[str, Any]] = []

    async def send(self, event: str, **body: Any) -> None:
        await self.socket.send(json.dumps({"event": event, "streamSid": STREAM, **body}))

    async def begin(self, **parameters: str) -> None:
        """`connected` and `start`."""
        await self.socket.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        await self.send("start", start=start_body(customParameters=parameters))

    async def press(self, digit: str) -> None:
        await self.send("dtmf", dtmf={"track": "inbound_track", "digit": digit})

    async def give_back(self, name: str) -> None:
        """All before this mark was played."""
        await self.send("mark", mark={"name": name})

    async def receive(self) -> dict[str, Any]:
        data = await asyncio.wait_for(self.socket.recv(), WAIT_S)
        assert isinstance(data, str), "Twilio refuses binary frames"
        message = json.loads(data)
        assert message["streamSid"] == STREAM
        self.log.append(message)
        return message

    async def until(self, event: str) -> dict[str, Any]:
        """The next message of this kind."""
        while True:
            message = await self.receive()
            if message["event"] == event:
                return message

    async def play(self) -> None:
        """Play all that comes, at once, until the call is over."""
        try:
            while True:
                await self.give_back((await self.until("mark"))["mark"]["name"])
        except websockets.ConnectionClosed:
            pass

    async def rest(self) -> list[dict[str, Any]]:
        """All that comes until the call is over."""
        before = len(self.log)
        try:
            while True:
                await self.receive()
        except websockets.ConnectionClosed:
            return self.log[before:]


def start_body(**fields: Any) -> dict[str, Any]:
    return {"accountSid": "AC1", "streamSid": STREAM, "callSid": "CA1", "mediaFormat": FORMAT, **fields}


def audio_of(messages: list[dict[str, Any]]) -> list[bytes]:
    """The mu-law payloads among the messages."""
    return [base64.b64decode(m["media"]["payload"], validate=True) for m in messages if m["event"] == "media"]


@asynccontextmanager
async def calling(board: Switchboard) -> AsyncIterator[Phone]:
    """A call that was not begun yet."""
    async with websockets.connect(board.url, compression=None) as socket:
        yield Phone(socket)
