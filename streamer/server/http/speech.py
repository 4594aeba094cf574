"""``POST /v1/audio/speech``: one request, one performance."""

from __future__ import annotations

import asyncio
import secrets

from aiohttp import web

from streamer.audio import Packetizer
from streamer.dialogue import Dialogue, DialogueSettings
from streamer.engine import Refused
from streamer.performance import Performance
from streamer.server.http.answer import SpeechAnswer
from streamer.server.http.containers import CONTAINERS, FRAME_MS, SAMPLE_RATE, Container
from streamer.server.http.errors import Problem, read_in_time
from streamer.server.http.requests import SpeechRequest, choose_sampling, choose_voices, parse_speech_request
from streamer.server.http.settings import HttpSettings, Served
from streamer.text import ScriptError, Turn, normalize_text, parse_script

BITRATE = 32_000
_DRAINING_RETRY_MS = 5000
_BUSY_RETRY_MS = 1000
# aiohttp tells a handler of a lost connection only when it writes.
_LOOK_S = 0.25


class SpeechEndpoint:
    """Serves speech requests; ``running`` counts those under way."""

    def __init__(self, state: Served, settings: HttpSettings) -> None:
        self._state = state
        self._settings = settings
        self.running = 0
        self.at_rest = asyncio.Event()
        self.at_rest.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Speak. Raises Problem while nothing has been sent."""
        refuse_while_draining(self._state)
        body = await read_in_time(_read_body(request, self._settings), self._settings.body_timeout_s)
        wanted = parse_speech_request(body, self._settings.limits)
        turns, n_tokens = await self._prepare(wanted)
        # What took time may have outlasted the server's readiness.
        refuse_while_draining(self._state)
        if not self._settings.hooks.admit(request):
            text = "this key has as many sessions as it may have; wait until one ends"
            raise Problem("rate_limited", text, retry_after_ms=_BUSY_RETRY_MS)
        self.running += 1
        self.at_rest.clear()
        container = CONTAINERS[wanted.response_format or "opus"]()
        try:
            answer = SpeechAnswer(request, self._settings, container, wanted.stream_format or "audio")
            await self._perform(request, wanted, turns, answer, container)
            return await answer.finish(n_tokens)
        finally:
            container.close()
            self._settings.hooks.dismiss(request)
            self.running -= 1
            if not self.running:
                self.at_rest.set()

    async def _prepare(self, wanted: SpeechRequest) -> tuple[list[Turn], int]:
        """The turns and the number of tokens of the text, made by a worker: a long one takes milliseconds."""
        tokenizer = self._state.speech.tokenizer

        def work() -> tuple[list[Turn], int]:
            turns = parse_script(normalize_text(wanted.input))
            return turns, len(tokenizer.encode(wanted.input, add_special_tokens=False))

        try:
            turns, n_tokens = await asyncio.wrap_future(self._state.speech.workers.submit(work))
        except ScriptError as error:
            raise Problem(error.code, f"`input`: {error.message}", "input") from None
        limits, n_speakers = self._settings.limits, len({turn.speaker for turn in turns})
        if n_speakers > limits.max_speakers:
            text = f"`input` has {n_speakers} speakers, max_speakers is {limits.max_speakers}"
            raise Problem("too_many_speakers", text, "input")
        if len(turns) > limits.max_queued_turns:
            text = f"`input` has {len(turns)} turns, max_queued_turns is {limits.max_queued_turns}"
            raise Problem("queue_full", text, "input")
        return turns, n_tokens

    async def _perform(
        self,
        request: web.Request,
        wanted: SpeechRequest,
        turns: list[Turn],
        answer: SpeechAnswer,
        container: Container,
    ) -> None:
        """Speak to the end, until it fails, or until the client leaves; then nothing is held any more."""
        performance = await self._open(wanted, answer, container)
        for number, turn in enumerate(turns, start=1):
            performance.add(str(number), [turn])
        over = asyncio.create_task(performance.wait_idle())
        try:
            while not over.done() and request.transport is not None:
                await asyncio.wait([over], timeout=_LOOK_S)
        finally:
            over.cancel()
            await performance.close()

    async def _open(self, wanted: SpeechRequest, answer: SpeechAnswer, container: Container) -> Performance:
        speech = self._state.speech
        settings = DialogueSettings(
            voices=choose_voices(speech, wanted.voice),
            sampling=choose_sampling(speech, wanted.sampling),
            seed=wanted.seed if wanted.seed is not None else secrets.randbits(63),
            history_seconds=speech.history_seconds,
            max_turn_seconds=self._settings.limits.max_turn_audio_ms / 1000,
            language=wanted.language,
        )
        complexity = self._settings.opus_complexity
        # An encoder takes milliseconds to make.
        make = speech.workers.submit(lambda: Packetizer(container.packets, SAMPLE_RATE, FRAME_MS, BITRATE, complexity))
        packetizer = await asyncio.wrap_future(make)
        try:
            return Performance(speech, Dialogue(speech.model.config, speech.tokenizer, settings), packetizer, answer)
        except Refused as refusal:
            packetizer.close()
            raise Problem(refusal.code, refusal.message, retry_after_ms=refusal.retry_after_ms) from None


def refuse_while_draining(state: Served) -> None:
    """Problem ``shutting_down`` for what would begin while the server stops."""
    if state.draining:
        raise Problem("shutting_down", "the server is stopping", retry_after_ms=_DRAINING_RETRY_MS)


async def _read_body(request: web.Request, settings: HttpSettings) -> bytes:
    body = bytearray()
    limit = settings.limits.max_message_bytes
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > limit:
            raise Problem("message_too_large", f"the body is larger than max_message_bytes ({limit})")
    return bytes(body)
