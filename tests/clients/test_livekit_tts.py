"""The LiveKit plugin against the real server, driven through the framework's own TTS classes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

pytest.importorskip("livekit.agents", reason="livekit-agents is not installed")

from clients.broken_wires import SENTENCE, through_a_proxy, told_by_the_server
from clients.livekit_rig import QUICK, assert_same_sound, embedded, errors_of, plugin, sound, spoken, stream_text
from cutting_proxy import CuttingProxy
from livekit.agents import APIConnectionError, APIConnectOptions, APIStatusError, APITimeoutError, tts
from livekit.agents.types import USERDATA_TIMED_TRANSCRIPT
from serving import BRIEF_PAUSE, WAIT_S, recorded, running, started

from streamer_client import LocalProtocolError, TurnCompleted, TurnStarted, TurnTruncated
from streamer_client.livekit import TTS
from streamer_protocol import Limits
from streamer_protocol.parsing import parse_server

UNPACED: dict[str, Any] = {"max_lead_s": None}
SHORT = Limits(max_turn_audio_ms=1200, max_text_chars=300)
NO_RESUME = Limits(resume_grace_ms=0, max_turn_audio_ms=1200)


def said(told: list[str | bytes], kind: type) -> list[Any]:
    """The server's messages of one type."""
    return [m for m in (parse_server(t) for t in told if isinstance(t, str)) if isinstance(m, kind)]


async def next_frame(stream: tts.SynthesizeStream) -> tts.SynthesizedAudio:
    return await asyncio.wait_for(anext(stream), WAIT_S)


async def test_two_streams_are_two_turns_of_one_dialogue() -> None:
    async with running(SHORT, **UNPACED) as server, CuttingProxy(server.port) as proxy, plugin(proxy.url) as speaker:
        metrics: list[Any] = []
        speaker.on("metrics_collected", metrics.append)
        assert speaker.capabilities.streaming
        assert not speaker.capabilities.aligned_transcript
        one = await stream_text(speaker, "Good ", "morning, ", "how are ", "you?")
        two = await stream_text(speaker, "I am very well.")
        expected = await spoken(server, "Good morning, how are you?", "I am very well.")
        assert_same_sound(sound(one) + sound(two), b"".join(expected))
        assert one[0].segment_id != two[0].segment_id
        assert proxy.accepted == 1
        assert [m.connection_reused for m in metrics] == [False, True]
        assert metrics[1].ttfb > 0
        assert speaker.model == "model"


async def test_a_complete_text_is_a_turn_of_the_same_dialogue() -> None:
    async with running(SHORT, **UNPACED) as server, plugin(server.url) as speaker:
        async with speaker.synthesize(SENTENCE, conn_options=QUICK) as stream:
            audio = [a async for a in stream]
        assert len(sound(audio)) > 2 * 1920
        before = recorded(server).requests[-1]
        await stream_text(speaker, "I am very well.")
        after = recorded(server).requests[-1]
        assert before.known_codes is None
        assert after.known_codes is not None


async def test_speech_starts_before_the_text_is_complete() -> None:
    async with running(SHORT, **UNPACED) as server, plugin(server.url) as speaker:
        async with speaker.stream(conn_options=QUICK) as stream:
            stream.push_text("The weather is so ")
            stream.push_text("nice today. ")
            await next_frame(stream)
            stream.push_text("Let us go.")
            stream.end_input()
            assert [a async for a in stream][-1].is_final


async def test_text_that_cannot_be_spoken_is_no_error() -> None:
    async with running(SHORT, **UNPACED) as server, CuttingProxy(server.port) as proxy, plugin(proxy.url) as speaker:
        errors = errors_of(speaker)
        for nothing in ("", " ", "\n \t"):
            assert await stream_text(speaker, nothing) == []
            async with speaker.synthesize(nothing, conn_options=QUICK) as chunks:
                assert [a async for a in chunks] == []
        assert proxy.accepted == 0
        for silent in ("...", " - "):
            assert set(sound(await stream_text(speaker, silent))) == {0}
            async with speaker.synthesize(silent, conn_options=QUICK) as chunks:
                assert set(sound([a async for a in chunks])) == {0}
        assert len(sound(await stream_text(speaker, " ", "", "Hello. ", " "))) > 1920
        assert errors == []


