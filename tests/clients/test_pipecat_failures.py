"""What can go wrong in a call: refusals, cut connections, a server that is not there."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients.broken_wires import FAST, NO_PACING_S
from clients.pipecat_running import Call, calling, reply_frames
from cutting_proxy import CuttingProxy
from msgspec.structs import replace
from pipecat.frames.frames import InterruptionFrame, TTSAudioRawFrame, TTSSpeakFrame
from pipecat.utils.errors import ErrorCategory
from server.test_server_live_text import texts
from serving import BRIEF_PAUSE, LIMITS, WAIT_S, running

from streamer.server.keys import add_key
from streamer_client import Sampling
from streamer_client.pipecat import DialogueTTSService, DialogueTTSSettings

GREEDY = Sampling(audio_temperature=0, text_temperature=0)
SENTENCE = "The weather is so nice today."


def service(url: str, **options: Any) -> DialogueTTSService:
    return DialogueTTSService(url=url, sampling=GREEDY, seed=1, client_settings=FAST, **options)


def told(call: Call) -> list[tuple[str, ErrorCategory | None]]:
    """The errors that name a code, by code and category; Pipecat adds its own about silent turns."""
    codes = [(frame.error.split(":")[0], frame.category) for frame in call.before.errors]
    return [(code, category) for code, category in codes if " " not in code]


async def test_an_unknown_voice_is_reported_at_once_and_for_good() -> None:
    async with running() as server:
        settings = DialogueTTSSettings(voice="nobody")
        async with calling(service(server.url, settings=settings)) as call:
            await call.before.until(lambda: call.before.errors)
            assert told(call) == [("unknown_voice", ErrorCategory.INVALID_REQUEST)]
            assert not call.tts.is_usable
            await call.reply("Does anybody hear me?")
    assert not call.audio()


@pytest.mark.parametrize(
    ("code", "pieces"),
    [
        ("text_too_long", ["a " * 200]),
        ("no_speech", ["...", " ..."]),
        ("invalid_script", ["Hello. ", "[S2] Hi.", " More."]),
    ],
)
async def test_a_text_that_is_refused_costs_its_turn_only(code: str, pieces: list[str]) -> None:
    async with running() as server:
        async with calling(service(server.url)) as call:
            await call.reply(*pieces)
            await call.reply(SENTENCE)
            await call.stopped(2)
            assert call.tts.is_usable
        assert SENTENCE in texts(server)[-1]
    assert told(call) == [(code, ErrorCategory.APPLICATION)]
    assert call.audio(call.contexts[1])


@pytest.mark.parametrize("spoken_already", [True, False])
async def test_a_turn_goes_on_without_the_piece_that_is_too_much(spoken_already: bool) -> None:
    async with running(replace(LIMITS, max_turn_audio_ms=8000), max_lead_s=NO_PACING_S) as server:
        async with calling(service(server.url)) as call:
            begin, *rest = reply_frames("Hello there. ", "a " * 200, "Good bye.")
            await call.say(begin, rest[0])
            if spoken_already:
                await call.spoken.until(lambda: call.spoken.of(TTSAudioRawFrame))
            await call.say(*rest[1:])
            await call.stopped(1)
        assert "Good bye." in texts(server)[-1]
        assert call.audio()
    assert told(call) == [("text_too_long", ErrorCategory.APPLICATION)]


async def test_the_rest_of_a_refused_text_opens_no_new_turn() -> None:
    async with running() as server:
        async with calling(service(server.url)) as call:
            begin, *rest = reply_frames("[S2] Hi.", " More", " and more.")
            await call.say(begin, rest[0])
            await call.before.until(lambda: call.before.errors)
            for _ in range(100):
                await asyncio.sleep(0)  # whatever the error sets off is done
            await call.say(*rest[1:])
            await call.stopped(1)
    assert len(call.contexts) == 1
    assert told(call) == [("invalid_script", ErrorCategory.APPLICATION)]


async def test_a_speaker_that_there_is_not() -> None:
    async with running() as server:
        async with calling(service(server.url, settings=DialogueTTSSettings(speaker="S9"))) as call:
            await call.reply("Hello ", "there.")
            await call.stopped(1)
    assert "S9" in call.before.errors[0].error
    assert call.before.errors[0].category is ErrorCategory.INVALID_REQUEST


async def test_a_reply_that_the_llm_never_ends_is_spoken_when_the_call_ends() -> None:
    async with running() as server:
        async with calling(service(server.url)) as call:
            await call.say(*reply_frames("Hello there, ", "my friend")[:-1])
        assert "my friend" in texts(server)[-1]
    assert call.audio()


async def test_a_key_that_is_wrong(tmp_path: Path) -> None:
    add_key(tmp_path / "keys.jsonl", "agent")
    async with running(settings={"keys_file": tmp_path / "keys.jsonl"}) as server:
        async with calling(service(server.url, api_key="wrong")) as call:
            await call.before.until(lambda: call.before.errors)
    (error,) = call.before.errors
    assert error.category is ErrorCategory.AUTHENTICATION
    assert "unauthorized" in error.error
    assert "wrong" not in error.error


async def test_a_server_that_is_not_there_and_then_is() -> None:
    async with running() as server, CuttingProxy(server.port) as proxy:
        proxy.refuse(2)
        async with calling(service(proxy.url)) as call:
            await call.reply(SENTENCE)
            await call.stopped(1)
            assert not call.audio()
            await call.reply(SENTENCE)
            await call.stopped(2)
    assert call.audio()
    assert [frame.category for frame in call.before.errors[:2]] == [ErrorCategory.CONNECTIVITY] * 2


def heard_of(call: Call, n: int) -> bytes:
    return b"" if len(call.contexts) <= n else call.audio(call.contexts[n])


async def spoken(url: str, proxy: CuttingProxy | None = None) -> Call:
    """One line, with cuts after every few frames if there is a proxy."""
    async with calling(service(url)) as call:
        for n, text in enumerate((SENTENCE, "That is good.")):
            await call.say(TTSSpeakFrame(text))
            if proxy is not None:
                await call.spoken.until(partial(heard_of, call, n))
                proxy.cut()
            await call.stopped(n + 1)
    return call


async def test_a_cut_connection_loses_nothing() -> None:
    async with running(max_lead_s=NO_PACING_S) as server:
        whole = await spoken(server.url)
        async with CuttingProxy(server.port) as proxy:
            cut = await spoken(proxy.url, proxy)
            assert proxy.accepted > 1
    first, second = (np.frombuffer(bytes(call.speaker.played), "<i2").astype(int) for call in (whole, cut))
    assert len(first) == len(second) > 0
    assert np.abs(first - second).max() <= 2, "the same sound, but for rounding"
    assert not cut.before.errors


async def test_a_dialogue_that_can_not_be_resumed_is_replaced() -> None:
    limits = replace(LIMITS, resume_grace_ms=0)
    async with running(limits, settings=BRIEF_PAUSE, max_unsent_frames=2) as server, CuttingProxy(server.port) as proxy:
        async with calling(service(proxy.url)) as call:
            begin, *rest = reply_frames(SENTENCE, " And so on.")
            await call.say(begin, rest[0])
            await call.spoken.until(lambda: call.spoken.of(TTSAudioRawFrame))
            proxy.cut()
            await call.stopped(1)
            await call.before.until(lambda: call.before.errors)
            await proxy.wait_accepted(2)
            await call.say(*rest[1:])
            await call.reply("Hello again.")
            await call.spoken.until(lambda: call.assistant_messages or len(call.contexts) >= 3)
            await call.stopped(3)
        assert SENTENCE not in texts(server)[-1]
    assert call.before.errors[0].category is ErrorCategory.CONNECTIVITY
    assert "the server vanished" in call.before.errors[0].error
    assert call.tts.is_usable


class KeptAlive(DialogueTTSService):
    """Counts."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.n_kept = 0
        self.kept = asyncio.Event()

    async def _send_keepalive(self) -> None:
        await super()._send_keepalive()
        self.n_kept += 1
        self.kept.set()

    async def wait_kept(self, n: int) -> None:
        while self.n_kept < n:
            self.kept.clear()
            await asyncio.wait_for(self.kept.wait(), WAIT_S)


