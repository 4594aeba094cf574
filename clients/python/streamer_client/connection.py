"""`Connection`: one WebSocket at a time, and the dialogues on it, which outlive it."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from random import Random

from websockets.asyncio.client import ClientConnection as Socket
from websockets.exceptions import ConnectionClosed

from streamer_client.audio import OpusDecoder
from streamer_client.dialogue import Dialogue
from streamer_client.errors import ClientError, ConnectionLost, DialogueError, ProtocolError
from streamer_client.opening import Endpoint, open_socket
from streamer_client.reconnecting import Reconnector
from streamer_client.session import Session
from streamer_client.settings import ClientSettings
from streamer_client.starting import session_start
from streamer_protocol import (
    AudioFormat,
    AudioFrame,
    ClientConnection,
    ClientEvent,
    ClientMessage,
    Error,
    Mode,
    RemoteProtocolError,
    Sampling,
    SessionReady,
    SessionStart,
)

_CLOSED_HERE = "the connection was closed here"
_NORMAL, _PROTOCOL_ERROR, _INTERNAL_ERROR = 1000, 1002, 1011
# Closed by this end: not WebSocket, not UTF-8, too large.
_UNREADABLE = (_PROTOCOL_ERROR, 1007, 1009)


class Connection:
    """Several dialogues over one WebSocket; made by `open_connection`. Belongs to one event loop.

    When the socket is lost, each dialogue is resumed by itself over one new socket. A socket that was closed while
    there was no dialogue on it is replaced when the next one is opened.
    """

    def __init__(
        self, endpoint: Endpoint, settings: ClientSettings, *, resume: bool, random: Random, open_timeout_s: float
    ) -> None:
        self._endpoint = endpoint
        self._settings = settings
        self._resume = resume
        self._open_timeout_s = open_timeout_s
        self._reconnector = Reconnector(endpoint, settings, random)
        self._sessions: dict[str, Session] = {}
        self._numbers = itertools.count(1)
        self._protocol = ClientConnection()
        self._loose: deque[str] = deque()  # encoded, sent once, on this socket or never
        self._wake = asyncio.Event()
        self._socket: Socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()  # there is a socket, or the task has ended
        self._opening = asyncio.Lock()
        self._closed = False

    @asynccontextmanager
    async def dialogue(
        self,
        *,
        voices: Mapping[str, str] | None = None,
        audio: AudioFormat | None = None,
        mode: Mode = "turns",
        language: str | None = None,
        words: bool = False,
        seed: int | None = None,
        sampling: Sampling | None = None,
        decode: bool = False,
        name: str | None = None,
    ) -> AsyncIterator[Dialogue]:
        """Open a dialogue; leaving the block closes it. The arguments and errors are those of `connect`.

        `name` is the `context` of its events; left out, it is "main", then "dialogue-2" and so on. The server limits
        how many there are at once: `ready.limits.max_contexts`.
        """
        if name is None:
            number = next(self._numbers)
            name = "main" if number == 1 else f"dialogue-{number}"
        start = session_start(name, voices, audio, mode, language, words, seed, sampling)
        async with self.start(start, decode=decode) as dialogue:
            yield dialogue

    @asynccontextmanager
    async def start(self, start: SessionStart, *, decode: bool = False) -> AsyncIterator[Dialogue]:
        """As `dialogue`, from a ready-made `session.start`."""
        decoder = OpusDecoder(start.audio.sample_rate) if decode and start.audio.format == "opus" else None
        await self.connected()
        if start.context in self._sessions:
            raise ClientError(f"a dialogue named `{start.context}` is open on this connection")
        session = Session(self, start, decoder, self._settings, self._resume)
        self.say(start)
        self._sessions[start.context] = session
        try:
            await session.wait_ready(self._open_timeout_s)
            yield Dialogue(session)
        finally:
            await session.close()

    async def connected(self) -> None:
        """Return when there is a socket, opening one if need be. Raises HandshakeError."""
        async with self._opening:
            while self._socket is None:
                if self._closed:
                    raise ClientError(_CLOSED_HERE)
                if self._task is not None and not self._task.done():
                    await self._changed.wait()
                    continue
                socket = await open_socket(self._endpoint, self._open_timeout_s, self._settings.heartbeat_s)
                self._protocol = ClientConnection()
                self._loose.clear()
                self._task = asyncio.create_task(self._run(socket))
                self._socket = socket

    async def close(self) -> None:
        """Close every dialogue, and the socket. Twice does no harm."""
        self._closed = True
        try:
            await asyncio.gather(*(session.close() for session in list(self._sessions.values())))
            if self._socket is not None:
                await self._socket.close()
        finally:
            if self._socket is not None:
                self._socket.transport.abort()
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])
                if not self._task.cancelled():
                    self._task.result()

    @property
    def shared(self) -> bool:
        """Whether more than one dialogue is open."""
        return len(self._sessions) > 1

    def say(self, message: ClientMessage) -> None:
        """Send what is not sent again; comes to nothing without a socket."""
        if self._socket is not None:
            self._loose.append(self._protocol.send(message))
            self._wake.set()

    def wake(self) -> None:
        """Something waits in an outbox."""
        self._wake.set()

    def forget(self, session: Session) -> None:
        """The session has ended; with the last one, reconnecting ends."""
        if self._sessions.get(session.name) is session:
            del self._sessions[session.name]
        task = self._task
        if not self._sessions and self._socket is None and task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _run(self, socket: Socket) -> None:
        """Serve one socket after another, until there is none to be had or a fatal error."""
        failure: ClientError = ConnectionLost(_CLOSED_HERE)
        try:
            while True:
                lost = await self._serve(socket)
                socket = await self._come_back(lost)
        except ClientError as error:
            failure = error
        finally:
            self._fail(failure)
            self._changed.set()

    async def _serve(self, socket: Socket) -> ConnectionLost:
        """Read and write until the socket is lost, and say why it was. Raises ClientError for what ends all."""
        self._socket = socket
        self._changed.set()
        writer = asyncio.create_task(self._write(socket))
        try:
            while True:
                data = await socket.recv()
                receive = self._protocol.receive_text if isinstance(data, str) else self._protocol.receive_binary
                for event in receive(data):  # type: ignore[arg-type]
                    await self._take(event)
        except ConnectionClosed as error:
            return _connection_lost(error)
        except ClientError as error:
            # Who waits for an answer need not wait for the closing handshake as well.
            self._fail(error)
            await socket.close(_PROTOCOL_ERROR if isinstance(error, ProtocolError) else _NORMAL)
            raise
        finally:
            self._socket = None
            self._changed.clear()
            writer.cancel()
            socket.transport.abort()
            await asyncio.wait([writer])
            await socket.wait_closed()

    async def _come_back(self, lost: ConnectionLost) -> Socket:
        """A new socket, with each session about to be resumed on it. Raises ConnectionLost."""
        old, self._protocol = self._protocol, ClientConnection()
        self._loose.clear()
        for session in list(self._sessions.values()):
            session.lose(old, lost)
        socket = await self._reconnector.connect(lost, lambda: list(self._sessions.values()))
        for session in self._sessions.values():
            self._loose.append(session.resume(self._protocol))
        self._wake.set()
        return socket

    async def _write(self, socket: Socket) -> None:
        with suppress(ConnectionClosed):
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._loose:
                    await socket.send(self._loose.popleft())
                for session in list(self._sessions.values()):
                    await session.outbox.write(socket.send)

    async def _take(self, event: ClientEvent) -> None:
        """Route one event; raises ClientError to end the connection."""
        if isinstance(event, RemoteProtocolError):
            raise ProtocolError(f"the server broke the protocol: {event}")
        if isinstance(event, Error) and event.fatal:
            raise DialogueError.of(event)
        name = self._protocol.context_of(event) if isinstance(event, AudioFrame) else event.context
        # None is left of a dialogue that was given up here while the server still speaks to it.
        session = self._sessions.get(name or "")
        if session is not None:
            await session.take(event, self._protocol)
            self._reconnector.heard(progress=not isinstance(event, SessionReady))

    def _fail(self, failure: ClientError) -> None:
        for session in list(self._sessions.values()):
            session.fail(failure)


def _connection_lost(error: ConnectionClosed) -> ConnectionLost:
    """Why it ended. Raises ProtocolError if it was for what the server sent: it would send it again."""
    if error.sent is not None and error.sent.code in _UNREADABLE and not error.rcvd_then_sent:
        raise ProtocolError(f"the server broke the WebSocket protocol: {error.sent.code} {error.sent.reason}".rstrip())
    if error.rcvd is not None:
        said = f"{error.rcvd.code} {error.rcvd.reason}".strip()
        return ConnectionLost(f"the server closed the connection ({said})")
    if error.sent is not None and error.sent.code == _INTERNAL_ERROR:
        return ConnectionLost("the server vanished: it no longer answers pings")
    return ConnectionLost("the server vanished: the connection broke without a closing handshake")
