"""An agent's turns through Pipecat's own pipeline, against the real server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from clients.pipecat_running import Call, calling, reply_frames
from pipecat.frames.frames import (
    MetricsFrame,
    TextFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    TTSUpdateSettingsFrame,
)
from pipecat.metrics.metrics import TTFBMetricsData, TTSUsageMetricsData
from pipecat.services.tts_service import TextAggregationMode
from pipecat.utils.errors import ErrorCategory
from server.test_server_live_text import texts
from server.test_server_words import embedded
from serving import recorded, running

from streamer.server import DialogueServer
from streamer_client import Sampling
from streamer_client.pipecat import DialogueTTSService, DialogueTTSSettings

GREEDY = Sampling(audio_temperature=0, text_temperature=0)


def service(server: DialogueServer, **options: Any) -> DialogueTTSService:
    return DialogueTTSService(url=server.url, sampling=GREEDY, seed=1, **options)


def story(call: Call) -> list[str]:
    """What was handed on, each run of audio and each run of words as one entry."""
    kinds = (TTSStartedFrame, TTSAudioRawFrame, TTSStoppedFrame)
    names = [type(frame).__name__ for frame in call.spoken.down if isinstance(frame, kinds)]
    return [name for i, name in enumerate(names) if name != "TTSAudioRawFrame" or names[i - 1] != name]


async def test_two_turns_of_one_dialogue() -> None:
    async with running() as server:
        async with calling(service(server)) as call:
            await call.reply("Good ", "morning", ", how are ", "you today?")
            await call.heard_out(1)
            await call.reply("That is good.")
            await call.stopped(2)
        assert "Good morning, how are you today?" in texts(server)[-1], "the dialogue remembers the turn before"
    assert story(call) == ["TTSStartedFrame", "TTSAudioRawFrame", "TTSStoppedFrame"] * 2
    first, second = call.contexts
    for context_id in (first, second):
        frames = call.spoken.of(TTSAudioRawFrame, context_id)
        assert {(f.sample_rate, f.num_channels) for f in frames} == {(24_000, 1)}
        assert all(len(f.audio) == f.num_frames * 2 > 0 for f in frames)
        assert np.abs(np.frombuffer(call.audio(context_id), "<i2")).max() > 100
    assert bytes(call.speaker.played) == call.audio()
    assert call.assistant_messages == ["Good morning, how are you today?", "That is good."]
    times = [frame.pts or 0 for frame in call.spoken.of(TTSTextFrame)]
    assert times == sorted(times)
    assert not call.before.errors


async def test_metrics_count_what_was_said() -> None:
    async with running() as server:
        async with calling(service(server)) as call:
            await call.reply("Good ", "morning.")
            await call.stopped(1)
    data = [d for frame in call.spoken.of(MetricsFrame) for d in frame.data if d.processor.startswith("Dialogue")]
    assert [d.value > 0 for d in data if isinstance(d, TTFBMetricsData)][-1:] == [True]
    assert [d.value for d in data if isinstance(d, TTSUsageMetricsData)] == [len("Good morning.")]


@pytest.mark.parametrize("sample_rate", [8000, 16_000, 44_100])
async def test_audio_comes_at_the_pipelines_rate(sample_rate: int) -> None:
    async with running() as server:
        async with calling(service(server, sample_rate=sample_rate)) as call:
            await call.reply("Hello there.")
            await call.stopped(1)
        n_rows = len(next(iter(recorded(server).rows.values())))
    frames = call.spoken.of(TTSAudioRawFrame)
    assert {frame.sample_rate for frame in frames} == {sample_rate}
    seconds = sum(frame.num_frames for frame in frames) / sample_rate
    assert seconds % 0.08 == pytest.approx(0, abs=1e-3) or seconds % 0.08 == pytest.approx(0.08, abs=1e-3)
    assert 0 < seconds <= n_rows * 0.08


async def test_a_rate_that_the_server_has_not_is_reported() -> None:
    async with running() as server:
        async with calling(service(server, sample_rate=11_025)) as call:
            await call.before.until(lambda: call.before.errors)
    assert "sample_rate" in call.before.errors[0].error
    assert call.before.errors[0].category is ErrorCategory.INVALID_REQUEST


async def test_nothing_to_say_is_no_turn() -> None:
    async with running() as server:
        async with calling(service(server)) as call:
            await call.reply()
            await call.reply("", " ", "\n\n")
            await call.say(TTSSpeakFrame(""))
            await call.reply("Hello.")
            await call.stopped(1)
    assert story(call) == ["TTSStartedFrame", "TTSAudioRawFrame", "TTSStoppedFrame"]
    assert not call.before.errors


async def test_spoken_lines_and_loose_text_are_turns_of_their_own() -> None:
    """Text that nobody ever says is complete must not hold up what comes after it."""
    async with running() as server:
        async with calling(service(server)) as call:
            await call.say(TTSSpeakFrame("One moment."), TextFrame("Loose text."))
            await call.reply("Here it is.")
            await call.stopped(3)
    assert len(set(call.contexts)) == 3
    assert call.assistant_messages[0] == "One moment."
    assert not call.before.errors


async def test_a_line_in_the_middle_of_a_reply() -> None:
    async with running() as server:
        async with calling(service(server)) as call:
            begin, *rest = reply_frames("Here ", "it is.")
            await call.say(begin, rest[0], TTSSpeakFrame("One moment."), *rest[1:])
            await call.stopped(2)
        spoken = "\n".join(texts(server))
    assert "Here it is." in spoken
    assert "One moment." in spoken
    assert not call.before.errors


async def test_sentences_that_pipecat_finds_keep_their_distance() -> None:
    async with running() as server:
        mode = TextAggregationMode.SENTENCE
        async with calling(service(server, text_aggregation_mode=mode)) as call:
            await call.reply("Hello", " there. How", " are you?")
            await call.stopped(1)
        assert "Hello there. How are you?" in texts(server)[-1]
    assert len(call.contexts) == 1
    assert call.assistant_messages == ["Hello there. How are you?"]


async def test_the_speaker_changes_within_the_dialogue_and_the_voice_with_it() -> None:
    settings = DialogueTTSSettings(voices={"S1": "one", "S2": "two"}, language="de")
    async with running() as server:
        tts = service(server, settings=settings)
        async with calling(tts) as call:
            await call.reply("Hello.")
            await call.say(TTSUpdateSettingsFrame(delta=DialogueTTSSettings(speaker="S2")))
            await call.reply("Good morning.")
            await call.stopped(2)
            assert tts._settings.voice == "two"
            assert "[S1]Hello.[S2]Good morning." in texts(server)[-1]
            assert "Language:\nde" in texts(server)[-1]
            await call.say(TTSUpdateSettingsFrame(delta=DialogueTTSSettings(voice="one")))
            await call.reply("And again.")
            await call.stopped(3)
            assert "Hello" not in texts(server)[-1], "other voices are another dialogue"
            assert "[S2]And again." in texts(server)[-1]
    assert not call.before.errors


async def test_words_are_timed_by_the_model_where_it_can() -> None:
    text = "I am very well, thank you for asking."
    async with embedded() as server:
        async with calling(DialogueTTSService(url=server.url, words=True, seed=2)) as call:
            await call.reply(text)
            await call.stopped(1)
    words = call.spoken.of(TTSTextFrame)
    assert [word.text for word in words] == text.split()
    begin_ns = words[0].pts or 0
    seconds = sum(f.num_frames for f in call.spoken.of(TTSAudioRawFrame)) / 24_000
    assert seconds / 3 < ((words[-1].pts or 0) - begin_ns) / 1e9 < seconds
    assert call.assistant_messages == [text]
    assert not call.before.errors