async def test_a_silent_call_is_kept() -> None:
    """For twice as long as the server lets a session idle."""
    async with running(replace(LIMITS, idle_timeout_ms=300)) as server:
        tts = KeptAlive(url=server.url, sampling=GREEDY)
        async with calling(tts) as call:
            await call.reply("Hello.")
            await call.stopped(1)
            await tts.wait_kept(tts.n_kept + 7)
            await call.reply(SENTENCE)
            await call.stopped(2)
        assert "Hello." in texts(server)[-1]
    assert not call.before.errors


async def test_a_session_that_the_server_ends_is_replaced() -> None:
    async with running() as server:
        async with calling(service(server.url)) as call:
            connected = asyncio.Event()
            call.tts.add_event_handler("on_connected", lambda _: connected.set())
            (session,) = server.state.sessions.all()
            server.state.sessions.end(session, "session_too_long")
            await asyncio.wait_for(connected.wait(), WAIT_S)
            await call.reply(SENTENCE)
            await call.stopped(1)
    assert call.audio()
    assert not call.before.errors


async def test_a_call_can_be_cancelled_in_the_middle() -> None:
    async with running(settings=BRIEF_PAUSE, max_lead_s=0.5) as server:
        with pytest.raises(ZeroDivisionError):
            async with calling(service(server.url), allowed_chunks=2) as call:
                await call.say(*reply_frames(SENTENCE)[:-1])
                await call.spoken.until(lambda: call.spoken.of(TTSAudioRawFrame))
                raise ZeroDivisionError
        # On its way out, `running` looks whether the server still holds anything.


async def test_a_resuming_client_may_be_interrupted() -> None:
    """While the connection is away, what was heard is remembered, and told once it is back."""
    async with running(replace(LIMITS, max_turn_audio_ms=8000), max_unsent_frames=3, max_lead_s=1.0) as server:
        async with CuttingProxy(server.port) as proxy:
            async with calling(service(proxy.url), allowed_chunks=4) as call:
                await call.reply("One two three four five six seven eight nine ten.")
                await call.heard.until(lambda: len(call.heard.of(TTSAudioRawFrame)) >= 4)
                proxy.cut()
                await call.say(InterruptionFrame())
                await call.reply("Yes?")
                await call.spoken.until(lambda: len(call.contexts) > 1)
                call.speaker.allow(1000)
                await call.stopped(1)
            assert proxy.accepted > 1
        assert "ten" not in texts(server)[-1]
    assert not call.before.errors
