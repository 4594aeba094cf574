"""`connect`, and the `Dialogue` it yields: one WebSocket, one context."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import cast

from websockets.asyncio.client import ClientConnection as Socket
from websockets.exceptions import ConnectionClosed

from streamer_client.audio import OpusDecoder
from streamer_client.errors import (
    ClientError,
    ConnectionLost,
    DialogueError,
    HandshakeError,
    ProtocolError,
)
from streamer_client.events import Event, audio_event
from streamer_client.opening import open_socket
from streamer_client.queue import ByteBoundedQueue
from streamer_protocol import (
    AudioFormat,
    AudioFrame,
    ClientConnection,
    ClientEvent,
    ClientMessage,
    Error,
    Mode,
    Ping,
    Pong,
    RemoteProtocolError,
    Sampling,
    ScriptAccepted,
    ScriptAppend,
    SessionClose,
    SessionClosed,
    SessionReady,
    SessionStart,
    Speaker,
    TurnCancel,
    TurnCompleted,
    TurnCreate,
    TurnStarted,
)

MAX_HELD_BYTES = 64 * 2**20  # about four hours of Opus; beyond it the socket is read no further
CLOSE_TIMEOUT_S = 5.0
_EVENT_BYTES = 200  # what an event costs besides its payload


@asynccontextmanager
async def connect(
    url: str,
    *,
    voices: Mapping[str, str] | None = None,
    audio: AudioFormat | None = None,
    mode: Mode = "turns",
    language: str | None = None,
    seed: int | None = None,
    sampling: Sampling | None = None,
    api_key: str | None = None,
    decode: bool = False,
    open_timeout_s: float = 30.0,
) -> AsyncIterator[Dialogue]:
    """Open a dialogue; leaving the block closes it.

    `url` may leave out scheme and path ("127.0.0.1:8000"). `decode` decodes Opus as it arrives, so that
    `Audio.pcm` is there. Raises HandshakeError if the server cannot be reached or refuses, DialogueError if
    it refuses the session (unknown voice, overloaded, ...), LocalProtocolError for an argument out of range,
    OpusUnavailable if `decode` needs a libopus that is not there.
    """
    start = SessionStart(
        voices=cast("dict[Speaker, str]", dict(voices or {})),  # `send` checks the names
        audio=audio or AudioFormat(),
        mode=mode,
        language=language,
        seed=seed,
        sampling=sampling or Sampling(),
    )
    protocol = ClientConnection()
    first = protocol.send(start)
    decoder = OpusDecoder(start.audio.sample_rate) if decode and start.audio.format == "opus" else None
    socket = await open_socket(url, api_key, open_timeout_s)
    dialogue = Dialogue(socket, protocol, decoder)
    try:
        await dialogue._open(first, open_timeout_s)
        yield dialogue
    finally:
        await dialogue.close()


class Dialogue:
    """An open dialogue; made by `connect`. All methods belong to the event loop it was opened in.

    A task of its own reads the socket, so pings are answered while nobody reads events. Events wait in a
    queue without limit of number; at 64 MiB the reader stops, and TCP holds the server back.
    """

    def __init__(self, socket: Socket, protocol: ClientConnection, decoder: OpusDecoder | None) -> None:
        self._socket = socket
        self._protocol = protocol
        self._decoder = decoder
        self._queue: ByteBoundedQueue[Event] = ByteBoundedQueue(MAX_HELD_BYTES)
        self._ready: asyncio.Future[SessionReady] = asyncio.get_running_loop().create_future()
        self._pongs: dict[str | None, asyncio.Future[None]] = {}
        self._numbers = itertools.count(1)
        self._turn_of_index: dict[int, str] = {}
        self._failure: ClientError | None = None
        self._ended = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._opened = False
        self._closing = False

    @property
    def ready(self) -> SessionReady:
        """What the server said when it opened the session: model, voices, audio format, limits."""
        return self._ready.result()

    async def say(self, text: str) -> AsyncIterator[Event]:
        """Speak a script ("[S1] Hello. [S2] Hi.") and yield events until all its turns are completed.

        Yields everything that arrives meanwhile, earlier turns included, so no audio is missed. Raises
        DialogueError if the server refuses the script or fails on one of its turns, ConnectionLost if it
        vanishes. Leaving the loop early stops nothing: call `cancel`.
        """
        script = f"s{next(self._numbers)}"
        await self._send(ScriptAppend(text=text, script=script))
        unfinished: set[str] | None = None
        while (event := await self._queue.get()) is not None:
            if isinstance(event, ScriptAccepted) and event.script == script:
                unfinished = {turn.turn for turn in event.turns}
            elif isinstance(event, TurnCompleted) and unfinished is not None:
                unfinished.discard(event.turn)
            elif isinstance(event, Error):
                # Before the answer to the script, an error without a name can only be that answer.
                own = event.turn in unfinished if unfinished is not None else event.turn in (script, None)
                if own:
                    raise DialogueError.of(event)
            yield event
            if unfinished is not None and not unfinished:
                return
        raise ConnectionLost("the session was closed before the script was spoken to its end")

    async def turn(self, speaker: Speaker, text: str) -> str:
        """Ask for one turn; returns its id. Its events come through `events`."""
        turn = f"t{next(self._numbers)}"
        await self._send(TurnCreate(turn=turn, speaker=speaker, text=text))
        return turn

    async def cancel(self, turn: str | None = None, played_ms: int | None = None) -> None:
        """Stop one turn, or all; `played_ms` counts all audio of the dialogue that the listener heard.

        Every cancelled turn still gets its `turn.completed`, with reason "cancelled".
        """
        await self._send(TurnCancel(turn=turn, played_ms=played_ms))

    async def events(self) -> AsyncIterator[Event]:
        """Everything that arrives, in order, until the session is closed; what is waiting comes first.

        Errors that are not fatal are yielded; a fatal one raises DialogueError, the loss of the connection
        ConnectionLost, both after the last event. Only one task may read at a time.
        """
        while (event := await self._queue.get()) is not None:
            yield event

    async def ping(self, timeout_s: float = 10.0) -> float:
        """Round trip through the server in milliseconds. Raises ConnectionLost if no answer comes in time."""
        name = f"p{next(self._numbers)}"
        pong = self._pongs[name] = asyncio.get_running_loop().create_future()
        began_s = time.perf_counter()
        try:
            await self._send(Ping(id=name))
            await asyncio.wait_for(pong, timeout_s)
        except asyncio.TimeoutError as error:
            raise ConnectionLost(f"no answer to a ping within {timeout_s:g} s") from error
        finally:
            del self._pongs[name]
        return (time.perf_counter() - began_s) * 1000

    async def close(self) -> None:
        """End the session and the connection. What is still being spoken is cancelled; safe to call twice."""
        self._queue.lift_limit()
        if self._opened and not self._closing and not self._ended.is_set():
            self._closing = True
            with suppress(ClientError, asyncio.TimeoutError):
                await self._send(SessionClose())
                await asyncio.wait_for(self._ended.wait(), CLOSE_TIMEOUT_S)
        await self._socket.close()
        if self._reader is not None:
            await self._reader

    async def _open(self, first: str, timeout_s: float) -> None:
        """Send the encoded session.start and wait for the answer."""
        self._reader = asyncio.create_task(self._read())
        await self._send_text(first)
        try:
            await asyncio.wait_for(self._ready, timeout_s)
        except asyncio.TimeoutError as error:
            raise HandshakeError(f"the server opened no session within {timeout_s:g} s") from error

    async def _send(self, message: ClientMessage) -> None:
        if self._failure is not None:
            raise self._failure
        await self._send_text(self._protocol.send(message))

    async def _send_text(self, text: str) -> None:
        try:
            await self._socket.send(text)
        except ConnectionClosed as error:
            raise self._failure or _connection_lost(error) from error

    async def _read(self) -> None:
        """The reader task: until the connection ends, one way or another."""
        failure: ClientError = ConnectionLost("the client's reader failed")
        protocol = self._protocol
        try:
            while True:
                data = await self._socket.recv()
                events = protocol.receive_text(data) if isinstance(data, str) else protocol.receive_binary(data)
                for event in events:
                    await self._take(event)
        except ConnectionClosed as error:
            failure = _connection_lost(error)
        except ClientError as error:
            failure = error
        finally:
            self._finish(failure)
        await self._socket.close(1002 if isinstance(failure, ProtocolError) else 1000)

    async def _take(self, event: ClientEvent) -> None:
        """Route one event; raises ClientError to end the connection."""
        if isinstance(event, RemoteProtocolError):
            raise ProtocolError(f"the server broke the protocol: {event}")
        if isinstance(event, AudioFrame):
            await self._take_audio(event)
        elif isinstance(event, SessionReady):
            self._opened = True
            if not self._ready.done():
                self._ready.set_result(event)
        elif isinstance(event, Pong):
            pong = self._pongs.get(event.id)
            if pong is not None and not pong.done():
                pong.set_result(None)
        elif isinstance(event, Error) and (event.fatal or not self._opened):
            raise DialogueError.of(event)
        else:
            if isinstance(event, TurnStarted):
                self._turn_of_index[event.index] = event.turn
            elif isinstance(event, TurnCompleted):
                self._turn_of_index.pop(event.index, None)
            await self._queue.put(event, _EVENT_BYTES)
            if isinstance(event, SessionClosed):
                self._finish(ConnectionLost(f"the session is closed ({event.reason})"), expected=True)

    async def _take_audio(self, frame: AudioFrame) -> None:
        context = self._protocol.context_of(frame) or ""
        turn = self._turn_of_index[frame.turn_index]
        event = audio_event(frame, context, turn, self.ready.audio.sample_rate, self._decoder)
        held = _EVENT_BYTES + len(frame.payload) + (0 if event.decoded is None else event.decoded.nbytes)
        await self._queue.put(event, held)

    def _finish(self, failure: ClientError, *, expected: bool = False) -> None:
        """Nothing more will come: who waits or asks for more gets `failure`, event readers if unexpected."""
        self._failure = self._failure or failure
        self._queue.end(None if expected else failure)
        self._ended.set()
        futures: list[asyncio.Future[SessionReady] | asyncio.Future[None]]
        futures = [self._ready, *self._pongs.values()]
        for waiting in futures:
            if not waiting.done():
                waiting.set_exception(failure)
                waiting.exception()  # marks it as seen: whoever waited may be gone


def _connection_lost(error: ConnectionClosed) -> ConnectionLost:
    if error.rcvd is None:
        return ConnectionLost("the server vanished: the connection broke without a closing handshake")
    said = f"{error.rcvd.code} {error.rcvd.reason}".strip()
    return ConnectionLost(f"the server closed the connection ({said})")
