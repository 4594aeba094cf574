"""One session: session.start to session.closed, over as many sockets as it takes, and the listener of its speech."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Sequence
from dataclasses import fields, replace

import msgspec

from streamer.audio import Packetizer
from streamer.dialogue import Dialogue, DialogueSettings, TurnOptions
from streamer.engine import Refused
from streamer.performance import ListenerGone, Packet, Performance, TurnReport
from streamer.server.choices import Cast, chosen_voices, refuse_unreported, refuse_unserved, sampling_params
from streamer.server.config import ServerConfig
from streamer.server.journal import Journal
from streamer.server.keys import Identity
from streamer.server.live_text import LiveTurn, TaggedText
from streamer.server.outbox import Link, Outbox
from streamer.server.rejection import Rejection
from streamer.server.state import ServerState
from streamer.text import ScriptError, Turn, has_tag, normalize_text, parse_script
from streamer.word_times import WordTime
from streamer_protocol import (
    KIND_OF_FORMAT,
    AudioFrame,
    Context,
    Error,
    ErrorCode,
    Playback,
    Queued,
    ScriptAccepted,
    ScriptAppend,
    ScriptTurn,
    ServerMessage,
    SessionClosed,
    SessionIdle,
    SessionReady,
    SessionStart,
    TurnAppend,
    TurnCancel,
    TurnCommit,
    TurnCompleted,
    TurnCreate,
    TurnStarted,
    TurnTruncated,
    TurnWords,
    make_error,
)

_CODES = {code.value: code for code in ErrorCode}
_MAX_SEED = 2**63


class DialogueContext:
    """A started session, made by :meth:`open`. What it sends goes through its ``outbox``."""

    @classmethod
    async def open(
        cls, state: ServerState, config: ServerConfig, start: SessionStart, protocol: Context, identity: Identity
    ) -> DialogueContext:
        """Start what ``start`` asks for; raises Rejection."""
        speech = state.speech
        refuse_unserved(speech, start)
        a, complexity = start.audio, config.opus_complexity
        # An encoder takes milliseconds to make.
        make = speech.workers.submit(lambda: Packetizer(a.format, a.sample_rate, a.frame_ms, a.bitrate, complexity))
        packetizer = await asyncio.wrap_future(make)
        try:
            return cls(state, config, start, protocol, identity, packetizer)
        except BaseException:
            packetizer.close()
            raise

    def __init__(
        self,
        state: ServerState,
        config: ServerConfig,
        start: SessionStart,
        protocol: Context,
        identity: Identity,
        packetizer: Packetizer,
    ) -> None:
        speech = state.speech
        self.id = f"s-{secrets.token_hex(8)}"
        self.name = start.context
        self.identity = identity
        self.handle = state.next_handle()
        self.ending = False
        self._over = asyncio.Event()
        # Of the tokens that are good: the newest, and those before it while it may not have arrived.
        self.resume_numbers: list[int] = []
        self._state = state
        self._speech = speech
        self._mode = start.mode
        self._language = start.language
        self._words = start.words
        self._limits = state.sessions.limits_for(identity)
        self._pause_s = config.live_text_pause_s
        self._kind = KIND_OF_FORMAT[start.audio.format]
        self._audio = start.audio
        self._sampling = sampling_params(speech.model.default_sampling, start.sampling, start)
        self._voices = speech.default_voices() | chosen_voices(speech, start)
        self._cast = Cast(self._limits.max_speakers)
        self._live: dict[str, LiveTurn] = {}
        self._opened: set[str] = set()
        self._speaking = ""
        settings = DialogueSettings(
            voices=self._voices,
            sampling=self._sampling,
            seed=start.seed if start.seed is not None else secrets.randbits(63),
            history_seconds=speech.history_seconds,
            max_turn_seconds=self._limits.max_turn_audio_ms / 1000,
            language=start.language,
            words=start.words,
        )
        replay_bytes = config.replay_bytes if self._limits.resume_grace_ms else 0
        self.outbox = Outbox(protocol, self.handle, replay_bytes)
        # The socket that serves the session; it may be broken already, and not know.
        self.holder: Link | None = None
        self.journal = Journal(state.metrics, self.id, self.name, identity.name, keep_text=config.log_text)
        dialogue = Dialogue(speech.model.config, speech.tokenizer, settings)
        try:
            self.performance = Performance(speech, dialogue, packetizer, self)
        except Refused as refusal:
            error = make_error(
                _CODES[refusal.code], refusal.message, context=self.name, retry_after_ms=refusal.retry_after_ms
            )
            raise Rejection(msgspec.structs.replace(error, fatal=False)) from refusal
        loop = asyncio.get_running_loop()
        self._active_s = time.monotonic()
        self._idle_timer = loop.call_later(self._limits.idle_timeout_ms / 1000, self._check_idle)
        self._end_timer = loop.call_later(
            self._limits.max_session_ms / 1000, lambda: state.sessions.end(self, "session_too_long")
        )

    @property
    def resumable(self) -> bool:
        """Whether the session outlives the loss of its socket."""
        return bool(self._limits.resume_grace_ms) and not self.ending

    def ready(self, *, resumed: bool = False) -> SessionReady:
        """What the client is told when the session is its own; the token in it is a new one."""
        return SessionReady(
            context=self.name,
            session=self.id,
            resume_token=self._state.sessions.token(self),
            handle=self.handle,
            model=self._speech.name,
            audio=self._audio,
            voices={f"S{speaker}": voice.id for speaker, voice in sorted(self._voices.items())},  # type: ignore[misc]
            limits=self._limits,
            resumed=resumed,
            received=self.outbox.context.client_messages,
        )

    def attach(self, link: Link, position: int | None = None) -> None:
        """Speak to this socket from now on; with ``position``, what stands from there on comes again."""
        self._active_s = time.monotonic()
        self.outbox.attach(link, position)
        if position is not None:
            self.journal.resumed()
            self._state.sessions.spawn(_unheard(self.outbox.flush()))

    async def send(self, message: ServerMessage | AudioFrame, *, refusal: bool = False, patient: bool = True) -> None:
        """Tell the client, now or when it is back; see :meth:`Outbox.send`."""
        await self.outbox.send(message, refusal=refusal, patient=patient)

    async def create_turn(self, message: TurnCreate) -> None:
        """One whole turn."""
        refuse_unreported(self.journal, message)
        options = self._options(message)
        speaker = int(message.speaker[1:])
        # Under a tag of its own a text without tags is one turn, whoever it belongs to.
        turns = await self._split(f"[S{speaker}]{message.text}", "turn.create", message.turn)
        if len(turns) > 1 or has_tag(message.text):
            text = "turn.create: `text` holds a speaker tag; script.append takes scripts"
            raise Rejection(make_error(ErrorCode.INVALID_SCRIPT, text, context=self.name, turn=message.turn))
        self._cast.admit([speaker], message, message.turn)
        if not self.ending:
            self.journal.turn_asked(message.turn, speaker, message.text)
            self.performance.add(message.turn, turns, options)

    async def append_script(self, message: ScriptAppend) -> None:
        """A script: one job a turn, or in script mode one job for all."""
        assert message.script is not None
        refuse_unreported(self.journal, message)
        options = self._options(message)
        turns = await self._split(message.text, "script.append", message.script)
        if self.ending:
            return
        # Where nothing shows its borders, a pass is one turn.
        jobs = [turns] if self._mode == "script" and not self._words else [[turn] for turn in turns]
        if len(jobs) > self._limits.max_queued_turns:
            text = f"script.append: `text` has {len(jobs)} turns, max_queued_turns is {self._limits.max_queued_turns}"
            raise Rejection(make_error(ErrorCode.QUEUE_FULL, text, context=self.name, turn=message.script))
        named = [(f"{message.script}.{n}", job) for n, job in enumerate(jobs, start=1)]
        self._cast.admit((turn.speaker for turn in turns), message, message.script)
        accepted = tuple(
            ScriptTurn(turn=name, speaker=f"S{job[0].speaker}", text=" ".join(t.text for t in job))  # type: ignore[arg-type]
            for name, job in named
        )
        await self.send(ScriptAccepted(context=self.name, script=message.script, turns=accepted), patient=False)
        for name, job in named:
            self.journal.turn_asked(name, job[0].speaker, " ".join(turn.text for turn in job))
        if self._mode == "script" and self._words:
            self.performance.add_pass([name for name, _ in named], turns, options)
            return
        for n, (name, job) in enumerate(named):
            seed = None if options.seed is None else (options.seed + n) % _MAX_SEED
            self.performance.add(name, job, replace(options, seed=seed))

    def writes(self, turn: str) -> bool:
        """Whether text for this turn is taken in pieces, and has begun to come."""
        return turn in self._opened

    def append_text(self, message: TurnAppend) -> None:
        """The next piece of a turn; the first one opens it."""
        live = self._live.get(message.turn)
        if live is None and message.turn in self._opened:
            # Cancelled, and not yet reported: what still comes of its text comes to nothing.
            return
        if live is None:
            assert message.speaker is not None
            speaker = int(message.speaker[1:])
            options = self._options(message)
            refuse_unreported(self.journal, message)
            self._cast.admit([speaker], message, message.turn)
            self.performance.open(message.turn, speaker, options)
            self._opened.add(message.turn)
            self.journal.turn_asked(message.turn, speaker)
            live = self._live[message.turn] = LiveTurn(
                message.turn, self.performance, self._speech, self._language, self._pause_s, self._text_over
            )
        self.journal.turn_text(message.turn, message.text)
        try:
            live.append(message.text)
        except TaggedText:
            self._drop_live(message.turn)
            self.performance.cancel(message.turn)
            text = "turn.append: `text` holds a speaker tag; script.append takes scripts"
            raise Rejection(make_error(ErrorCode.INVALID_SCRIPT, text, context=self.name, turn=message.turn)) from None

    def commit_text(self, message: TurnCommit) -> None:
        """The text of a turn is complete."""
        live = self._live.get(message.turn)
        if live is not None:
            live.commit()

    async def cancel(self, message: TurnCancel) -> None:
        """Stop one turn or all, and forget what was not heard."""
        for turn in [message.turn] if message.turn is not None else list(self._live):
            self._drop_live(turn)
        for cut in self.performance.cancel(message.turn, message.played_ms):
            text = TurnTruncated(
                context=self.name, turn=cut.turn, index=cut.index, heard_ms=cut.heard_ms, text=cut.text
            )
            await self.send(text, patient=False)

    def played(self, message: Playback) -> None:
        """The listener's report, for pacing."""
        self.performance.played(message.played_ms)

    def touch(self) -> None:
        """The client has said something in this session, so it has its session.ready, and the token in that."""
        self._active_s = time.monotonic()
        del self.resume_numbers[:-1]

    def acknowledge(self, position: int) -> None:
        """The client has everything that was sent before ``position``."""
        del self.resume_numbers[:-1]
        self.outbox.acknowledge(position)

    def lose(self) -> None:
        """The socket is gone: wait for another."""
        self.holder = None
        self.outbox.detach()
        self._state.sessions.park(self)

    async def end(self, reason: str) -> None:
        """End for good, and say so if somebody is there; what is still in the works comes to nothing. Twice is once."""
        if self.ending:
            await self._over.wait()
            return
        self.ending = True
        self._idle_timer.cancel()
        self._end_timer.cancel()
        for turn in list(self._live):
            self._drop_live(turn)
        # First of all, so that nothing waits for a client that will not come.
        self.outbox.end()
        try:
            await self.performance.close()
        finally:
            self._state.sessions.discard(self)
            self.journal.closed(reason)
            link = self.outbox.link
            if link is not None:
                await _unheard(self.send(SessionClosed(context=self.name, reason=reason)))
                link.left(self.name, taken=False)
            self._over.set()

    async def queued(self, turn: str, position: int) -> None:
        self.journal.turn_queued(turn)
        await self.send(Queued(context=self.name, turn=turn, position=position))

    async def started(self, turn: str, index: int, speaker: int, first_frame: int) -> None:
        self._speaking = turn
        self.journal.turn_started(turn)
        message = TurnStarted(
            context=self.name,
            turn=turn,
            index=index,
            speaker=f"S{speaker}",  # type: ignore[arg-type]
            first_frame=first_frame,
        )
        await self.send(message)

    async def audio(self, packet: Packet) -> None:
        frame = AudioFrame(
            kind=self._kind,
            last=packet.last,
            handle=self.handle,
            turn_index=packet.turn_index,
            frame=packet.frame,
            payload=packet.payload,
        )
        self.journal.audio_sent(self._speaking, len(packet.payload))
        await self.send(frame)

    async def words(self, turn: str, words: Sequence[WordTime]) -> None:
        await self.send(TurnWords(context=self.name, turn=turn, words=tuple(words)))

    async def completed(self, report: TurnReport) -> None:
        self._drop_live(report.turn)
        self._opened.discard(report.turn)
        self._active_s = time.monotonic()
        self.journal.turn_completed(report)
        values = {field.name: getattr(report, field.name) for field in fields(report)}
        await self.send(TurnCompleted(context=self.name, **values))

    async def failed(self, turn: str, code: str, message: str, retry_after_ms: int | None) -> None:
        self.journal.refused(code, message, turn)
        error = Error(context=self.name, code=code, message=message, turn=turn, retry_after_ms=retry_after_ms)
        await self.send(error)

    async def idle(self) -> None:
        await self.send(SessionIdle(context=self.name))

    async def broken(self) -> None:
        error = make_error(ErrorCode.INTERNAL, "the server can't go on with this dialogue", context=self.name)
        await self.send(msgspec.structs.replace(error, fatal=True))

    def _check_idle(self) -> None:
        limit_s = self._limits.idle_timeout_ms / 1000
        if not self.performance.at_rest:
            self._active_s = time.monotonic()
        left_s = self._active_s + limit_s - time.monotonic()
        if left_s <= 0:
            self._state.sessions.end(self, "idle_timeout")
        else:
            self._idle_timer = asyncio.get_running_loop().call_later(left_s, self._check_idle)

    def _options(self, message: TurnCreate | TurnAppend | ScriptAppend) -> TurnOptions:
        sampling = None
        if message.sampling is not None:
            turn = message.script if isinstance(message, ScriptAppend) else message.turn
            sampling = sampling_params(self._sampling, message.sampling, message, turn)
        return TurnOptions(sampling=sampling, seed=message.seed)

    def _drop_live(self, turn: str) -> None:
        live = self._live.pop(turn, None)
        if live is not None:
            live.cancel()

    def _text_over(self, turn: str) -> None:
        self._live.pop(turn, None)

    async def _split(self, text: str, where: str, turn: str) -> list[Turn]:
        """The turns of a text, made by a worker: a long one takes milliseconds."""
        work = self._speech.workers.submit(lambda: parse_script(normalize_text(text)))
        try:
            return await asyncio.wrap_future(work)
        except ScriptError as error:
            message = f"{where}: `{error.field}`: {error.message}"
            raise Rejection(make_error(_CODES[error.code], message, context=self.name, turn=turn)) from error


async def _unheard(work: Awaitable[None]) -> None:
    """Do what may find nobody there."""
    with contextlib.suppress(ListenerGone):
        await work
