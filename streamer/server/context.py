"""One context of a socket: session.start to session.closed, and what the performance reports as messages."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import fields, replace

import msgspec

from streamer.audio import Packetizer
from streamer.dialogue import Dialogue, DialogueSettings
from streamer.engine import Refused
from streamer.models import SamplingParams
from streamer.performance import Packet, Performance, TurnReport
from streamer.server.config import ServerConfig
from streamer.speech import Speech
from streamer.text import ScriptError, Turn, has_tag, normalize_text, parse_script
from streamer.voices import UnknownVoice, Voice
from streamer_protocol import (
    KIND_OF_FORMAT,
    AudioFrame,
    Error,
    ErrorCode,
    Limits,
    Queued,
    ScriptAccepted,
    ScriptAppend,
    ScriptTurn,
    ServerMessage,
    SessionIdle,
    SessionReady,
    SessionStart,
    TurnCancel,
    TurnCompleted,
    TurnCreate,
    TurnStarted,
    make_error,
)

Send = Callable[[ServerMessage | AudioFrame], Awaitable[None]]
_CODES = {code.value: code for code in ErrorCode}


class Rejection(Exception):
    """A message that the server refuses; ``error`` goes to the client."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.error = error


class DialogueContext:
    """A started context, made by :meth:`open`. It is the listener of its own performance."""

    @classmethod
    async def open(
        cls, speech: Speech, config: ServerConfig, handle: int, start: SessionStart, send: Send
    ) -> DialogueContext:
        """Start what ``start`` asks for; raises Rejection."""
        _refuse_unserved(start)
        a, complexity = start.audio, config.opus_complexity
        # An encoder takes milliseconds to make.
        make = speech.workers.submit(lambda: Packetizer(a.format, a.sample_rate, a.frame_ms, a.bitrate, complexity))
        packetizer = await asyncio.wrap_future(make)
        try:
            return cls(speech, config.limits, handle, start, send, packetizer)
        except Rejection:
            packetizer.close()
            raise

    def __init__(
        self,
        speech: Speech,
        limits: Limits,
        handle: int,
        start: SessionStart,
        send: Send,
        packetizer: Packetizer,
    ) -> None:
        self._speech = speech
        self._send = send
        self._name = start.context
        self._mode = start.mode
        self._limits = limits
        self._handle = handle
        self._kind = KIND_OF_FORMAT[start.audio.format]
        self._closed = False
        voices = speech.default_voices() | _chosen_voices(speech, start)
        settings = DialogueSettings(
            voices=voices,
            sampling=_sampling(speech, start),
            seed=start.seed if start.seed is not None else secrets.randbits(63),
            history_seconds=speech.history_seconds,
            max_turn_seconds=limits.max_turn_audio_ms / 1000,
        )
        dialogue = Dialogue(speech.model.config, speech.tokenizer, settings)
        try:
            self.performance = Performance(speech, dialogue, packetizer, self)
        except Refused as refusal:
            error = make_error(
                _CODES[refusal.code], refusal.message, context=self._name, retry_after_ms=refusal.retry_after_ms
            )
            raise Rejection(msgspec.structs.replace(error, fatal=False)) from refusal
        self.ready = SessionReady(
            context=self._name,
            session=f"s-{secrets.token_hex(8)}",
            resume_token=None,
            handle=handle,
            model=speech.name,
            audio=start.audio,
            voices={f"S{speaker}": voice.id for speaker, voice in sorted(voices.items())},  # type: ignore[misc]
            limits=limits,
        )

    async def create_turn(self, message: TurnCreate) -> None:
        """One whole turn."""
        speaker = int(message.speaker[1:])
        # Under a tag of its own a text without tags is one turn, whoever it belongs to.
        turns = await self._turns(f"[S{speaker}]{message.text}", "turn.create", message.turn)
        if len(turns) > 1 or has_tag(message.text):
            text = "turn.create: `text` holds a speaker tag; script.append takes scripts"
            raise Rejection(make_error(ErrorCode.INVALID_SCRIPT, text, context=self._name, turn=message.turn))
        if not self._closed:
            self.performance.add(message.turn, turns)

    async def append_script(self, message: ScriptAppend) -> None:
        """A script: one job a turn, or in script mode one job for all."""
        assert message.script is not None
        turns = await self._turns(message.text, "script.append", message.script)
        if self._closed:
            return
        jobs = [turns] if self._mode == "script" else [[turn] for turn in turns]
        if len(jobs) > self._limits.max_queued_turns:
            text = f"script.append: `text` has {len(jobs)} turns, max_queued_turns is {self._limits.max_queued_turns}"
            raise Rejection(make_error(ErrorCode.QUEUE_FULL, text, context=self._name, turn=message.script))
        named = [(f"{message.script}.{n}", job) for n, job in enumerate(jobs, start=1)]
        accepted = tuple(
            ScriptTurn(turn=name, speaker=f"S{job[0].speaker}", text=" ".join(t.text for t in job))  # type: ignore[arg-type]
            for name, job in named
        )
        await self._send(ScriptAccepted(context=self._name, script=message.script, turns=accepted))
        for name, job in named:
            self.performance.add(name, job)

    async def close(self) -> None:
        """End the performance; a message still in the works comes to nothing."""
        self._closed = True
        await self.performance.close()

    def cancel(self, message: TurnCancel) -> None:
        """Stop one turn or all, and forget what was not heard."""
        self.performance.cancel(message.turn, message.played_ms)

    async def queued(self, turn: str, position: int) -> None:
        await self._send(Queued(context=self._name, turn=turn, position=position))

    async def started(self, turn: str, index: int, speaker: int, first_frame: int) -> None:
        message = TurnStarted(
            context=self._name,
            turn=turn,
            index=index,
            speaker=f"S{speaker}",  # type: ignore[arg-type]
            first_frame=first_frame,
        )
        await self._send(message)

    async def audio(self, packet: Packet) -> None:
        frame = AudioFrame(
            kind=self._kind,
            last=packet.last,
            handle=self._handle,
            turn_index=packet.turn_index,
            frame=packet.frame,
            payload=packet.payload,
        )
        await self._send(frame)

    async def completed(self, report: TurnReport) -> None:
        values = {field.name: getattr(report, field.name) for field in fields(report)}
        await self._send(TurnCompleted(context=self._name, **values))

    async def failed(self, turn: str, code: str, message: str, retry_after_ms: int | None) -> None:
        error = Error(context=self._name, code=code, message=message, turn=turn, retry_after_ms=retry_after_ms)
        await self._send(error)

    async def idle(self) -> None:
        await self._send(SessionIdle(context=self._name))

    async def broken(self) -> None:
        error = make_error(ErrorCode.INTERNAL, "the server can't go on with this dialogue", context=self._name)
        await self._send(msgspec.structs.replace(error, fatal=True))

    async def _turns(self, text: str, where: str, turn: str) -> list[Turn]:
        """The turns of a text, made by a worker: a long one takes milliseconds."""
        work = self._speech.workers.submit(lambda: parse_script(normalize_text(text)))
        try:
            return await asyncio.wrap_future(work)
        except ScriptError as error:
            message = f"{where}: `{error.field}`: {error.message}"
            raise Rejection(make_error(_CODES[error.code], message, context=self._name, turn=turn)) from error


def _refuse_unserved(start: SessionStart) -> None:
    for name in ("words", "resume", "language"):
        if getattr(start, name):
            text = f"session.start: `{name}` is not served by this version"
            raise Rejection(make_error(ErrorCode.NOT_SUPPORTED, text, context=start.context))


def _chosen_voices(speech: Speech, start: SessionStart) -> dict[int, Voice]:
    chosen: dict[int, Voice] = {}
    for speaker, voice_id in start.voices.items():
        try:
            chosen[int(speaker[1:])] = speech.voices.get(voice_id)
        except UnknownVoice as error:
            text = f"session.start: `voices.{speaker}`: {error}"
            raise Rejection(make_error(ErrorCode.UNKNOWN_VOICE, text, context=start.context)) from error
    return chosen


def _sampling(speech: Speech, start: SessionStart) -> SamplingParams:
    given = {k: v for k, v in msgspec.structs.asdict(start.sampling).items() if v is not None}
    try:
        return replace(speech.model.default_sampling, **given)
    except ValueError as error:
        text = f"session.start: `sampling`: {error}"
        raise Rejection(make_error(ErrorCode.INVALID_MESSAGE, text, context=start.context)) from error
