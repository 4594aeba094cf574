"""The answer to one speech request, which listens to its performance and sends each packet on as it is made."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
from aiohttp import HttpVersion11, web

from streamer.dialogue import FRAME_MS
from streamer.performance import ListenerGone, Packet, TurnReport
from streamer.server.http.containers import Container
from streamer.server.http.errors import ErrorDetail, Problem
from streamer.server.http.settings import HttpSettings
from streamer.word_times import WordTime


class SpeechDelta(msgspec.Struct, frozen=True, tag_field="type", tag="speech.audio.delta"):
    """The next bytes of the file, in base64."""

    audio: str


class Usage(msgspec.Struct, frozen=True):
    """Tokens of the text, and audio frames of 80 ms."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class SpeechDone(msgspec.Struct, frozen=True, tag_field="type", tag="speech.audio.done"):
    """The file is complete."""

    usage: Usage


class SpeechError(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """The speech could not be made to its end; the connection closes."""

    error: ErrorDetail


SpeechEvent = SpeechDelta | SpeechDone | SpeechError
# Linger, for no time: what is unsent is dropped, and the peer is told so.
_RESET = struct.pack("ii", 1, 0)
Body = Literal["audio", "sse"]


class SpeechAnswer:
    """The listener of one performance. Nothing is sent before there is audio: until then an error has a status."""

    def __init__(self, request: web.Request, settings: HttpSettings, container: Container, body: Body) -> None:
        self._request = request
        self._settings = settings
        self._container = container
        self._events = body == "sse"
        self._response: web.StreamResponse | None = None
        self._n_frames = 0
        self.failure: Problem | None = None

    async def finish(self, n_input_tokens: int) -> web.StreamResponse:
        """End the answer: in order; by the problem, raised, if no byte has left; or else by breaking it off.

        Raises ConnectionError when the client has left before anything was sent.
        """
        if self.failure is not None and self._response is None:
            raise self.failure
        try:
            if self.failure is not None:
                await self._break_off(self.failure)
            else:
                await self._complete(n_input_tokens)
        except ListenerGone:
            pass
        if self._response is None:
            raise ConnectionResetError("the client has left")
        return self._response

    async def _complete(self, n_input_tokens: int) -> None:
        await self._send(self._container.close())
        if self._events:
            usage = Usage(n_input_tokens, self._n_frames, n_input_tokens + self._n_frames)
            await self._write(_event(SpeechDone(usage)))
        response = await self._begun()
        with self._reader():
            await response.write_eof()

    async def queued(self, turn: str, position: int) -> None:
        """HTTP has no word for it."""

    async def started(self, turn: str, index: int, speaker: int, first_frame: int) -> None:
        """Nor for this."""

    async def audio(self, packet: Packet) -> None:
        await self._send(self._container.push(packet.payload))

    async def words(self, turn: str, words: Sequence[WordTime]) -> None:
        """Nor for this."""

    async def completed(self, report: TurnReport) -> None:
        self._settings.hooks.completed(self._request, report)
        self._n_frames += report.audio_ms // FRAME_MS
        if report.reason in ("cancelled", "error"):
            # Nobody cancels here, so the engine was stopped.
            self._fail(Problem("shutting_down", "the server stopped before all was spoken"))

    async def failed(self, turn: str, code: str, message: str, retry_after_ms: int | None) -> None:
        self._fail(Problem(code, message, retry_after_ms=retry_after_ms))

    async def idle(self) -> None:
        """All is spoken; the caller of the performance waits for the same."""

    async def broken(self) -> None:
        self._fail(Problem("internal", "the server can't go on with this speech"))

    def _fail(self, problem: Problem) -> None:
        self.failure = self.failure or problem
        # Half a speech helps nobody: the turns that follow are not made.
        raise ListenerGone

    async def _send(self, data: bytes) -> None:
        if data:
            await self._write(_event(SpeechDelta(base64.b64encode(data).decode())) if self._events else data)
            self._settings.hooks.sent(len(data))

    async def _write(self, data: bytes) -> None:
        """Write and wait until the reader is not behind. Raises ListenerGone when nobody reads."""
        response = await self._begun()
        with self._reader():
            await response.write(data)
            # The write itself waits only after every 64 KiB, many seconds of Opus.
            await self._request.writer.drain()

    async def _begun(self) -> web.StreamResponse:
        if self._response is None:
            headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            headers["Content-Type"] = "text/event-stream" if self._events else self._container.content_type
            _bound_buffers(self._request, self._settings.send_buffer_bytes)
            self._response = web.StreamResponse(headers=headers)
            with self._reader():
                await self._response.prepare(self._request)
        return self._response

    @contextlib.contextmanager
    def _reader(self) -> Iterator[None]:
        """Within it the reader is there: one that left, or took nothing for too long, becomes ListenerGone."""
        transport = self._request.transport
        if transport is None:
            raise ListenerGone
        # Cheaper than a task for each packet, and it wakes whoever waits for the transport.
        watch = asyncio.get_running_loop().call_later(self._settings.stall_timeout_s, transport.abort)
        try:
            yield
        except ConnectionError as error:
            raise ListenerGone from error
        finally:
            watch.cancel()

    async def _break_off(self, failure: Problem) -> None:
        """End the connection without the end of the body, so that the client can't take a part for the whole."""
        if self._events:
            await self._write(_event(SpeechError(failure.detail)))
        transport = self._request.transport
        if transport is None:
            return
        if self._events or self._request.version >= HttpVersion11:
            transport.close()
            return
        # Without chunks a closed connection is a whole body; a reset one is not.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()


def _event(event: SpeechEvent) -> bytes:
    return b"data: " + msgspec.json.encode(event) + b"\n\n"


def _bound_buffers(request: web.Request, n_bytes: int) -> None:
    """Keep little audio between the engine and the network, so that a slow reader is felt."""
    transport = request.transport
    if transport is not None:
        transport.set_write_buffer_limits(high=n_bytes)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, n_bytes)
