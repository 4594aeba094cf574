"""`bridge`: from an accepted WebSocket of Twilio's to a line that can be spoken on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Literal

from streamer_client.audio import Samples
from streamer_client.connecting import connect
from streamer_client.dialogue import Dialogue
from streamer_client.errors import ClientError
from streamer_client.settings import ClientSettings
from streamer_client.starting import session_start
from streamer_client.twilio import messages
from streamer_client.twilio.call import Call
from streamer_client.twilio.caller import PHONE_RATE, CallerAudio
from streamer_client.twilio.events import Dtmf, HungUp, Started
from streamer_client.twilio.line import PhoneLine
from streamer_client.twilio.messages import INBOUND, FromTwilio, parse
from streamer_client.twilio.sockets import SOCKET_ERRORS, PhoneSocket, close_reason
from streamer_protocol import AudioFormat, LocalProtocolError, Sampling, SessionClosed, Speaker

START_TIMEOUT_S = 10.0
TELEPHONY = AudioFormat(format="mulaw", sample_rate=PHONE_RATE, frame_ms=20)
_NORMAL, _PROTOCOL_ERROR, _INTERNAL_ERROR = 1000, 1002, 1011
_log = logging.getLogger(__name__)


async def bridge(
    websocket: PhoneSocket,
    *,
    url: str,
    voices: Mapping[str, str] | None = None,
    speaker: Speaker = "S1",
    on_audio: Callable[[Samples], None] | None = None,
    on_audio_rate: Literal[8000, 16000] = 16000,
    greeting: str | None = None,
    language: str | None = None,
    seed: int | None = None,
    sampling: Sampling | None = None,
    api_key: str | None = None,
    settings: ClientSettings | None = None,
) -> PhoneLine:
    """Answer a call on an accepted WebSocket; returns when it can be spoken on, or is over already.

    `url`, `voices`, `language`, `seed`, `sampling`, `api_key` and `settings` are those of `connect`. `speaker` says
    what is not given to another, `greeting` first of all. `on_audio` gets what the caller says, (samples,) float32 at
    `on_audio_rate`, on the event loop: it must be quick. To 16 kHz, soxr resamples, and holds 64 ms back on average.

    What the phone's side or the server does wrong ends the call with a `HungUp` event and is not raised. Raises
    LocalProtocolError for an argument that can't be, ClientError if soxr is needed and missing.
    """
    if speaker not in (speakers := ("S1", "S2", "S3", "S4", "S5")):
        raise LocalProtocolError(f"speaker: `{speaker}` is none of {', '.join(speakers)}")
    session_start("main", voices, TELEPHONY, "turns", language, False, seed, sampling)
    caller = None if on_audio is None else CallerAudio(on_audio, on_audio_rate)
    call = Call(websocket)
    dialogue = connect(
        url,
        voices=voices,
        audio=TELEPHONY,
        language=language,
        seed=seed,
        sampling=sampling,
        api_key=api_key,
        settings=settings,
    )
    driver = _Driver(call, caller)
    line = PhoneLine(call, speaker, asyncio.create_task(driver.run(dialogue)))
    try:
        await driver.answered.wait()
        if greeting is not None:
            await line.say(greeting)
    except BaseException:
        await line.close()
        raise
    return line


class _Driver:
    """Runs one call from its first message to its end."""

    def __init__(self, call: Call, caller: CallerAudio | None) -> None:
        self.answered = asyncio.Event()  # the dialogue is open, or the call is over
        self._call = call
        self._caller = caller
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._close_code = _NORMAL
        self._warned = False

    async def run(self, dialogue: AbstractAsyncContextManager[Dialogue]) -> None:
        """Listen and talk until one of them, or the program, ends the call; then everything is given back."""
        listening = asyncio.create_task(self._listen())
        talking = asyncio.create_task(self._talk(dialogue))
        why = HungUp("us", "the bridge was stopped")
        try:
            ways: set[asyncio.Future[Any]] = {listening, talking, self._call.hang_up}
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            why = self._why(listening, talking)
        finally:
            self._call.end(why)
            self.answered.set()
            listening.cancel()
            talking.cancel()
            await asyncio.wait([listening])
            with suppress(*SOCKET_ERRORS):
                await self._call.socket.close(self._close_code, close_reason(why.reason))
            await asyncio.wait([talking])

    def _why(self, *tasks: asyncio.Task[HungUp]) -> HungUp:
        for task in tasks:
            if not task.done():
                continue
            error = task.exception()
            if error is None:
                return task.result()
            _log.error("a call ends by a fault", exc_info=error)
            self._close_code = _INTERNAL_ERROR
            return HungUp("us", f"the bridge failed: {error!r}")
        return HungUp("us", self._call.hang_up.result())

    async def _talk(self, dialogue: AbstractAsyncContextManager[Dialogue]) -> HungUp:
        """Hold the dialogue, and send what it says to the phone."""
        try:
            await asyncio.wait_for(self._started, START_TIMEOUT_S)
        except asyncio.TimeoutError:
            return self._refuse(f"no `start` came within {START_TIMEOUT_S:g} s")
        try:
            async with dialogue as opened:
                self._call.dialogue = opened
                self.answered.set()
                reason = await self._relay(opened)
        except (ClientError, LocalProtocolError) as error:
            reason = str(error)
        self._close_code = _INTERNAL_ERROR
        return HungUp("server", reason)

    async def _relay(self, dialogue: Dialogue) -> str:
        """Until the server closes the session; returns why it did."""
        reporting = asyncio.create_task(self._call.report(dialogue))
        reason = "the session was closed"
        try:
            async for event in dialogue.events():
                if isinstance(event, SessionClosed):
                    reason = f"the server closed the session: {event.reason}"
                await self._call.take(event)
        finally:
            reporting.cancel()
            await asyncio.wait([reporting])
        return reason

    async def _listen(self) -> HungUp:
        """Take what the phone's side says, until it is gone."""
        try:
            async for data in self._call.socket:
                why = self._take(parse(data))
                if why is not None:
                    return why
        except SOCKET_ERRORS as error:
            return HungUp("caller", f"the phone's connection broke: {error}")
        return HungUp("caller", "the phone's connection was closed without `stop`")

    def _take(self, message: FromTwilio | str) -> HungUp | None:
        """One message, or what was wrong with it; returns why the call is over, if it is."""
        if isinstance(message, messages.Stop):
            return HungUp("caller", "the call ended")
        if not self._started.done():
            return self._begin(message)
        if isinstance(message, str):
            self._pass_over(message)
        elif isinstance(message, messages.Connected | messages.Start):
            self._pass_over("a second beginning of the stream")
        elif message.stream_sid != self._call.stream_sid:
            self._pass_over("a message of another stream")
        elif isinstance(message, messages.Media):
            return self._hear(message)
        elif isinstance(message, messages.Mark):
            self._call.mark_returned(message.mark.name)
        else:
            self._call.emit(Dtmf(message.dtmf.digit))
        return None

    def _begin(self, message: FromTwilio | str) -> HungUp | None:
        if isinstance(message, messages.Connected):
            return None
        if not isinstance(message, messages.Start):
            text = message if isinstance(message, str) else f"{type(message).__name__.lower()} before start"
            return self._refuse(f"this is no media stream of Twilio's: {text}")
        given = message.start.media_format
        if (given.encoding, given.sample_rate, given.channels) != ("audio/x-mulaw", PHONE_RATE, 1):
            text = f"{given.encoding} at {given.sample_rate} Hz with {given.channels} channels"
            return self._refuse(f"the stream is {text}; only audio/x-mulaw at {PHONE_RATE} Hz, mono, is spoken here")
        self._call.stream_sid = message.stream_sid
        self._started.set_result(None)
        body = message.start
        self._call.emit(Started(body.call_sid, message.stream_sid, body.account_sid, body.custom_parameters))
        return None

    def _hear(self, message: messages.Media) -> HungUp | None:
        if self._caller is None or message.media.track != INBOUND:
            return None
        try:
            self._caller.push(message.media.payload)
        except Exception as error:
            _log.exception("on_audio failed")
            self._close_code = _INTERNAL_ERROR
            return HungUp("us", f"on_audio failed: {error!r}")
        return None

    def _refuse(self, reason: str) -> HungUp:
        self._close_code = _PROTOCOL_ERROR
        return HungUp("us", reason)

    def _pass_over(self, what: str) -> None:
        """A message that means nothing is no reason to end a call; the log tells of the first."""
        if not self._warned:
            self._warned = True
            _log.warning("call %s: passed over %s", self._call.stream_sid, what)