@pytest.mark.parametrize("complete", [False, True])
async def test_leaving_a_stream_stops_the_server_and_the_next_turn_follows(
    complete: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = told_by_the_server(monkeypatch)
    async with running(max_lead_s=1.0) as server, plugin(server.url) as speaker:
        stream = speaker.stream(conn_options=QUICK)
        stream.push_text(SENTENCE if complete else f"{SENTENCE} {SENTENCE} And")
        if complete:
            stream.end_input()
        heard = 0.0
        while heard < 0.6:
            heard += (await next_frame(stream)).frame.duration
        await stream.aclose()
        heard += sum([a.frame.duration async for a in stream])
        assert heard < 2
        assert len(sound(await stream_text(speaker, "Hello."))) > 1920
        first, second = said(told, TurnCompleted)
        assert (first.reason, second.turn) == ("cancelled", "t2")
        assert first.audio_ms < 2400
        (cut,) = said(told, TurnTruncated)
        assert (cut.turn, cut.heard_ms) == ("t1", first.audio_ms)
        assert 0 < len(cut.text) < len(SENTENCE)
        # The next turn follows from what was sent, and no more.
        assert recorded(server).requests[-1].known_codes is not None


async def test_a_stream_that_is_left_before_it_says_anything_leaves_nothing() -> None:
    async with running(SHORT, **UNPACED) as server, plugin(server.url) as speaker:
        async with speaker.stream(conn_options=QUICK):
            pass
        async with speaker.stream(conn_options=QUICK) as stream:
            stream.push_text(SENTENCE)
        assert len(sound(await stream_text(speaker, "Hello."))) > 1920


async def test_an_unknown_voice_is_not_tried_again() -> None:
    async with running() as server, plugin(server.url, voice="nobody") as speaker:
        errors = errors_of(speaker)
        with pytest.raises(APIStatusError, match="nobody") as caught:
            await stream_text(speaker, "Hello.")
        assert (caught.value.status_code, caught.value.retryable) == (404, False)
        assert [e.recoverable for e in errors] == [False]
        async with speaker.synthesize("Hello.", conn_options=QUICK) as chunks:
            with pytest.raises(APIStatusError, match="nobody"):
                _ = [a async for a in chunks]
        assert len(errors) == 2


async def test_a_full_server_is_tried_again() -> None:
    async with running(SHORT, max_sessions=1) as server, plugin(server.url) as speaker:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(started(server))
            speaking = asyncio.create_task(stream_text(speaker, "Hello."))
            errors: asyncio.Queue[tts.TTSError] = asyncio.Queue()
            speaker.on("error", errors.put_nowait)
            first = await asyncio.wait_for(errors.get(), WAIT_S)
        assert first.recoverable
        assert isinstance(first.error, APIStatusError)
        assert first.error.status_code == 429
        assert first.error.body["code"] == "overloaded"  # type: ignore[index]
        assert len(sound(await speaking)) > 1920


async def test_a_server_that_is_not_there_is_tried_again() -> None:
    async with running(SHORT, **UNPACED) as server, CuttingProxy(server.port) as proxy, plugin(proxy.url) as speaker:
        errors = errors_of(speaker)
        proxy.refuse(2)
        assert_same_sound(sound(await stream_text(speaker, "Hello.")), (await spoken(server, "Hello."))[0])
        assert [e.recoverable for e in errors] == [True, True]
        assert all(isinstance(e.error, APIConnectionError) for e in errors)


async def test_a_cut_before_the_first_audio_is_resumed_unnoticed() -> None:
    async with through_a_proxy(SHORT) as (server, proxy), plugin(proxy.url) as speaker:
        errors = errors_of(speaker)
        await stream_text(speaker, "Hello.")
        proxy.cut_after(up=1)
        assert_same_sound(sound(await stream_text(speaker, SENTENCE)), (await spoken(server, "Hello.", SENTENCE))[1])
        assert (proxy.accepted, errors) == (2, [])


async def test_a_cut_after_the_first_audio_loses_nothing() -> None:
    async with through_a_proxy(SHORT) as (server, proxy), plugin(proxy.url) as speaker:
        errors = errors_of(speaker)
        async with speaker.stream(conn_options=QUICK) as stream:
            stream.push_text(SENTENCE)
            audio = [await next_frame(stream)]
            proxy.cut()
            stream.end_input()
            audio += [a async for a in stream]
        assert_same_sound(sound(audio), (await spoken(server, SENTENCE))[0])
        assert (proxy.accepted, errors) == (2, [])


async def test_a_dialogue_that_is_lost_before_the_first_audio_is_begun_anew() -> None:
    async with (
        running(NO_RESUME, **UNPACED) as server,
        CuttingProxy(server.port) as proxy,
        plugin(proxy.url) as speaker,
    ):
        errors: asyncio.Queue[tts.TTSError] = asyncio.Queue()
        speaker.on("error", errors.put_nowait)
        await stream_text(speaker, "Hello.")
        proxy.cut_after(up=1)
        speaking = asyncio.create_task(stream_text(speaker, SENTENCE))
        first = await asyncio.wait_for(errors.get(), WAIT_S)
        assert first.recoverable
        # A new dialogue, which knows nothing of the first turn.
        assert_same_sound(sound(await speaking), (await spoken(server, SENTENCE))[0])
        assert errors.empty()


async def test_a_dialogue_that_is_lost_after_the_first_audio_is_an_error() -> None:
    async with (
        running(NO_RESUME, **UNPACED) as server,
        CuttingProxy(server.port) as proxy,
        plugin(proxy.url) as speaker,
    ):
        errors = errors_of(speaker)
        async with speaker.stream(conn_options=QUICK) as stream:
            stream.push_text(SENTENCE)
            await next_frame(stream)
            proxy.cut()
            with pytest.raises(APIConnectionError) as caught:
                _ = [a async for a in stream]
        assert not caught.value.retryable
        assert [e.recoverable for e in errors] == [False]
        assert len(sound(await stream_text(speaker, "Hello."))) > 1920


async def test_a_server_that_falls_silent_is_left() -> None:
    impatient = APIConnectOptions(max_retry=20, retry_interval=0.05, timeout=0.3)
    async with through_a_proxy(SHORT) as (server, proxy), plugin(proxy.url) as speaker:
        errors: asyncio.Queue[tts.TTSError] = asyncio.Queue()
        speaker.on("error", errors.put_nowait)
        await stream_text(speaker, "Hello.")
        proxy.stall("up", "down")
        speaking = asyncio.create_task(stream_text(speaker, SENTENCE, options=impatient))
        first = await asyncio.wait_for(errors.get(), WAIT_S)
        assert isinstance(first.error, APITimeoutError)
        assert first.recoverable
        proxy.cut()
        proxy.resume()
        assert_same_sound(sound(await speaking), (await spoken(server, SENTENCE))[0])


async def test_streams_at_the_same_time_do_not_wait_for_each_other() -> None:
    async with (
        running(SHORT, settings=BRIEF_PAUSE, **UNPACED) as server,
        CuttingProxy(server.port) as proxy,
        plugin(proxy.url) as speaker,
    ):
        async with speaker.stream(conn_options=QUICK) as slow:
            slow.push_text("Well, ")
            await next_frame(slow)
            other = sound(await stream_text(speaker, "Hello."))
            await proxy.wait_live(1)
            slow.push_text("hello.")
            slow.end_input()
            assert [a async for a in slow][-1].is_final
        assert_same_sound(other, (await spoken(server, "Hello."))[0])
        assert proxy.accepted == 2
        await stream_text(speaker, "Hello.")
        assert proxy.accepted == 2


async def test_another_speaker_goes_on_and_another_voice_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    told = told_by_the_server(monkeypatch)
    async with running(SHORT, **UNPACED) as server, CuttingProxy(server.port) as proxy, plugin(proxy.url) as speaker:
        await stream_text(speaker, "Hello.")
        speaker.update_options(speaker="S2")
        await stream_text(speaker, "Hi.")
        assert [turn.speaker for turn in said(told, TurnStarted)] == ["S1", "S2"]
        assert proxy.accepted == 1
        speaker.update_options(voice="two")
        await stream_text(speaker, "Hi.")
        assert said(told, TurnStarted)[-1].index == 0
        assert recorded(server).requests[-1].known_codes is None
        await proxy.wait_live(1)
        speaker.update_options(speaker="S2", voice="two")
        await stream_text(speaker, "Hi.")
        assert proxy.accepted == 2
        with pytest.raises(ValueError, match="S7"):
            speaker.update_options(speaker="S7")  # type: ignore[arg-type]


async def test_wrong_options_are_told_at_once() -> None:
    with pytest.raises(LocalProtocolError, match="seed"):
        TTS(seed=-1)
    with pytest.raises(LocalProtocolError, match="voices"):
        TTS(voices={"Anna": "one"})
    with pytest.raises(ValueError, match="S9"):
        TTS(speaker="S9")  # type: ignore[arg-type]
    async with plugin("ftp://nowhere") as speaker:
        with pytest.raises(APIConnectionError, match="not a server address") as caught:
            await stream_text(speaker, "Hello.")
        assert not caught.value.retryable


async def test_a_speaker_tag_and_a_text_that_is_too_long_are_refused() -> None:
    async with running(SHORT, **UNPACED) as server, plugin(server.url) as speaker:
        with pytest.raises(APIStatusError, match="invalid_script"):
            await stream_text(speaker, "[S2] Hello.")
        with pytest.raises(APIStatusError, match="text_too_long") as caught:
            await stream_text(speaker, "x" * 400)
        assert caught.value.status_code == 413
        assert len(sound(await stream_text(speaker, "Hello."))) > 1920


async def test_a_session_that_the_server_has_closed_is_replaced() -> None:
    limits = Limits(idle_timeout_ms=100, max_turn_audio_ms=1200)
    async with running(limits, **UNPACED) as server, CuttingProxy(server.port) as proxy, plugin(proxy.url) as speaker:
        errors = errors_of(speaker)
        speaker.prewarm()
        await proxy.wait_accepted(1)
        await proxy.wait_live(0)
        assert_same_sound(sound(await stream_text(speaker, "Hello.")), (await spoken(server, "Hello."))[0])
        assert (proxy.accepted, errors) == (2, [])


@pytest.mark.parametrize("audible", [True, False])
async def test_closing_while_it_speaks_ends_the_speech(audible: bool) -> None:
    async with running(max_lead_s=0.3) as server, CuttingProxy(server.port) as proxy, plugin(proxy.url) as speaker:
        async with speaker.stream(conn_options=QUICK) as stream:
            stream.push_text(SENTENCE)
            if audible:
                await next_frame(stream)
            else:
                await proxy.wait_accepted(1)
            await speaker.aclose()
            stream.end_input()
            with pytest.raises(APIConnectionError) as caught:
                _ = [a async for a in stream]
            assert not caught.value.retryable
        await speaker.aclose()
        assert proxy.accepted == 1


async def test_the_words_come_with_their_times() -> None:
    async with embedded() as server, plugin(server.url, voice="heart", words=True) as speaker:
        assert speaker.capabilities.aligned_transcript
        audio = await stream_text(speaker, "I am very well, ", "thank you for asking.")
    timed = [word for a in audio for word in a.frame.userdata[USERDATA_TIMED_TRANSCRIPT]]
    assert "".join(timed).strip() == "I am very well, thank you for asking."
    times = [time for word in timed for time in (word.start_time, word.end_time)]
    assert times == sorted(times)
    assert times[-1] <= len(sound(audio)) / 48_000


async def test_words_of_a_model_that_knows_none_are_refused() -> None:
    async with running() as server, plugin(server.url, words=True) as speaker:
        with pytest.raises(APIStatusError, match="not_supported"):
            await stream_text(speaker, "Hello.")
