"""`DialogueTTSService`: Pipecat's frames on one side, the turns of one dialogue on the other."""

from __future__ import annotations

import ssl as tls
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, cast

from loguru import logger
from pipecat.frames.frames import (
    BotSpeakingFrame,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.tts_service import TextAggregationMode
from pipecat.utils.tracing.service_decorators import traced_tts

from streamer_client.errors import ClientError, DialogueError
from streamer_client.events import Audio, Event, Reconnecting, Resumed
from streamer_client.pipecat.connection import DialogueConnection
from streamer_client.pipecat.errors import error_frame
from streamer_client.pipecat.playback import Playback
from streamer_client.pipecat.settings import DialogueTTSSettings
from streamer_client.pipecat.turns import AgentTurn, AgentTurns, open_turn
from streamer_client.pipecat.words import SpeakingRate, TimedWord, TurnWords
from streamer_client.settings import ClientSettings
from streamer_protocol import (
    Error,
    ErrorCode,
    LocalProtocolError,
    Sampling,
    SessionClosed,
    Speaker,
    TurnCompleted,
    TurnStarted,
    TurnTruncated,
)
from streamer_protocol import TurnWords as WordTimes

_REPORT_EVERY_MS = 1000.0
# The server ends every turn, also after a connection that was away for its whole grace time.
_QUIET_TURN_S = 120.0


class DialogueTTSService(DialogueConnection):
    """Speaks an agent's replies as turns of one dialogue, so that its voice goes on from how it spoke before.

    One dialogue lasts for the whole call, over lost connections too; each reply of the LLM, and each `TTSSpeakFrame`,
    is one turn. Text goes to the server as it comes, and the server finds the sentences. An interruption cancels what
    was not heard, and the dialogue forgets it; the words that were heard, and no others, reach the LLM's context.

    `url` as in `streamer_client.connect`. `words`: take word times from the model, which must have alignment heads;
    without it they are estimated by an even speaking rate. `sample_rate` is the pipeline's unless given. Other
    arguments are those of Pipecat's `WebsocketTTSService`.

    Event handlers, besides Pipecat's: `on_turn_truncated(service, context_id, text, heard_ms)`, what the dialogue keeps
    of a turn after an interruption.
    """

    Settings = DialogueTTSSettings

    def __init__(
        self,
        *,
        url: str,
        api_key: str | None = None,
        ssl: tls.SSLContext | None = None,
        words: bool = False,
        seed: int | None = None,
        sampling: Sampling | None = None,
        sample_rate: int | None = None,
        open_timeout_s: float = 10.0,
        client_settings: ClientSettings | None = None,
        settings: DialogueTTSSettings | None = None,
        text_aggregation_mode: TextAggregationMode | None = None,
        **kwargs: Any,
    ) -> None:
        store = DialogueTTSSettings(model=None, voice=None, language=None, voices={}, speaker="S1")
        if settings is not None:
            store.apply_update(settings)
        options = {"api_key": api_key, "ssl": ssl, "seed": seed, "sampling": sampling, "settings": client_settings}
        super().__init__(
            url=url,
            words=words,
            options={**options, "open_timeout_s": open_timeout_s},
            settings=store,
            sample_rate=sample_rate,
            text_aggregation_mode=text_aggregation_mode or TextAggregationMode.TOKEN,
            push_text_frames=False,  # words reach the context as they are heard
            push_start_frame=True,
            append_trailing_space=True,  # between sentences, where Pipecat finds them
            **{"stop_frame_timeout_s": _QUIET_TURN_S, **kwargs},
        )
        self._turns = AgentTurns()
        self._playback = Playback()
        self._rate = SpeakingRate()
        self._reported_ms = 0.0
        self._register_event_handler("on_turn_truncated")

    @traced_tts
    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """Send the next piece of a turn's text; its audio comes through the audio context."""
        turn = self._turns.of_context(context_id)
        try:
            if turn is None:
                turn = await self._open_turn(context_id)
            if turn is not None:
                await turn.write(text)
                await self.start_tts_usage_metrics(text)
        except DialogueError:
            pass  # the server's own `error` tells it
        except (ClientError, LocalProtocolError) as error:
            yield error_frame(error)
            if turn is not None:
                turn.spoken_over = True
        if context_id != self._turn_context_id:
            # Text outside of any reply: nobody will say that it is complete.
            await self.flush_audio(context_id)
        yield None

    async def flush_audio(self, context_id: str | None = None) -> None:
        """The text of a turn is complete."""
        context_id = context_id or self.get_active_audio_context_id()
        turn = self._turns.of_context(context_id)
        if turn is not None:
            await self._commit(turn)
            await self._end_if_over(turn)
        elif context_id is not None:
            await self._end_context(context_id)

    async def stop(self, frame: EndFrame) -> None:
        """Speak what was said so far to its end, then disconnect."""
        for context_id in self.get_audio_contexts():
            await self.flush_audio(context_id)
        await super().stop(frame)

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        """As Pipecat's; audio on its way to the transport is counted."""
        if isinstance(frame, TTSAudioRawFrame | TTSStoppedFrame):
            turn = self._turns.of_context(frame.context_id)
            if turn is not None and isinstance(frame, TTSAudioRawFrame):
                self._playback.push(turn.live.id, frame.num_frames * 1000 / frame.sample_rate, self._now_ms())
            elif turn is not None:
                self._playback.end(turn.live.id)
        await super().push_frame(frame, direction)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """As Pipecat's; the transport tells when it plays."""
        if direction is FrameDirection.UPSTREAM and frame.transport_destination == self._transport_destination:
            if isinstance(frame, BotStartedSpeakingFrame):
                self._playback.started(self._now_ms())
            elif isinstance(frame, BotStoppedSpeakingFrame):
                self._playback.stopped(self._now_ms())
                self._forget_heard()
            if isinstance(frame, BotStartedSpeakingFrame | BotStoppedSpeakingFrame | BotSpeakingFrame):
                await self._report_playback(at_once=not isinstance(frame, BotSpeakingFrame))
        await super().process_frame(frame, direction)

    async def on_audio_context_completed(self, context_id: str) -> None:
        """A turn that the server has not ended by now is given up."""
        turn = self._turns.of_context(context_id)
        if turn is not None and not turn.spoken_over:
            await self._cancel_turns([turn])
        self._forget_heard()

    async def _handle_interruption(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        # All audio may have gone to the transport: then no audio context is left to be interrupted.
        await self._cancel_turns([turn for turn in self._turns if turn.interruptible])
        await super()._handle_interruption(frame, direction)

    async def _open_turn(self, context_id: str) -> AgentTurn | None:
        if self._settings_changed() and self._turns.at_rest:
            await self._renew_dialogue()
        dialogue = await self._ready_dialogue()
        if dialogue is None:
            return None
        context = self._tts_contexts.get(context_id)
        turn = await open_turn(
            dialogue,
            cast("Speaker", self._settings.speaker),
            context_id,
            TurnWords(self._rate),
            interruptible=context is None or context.interruptible,
        )
        self._turns.add(turn)
        return turn

    async def _commit(self, turn: AgentTurn) -> None:
        try:
            await turn.commit()
        except (ClientError, LocalProtocolError) as error:
            await self.push_error_frame(error_frame(error))

    async def _cancel_turns(self, turns: list[AgentTurn]) -> None:
        """Stop these turns, and let the server forget what was not heard of them."""
        now_ms = self._now_ms()
        played_ms = round(self._playback.played_ms(now_ms))
        for turn in turns:
            self._turns.forget(turn)
            self._playback.drop(turn.live.id, now_ms)
            try:
                # Its text is over first, so that nothing waits for more of it.
                await turn.commit()
                if self._dialogue is not None:
                    await self._dialogue.cancel(turn.live.id, played_ms)
            except (ClientError, LocalProtocolError) as error:
                logger.debug(f"{self}: nothing left to cancel: {error}")

    async def _take(self, event: Event) -> None:
        if isinstance(event, Audio):
            await self._take_audio(event)
        elif isinstance(event, TurnStarted) and (turn := self._turns.of_id(event.turn)):
            turn.started = True
        elif isinstance(event, WordTimes) and (turn := self._turns.of_id(event.turn)):
            timed = [(word, start_ms / 1000) for word, start_ms, _ in event.words]
            await self.add_word_timestamps(timed, turn.context_id)
        elif isinstance(event, TurnCompleted) and (turn := self._turns.of_id(event.turn)):
            await self._take_completed(turn, event)
        elif isinstance(event, TurnTruncated):
            context_id = self._turns.context_of(event.turn)
            await self._call_event_handler("on_turn_truncated", context_id, event.text, event.heard_ms)
        elif isinstance(event, Error):
            await self._take_error(event)
        elif isinstance(event, Reconnecting | Resumed | SessionClosed):
            logger.warning(f"{self}: {event}")

    async def _take_audio(self, event: Audio) -> None:
        turn = self._turns.of_id(event.turn)
        if turn is None:
            return
        turn.sent_ms += event.duration_ms
        frame = TTSAudioRawFrame(event.payload, event.sample_rate, 1, context_id=turn.context_id)
        await self.append_to_audio_context(turn.context_id, frame)
        if not self._words:
            heard_ms = self._playback.heard_ms(turn.live.id, self._now_ms())
            await self._tell_words(turn, turn.words.due(turn.sent_ms, heard_ms))

    async def _take_completed(self, turn: AgentTurn, event: TurnCompleted) -> None:
        turn.spoken_over = True
        if event.reason in ("end", "max_length") and not self._words:
            await self._tell_words(turn, turn.words.rest(turn.sent_ms))
        if event.reason == "end":
            self._rate.learn(turn.words.weight, turn.sent_ms)
        await self._end_if_over(turn)

    async def _take_error(self, event: Error) -> None:
        if event.code in (ErrorCode.UNKNOWN_TURN, ErrorCode.DUPLICATE_TURN):
            return  # text and the turn's end crossed on the way
        turn = self._turns.of_id(event.turn)
        if event.turn is not None and (turn is None or turn.spoken_over):
            return  # the turn was cancelled, or refused before
        await self.push_error_frame(error_frame(event))
        if turn is not None and self._dialogue is not None and turn.refused_by(event, self._dialogue.ready.limits):
            turn.spoken_over = True
            await self._end_if_over(turn)

    async def _tell_words(self, turn: AgentTurn, words: list[TimedWord]) -> None:
        for word in words:
            await self.add_word_timestamps(
                [(word.text, word.start_s)], turn.context_id, includes_inter_frame_spaces=not word.spaced
            )

    async def _end_if_over(self, turn: AgentTurn) -> None:
        # More text for a context that has ended would open it again.
        if turn.text_over and turn.spoken_over:
            await self._end_context(turn.context_id)

    def _forget_heard(self) -> None:
        for turn in self._turns:
            open_here = self.audio_context_available(turn.context_id) or self._playback.holds(turn.live.id)
            if turn.spoken_over and not open_here:
                self._turns.forget(turn)

    async def _forget_turns(self) -> None:
        for turn in self._turns:
            with suppress(ClientError, LocalProtocolError):
                await turn.commit()
        self._turns = AgentTurns()
        self._playback = Playback()
        self._reported_ms = 0.0

    async def _report_playback(self, *, at_once: bool) -> None:
        played_ms = self._playback.played_ms(self._now_ms())
        if self._dialogue is None or (not at_once and played_ms - self._reported_ms < _REPORT_EVERY_MS):
            return
        self._reported_ms = played_ms
        with suppress(ClientError, LocalProtocolError):  # of a lost dialogue its events tell
            await self._dialogue.played(round(played_ms))

    async def _send_keepalive(self) -> None:
        await self._report_playback(at_once=True)
