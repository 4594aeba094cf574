"""One speech each: text in, PCM frames out, by the rules of the framework's emitter."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from livekit.agents import APIConnectionError, APIConnectOptions, APITimeoutError, tts, utils
from livekit.agents.types import TimedString

from streamer_client.errors import ClientError, DialogueError
from streamer_client.events import Audio
from streamer_client.livekit.faults import api_error
from streamer_client.livekit.lines import Line, Lines, Listener
from streamer_protocol import Error, ErrorCode, LocalProtocolError, Speaker, TurnCompleted, TurnWords

if TYPE_CHECKING:
    from streamer_client.live import LiveTurn
    from streamer_client.livekit.tts import TTS

SAMPLE_RATE = 24_000
SPOKEN_TURN = "dialogue_streamer.turn"  # key in the userdata of frames
_MIME_TYPE = "audio/pcm"
_SILENCE = bytes(2 * SAMPLE_RATE * 20 // 1000)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SpokenTurn:
    """Where a frame comes from."""

    line: Line
    turn: str


class _Speech:
    """One turn on one line, from its text to the emitter."""

    def __init__(self, line: Line, turn: str, emitter: tts.AudioEmitter) -> None:
        self.turn = turn
        self.audio_sent = False
        self._line = line
        self._emitter = emitter
        self._listener: Listener = line.listen(turn)
        self._over = False
        self._timer: asyncio.TimerHandle | None = None

    def text_complete(self, timeout_s: float) -> None:
        """All of the text is with the server, which now has so long to begin."""
        if not self.audio_sent:
            self._timer = asyncio.get_running_loop().call_later(timeout_s, self._late, timeout_s)

    def fail(self, error: Exception) -> None:
        """Something went wrong on the way of the text."""
        self._listener.put(error)

    async def relay(self) -> None:
        """Hand the turn's audio to the emitter until it is completed."""
        while not self._over:
            event = await self._listener.next()
            if isinstance(event, Audio):
                self._begun()
                self._emitter.push(event.payload)
            elif isinstance(event, TurnWords):
                timed = [
                    TimedString(f"{word} ", start_ms / 1000, end_ms / 1000) for word, start_ms, end_ms in event.words
                ]
                self._emitter.push_timed_transcript(timed)
            elif isinstance(event, Error):
                self._refused(event)
            elif isinstance(event, TurnCompleted):
                self._completed(event)

    async def end(self) -> None:
        """Leave; what is not spoken to its end is cancelled."""
        self._begun(audio=False)
        self._line.leave(self.turn)
        if not self._over:
            await self._line.cancel(self.turn)

    def _begun(self, *, audio: bool = True) -> None:
        self.audio_sent |= audio
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refused(self, error: Error) -> None:
        if error.code != ErrorCode.NO_SPEECH or self.audio_sent:
            raise DialogueError.of(error)
        # To the framework, a text without audio is a failure; a lone dash is none.
        self._over = True
        self._emitter.push(_SILENCE)

    def _completed(self, report: TurnCompleted) -> None:
        self._over = True
        if report.reason == "max_length":
            _log.warning("turn %s was cut at the server's max_turn_audio_ms, after %d ms", self.turn, report.audio_ms)
        elif report.reason != "end":
            raise APIConnectionError(f"the server ended the turn ({report.reason})", retryable=not self.audio_sent)

    def _late(self, timeout_s: float) -> None:
        self._line.sick = True
        self._listener.put(APITimeoutError(f"no audio within {timeout_s:g} s of the end of the text"))


@asynccontextmanager
async def _speaking(line: Line, turn: str, emitter: tts.AudioEmitter) -> AsyncIterator[_Speech]:
    """A speech whose turn is cancelled if the block is left before it is over."""
    speech = _Speech(line, turn, emitter)
    try:
        yield speech
    except (ClientError, LocalProtocolError) as error:
        raise api_error(error, audio_sent=speech.audio_sent) from error
    finally:
        await speech.end()


@asynccontextmanager
async def _leased(lines: Lines, stream: ChunkedStream | SynthesizeStream, timeout_s: float) -> AsyncIterator[Line]:
    """A line; how it was come by goes into the framework's metrics."""
    try:
        async with lines.lease(timeout_s) as (line, acquire_s, reused):
            stream._acquire_time, stream._connection_reused = acquire_s, reused
            yield line
    except (ClientError, LocalProtocolError) as error:
        raise api_error(error, audio_sent=False) from error


class ChunkedStream(tts.ChunkedStream):
    """A text that is complete, as one turn."""

    def __init__(self, *, tts: TTS, lines: Lines, speaker: Speaker, text: str, conn_options: APIConnectOptions) -> None:
        super().__init__(tts=tts, input_text=text, conn_options=conn_options)
        self._lines = lines
        self._speaker = speaker

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        output_emitter.initialize(
            request_id=utils.shortuuid(), sample_rate=SAMPLE_RATE, num_channels=1, mime_type=_MIME_TYPE
        )
        if not self._input_text.strip():
            return
        timeout_s = self._conn_options.timeout
        async with _leased(self._lines, self, timeout_s) as line:
            turn = await line.dialogue.turn(self._speaker, self._input_text)
            async with _speaking(line, turn, output_emitter) as speech:
                speech.text_complete(timeout_s)
                await speech.relay()


class SynthesizeStream(tts.SynthesizeStream):
    """A text that comes in pieces, as one turn; each flush ends a turn."""

    def __init__(self, *, tts: TTS, lines: Lines, speaker: Speaker, conn_options: APIConnectOptions) -> None:
        super().__init__(tts=tts, conn_options=conn_options)
        self._lines = lines
        self._speaker = speaker
        self._spoken: dict[str, SpokenTurn] = {}

    async def __anext__(self) -> tts.SynthesizedAudio:
        """The next frame; it says which turn it comes from."""
        audio = await super().__anext__()
        spoken = self._spoken.get(audio.segment_id)
        if spoken is not None:
            audio.frame.userdata[SPOKEN_TURN] = spoken
        return audio

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        output_emitter.initialize(
            request_id=utils.shortuuid(), sample_rate=SAMPLE_RATE, num_channels=1, mime_type=_MIME_TYPE, stream=True
        )
        while (first := await self._first_text()) is not None:
            await self._speak(first, output_emitter)

    async def _first_text(self) -> str | None:
        """The first text of the next turn that is more than space; None at the end of the input."""
        async for piece in self._input_ch:
            if isinstance(piece, str) and piece.strip():
                return piece
        return None

    async def _speak(self, first: str, emitter: tts.AudioEmitter) -> None:
        async with _leased(self._lines, self, self._conn_options.timeout) as line:
            async with line.dialogue.live_turn(self._speaker) as live:
                segment = utils.shortuuid("segment_")
                self._spoken[segment] = SpokenTurn(line, live.id)
                emitter.start_segment(segment_id=segment)
                async with _speaking(line, live.id, emitter) as speech:
                    self._mark_started()
                    await live.write(first)
                    writer = asyncio.create_task(self._write(live, speech))
                    try:
                        await speech.relay()
                    finally:
                        await utils.aio.cancel_and_wait(writer)
        emitter.end_segment()

    async def _write(self, live: LiveTurn, speech: _Speech) -> None:
        """Hand on the text up to the flush that ends the turn."""
        try:
            async for piece in self._input_ch:
                if not isinstance(piece, str):
                    break
                await live.write(piece)
            await live.commit()
            speech.text_complete(self._conn_options.timeout)
        except (ClientError, LocalProtocolError) as error:
            speech.fail(error)
