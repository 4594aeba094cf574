"""The LiveKit plugin in a whole `AgentSession`, which runs offline: scripted answers, a loudspeaker of our own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("livekit.agents", reason="livekit-agents is not installed")

from clients.broken_wires import SENTENCE, told_by_the_server
from clients.livekit_rig import QUICK, Loudspeaker, assert_same_sound, pcm, plugin, spoken
from cutting_proxy import CuttingProxy
from livekit.agents import Agent, AgentSession, APIStatusError, ErrorEvent, tts
from livekit.agents.voice.agent_session import SessionConnectOptions
from livekit.agents.voice.transcription import TranscriptSynchronizer
from serving import WAIT_S, recorded, running

from streamer.server.context import DialogueContext
from streamer_client import TurnCompleted, TurnTruncated
from streamer_client.livekit import TTS
from streamer_protocol import Limits, Playback
from streamer_protocol.parsing import parse_server

SHORT = Limits(max_turn_audio_ms=1200)
HEARD_S = 0.8


@contextlib.asynccontextmanager
async def talking(speaker: TTS, loudspeaker: Loudspeaker, *, follow: bool = True) -> AsyncIterator[AgentSession[Any]]:
    """A session with neither room nor ears; its outputs are chained as a room's are."""
    options = SessionConnectOptions(tts_conn_options=QUICK)
    session: AgentSession[Any] = AgentSession(
        tts=speaker, vad=None, turn_handling={"turn_detection": "manual"}, conn_options=options
    )
    synchronizer = TranscriptSynchronizer(next_in_chain_audio=loudspeaker, next_in_chain_text=None)
    session.output.audio = synchronizer.audio_output
    session.output.transcription = synchronizer.text_output
    await session.start(Agent(instructions="Say what you are told."), record=False)
    if follow:
        speaker.follow(session)
    try:
        yield session
    finally:
        await session.aclose()
        await synchronizer.aclose()


async def written(*pieces: str) -> AsyncIterator[str]:
    """Stands in for an LLM."""
    for piece in pieces:
        yield piece


def said(told: list[str | bytes], kind: type) -> list[Any]:
    """The server's messages of one type."""
    return [m for m in (parse_server(t) for t in told if isinstance(t, str)) if isinstance(m, kind)]


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What sessions report to the server as played, in milliseconds."""
    told: list[int] = []
    played = DialogueContext.played

    def noted(context: DialogueContext, message: Playback) -> None:
        told.append(message.played_ms)
        played(context, message)

    monkeypatch.setattr(DialogueContext, "played", noted)
    return told


async def test_two_replies_are_heard_whole_and_reported(reports: list[int]) -> None:
    loudspeaker = Loudspeaker()
    async with running(SHORT, max_lead_s=None) as server, CuttingProxy(server.port) as proxy:
        async with plugin(proxy.url) as speaker, talking(speaker, loudspeaker) as session:
            await session.say(written("Good ", "morning, ", "how are ", "you?"))
            await session.say("I am very well.")
        expected = await spoken(server, "Good morning, how are you?", "I am very well.")
        assert len(loudspeaker.segments) == 2
        for segment, reply in zip(loudspeaker.segments, expected, strict=True):
            assert_same_sound(pcm(segment), reply)
        assert proxy.accepted == 1
    lengths_ms = [len(reply) // 48 for reply in expected]
    assert reports == [lengths_ms[0], sum(lengths_ms)]


@pytest.mark.parametrize("made", ["in part", "whole"])
async def test_an_interruption_stops_the_server_and_it_remembers_what_was_heard(
    made: str, monkeypatch: pytest.MonkeyPatch, reports: list[int]
) -> None:
    told = told_by_the_server(monkeypatch)
    loudspeaker = Loudspeaker(slow=True, heard_s=HEARD_S)
    lead_s = 1.0 if made == "in part" else None
    limits = Limits(max_turn_audio_ms=2400 if made == "in part" else 1200)
    async with running(limits, max_lead_s=lead_s) as server, plugin(server.url) as speaker:
        async with talking(speaker, loudspeaker) as session:
            reply = session.say(written(SENTENCE))
            await asyncio.wait_for(loudspeaker.given(0.85 if made == "in part" else 1.2), WAIT_S)
            await session.interrupt()
            await reply
            given_s = loudspeaker.given_s
            loudspeaker.slow = False
            await session.say("Hello.")
            assert reply.interrupted
            assert len(loudspeaker.segments) == 2
            assert sum(frame.duration for frame in loudspeaker.segments[0]) == given_s
        assert said(told, TurnCompleted)[0].reason == ("cancelled" if made == "in part" else "max_length")
        cut = said(told, TurnTruncated)[-1]
        assert (cut.turn, cut.heard_ms) == ("t1", HEARD_S * 1000)
        assert SENTENCE.startswith(cut.text)
        assert 0 < len(cut.text) < len(SENTENCE)
        # The next reply follows from what was heard.
        assert recorded(server).requests[-1].known_codes is not None
    assert reports == [round((HEARD_S + loudspeaker.given_s) * 1000)]


async def test_an_interruption_that_nobody_follows_still_stops_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    told = told_by_the_server(monkeypatch)
    loudspeaker = Loudspeaker(slow=True, heard_s=HEARD_S)
    async with running(max_lead_s=1.0) as server:
        async with plugin(server.url) as speaker, talking(speaker, loudspeaker, follow=False) as session:
            session.say(SENTENCE)
            await asyncio.wait_for(loudspeaker.given(0.85), WAIT_S)
            await session.interrupt()
            loudspeaker.slow = False
            await session.say("...")
        assert said(told, TurnCompleted)[0].reason == "cancelled"


async def test_an_error_reaches_the_session_and_it_lives_on() -> None:
    loudspeaker = Loudspeaker()
    async with running(SHORT) as server, plugin(server.url, voice="nobody") as speaker:
        async with talking(speaker, loudspeaker) as session:
            told: list[ErrorEvent] = []
            session.on("error", told.append)
            before = asyncio.all_tasks()
            reply = session.say("Hello.")
            tasks = asyncio.all_tasks() - before
            await reply
            # The framework does not look at what became of its task, and asyncio would complain at some later time.
            (failure,) = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(failure, APIStatusError)
            (event,) = told
            assert isinstance(event.error, tts.TTSError)
            assert not event.error.recoverable
            assert "nobody" in str(event.error.error)
            speaker.update_options(voice="one")
            await session.say("Hello.")
            assert len(pcm(loudspeaker.segments[0])) > 1920


async def test_only_a_session_that_is_heard_can_be_followed() -> None:
    async with plugin("127.0.0.1:1") as speaker:
        session: AgentSession[Any] = AgentSession(tts=speaker, vad=None)
        with pytest.raises(ValueError, match="no audio output"):
            speaker.follow(session)
        session.output.audio = Loudspeaker()
        speaker.follow(session)
        first = session.output.audio
        speaker.follow(session)
        assert session.output.audio is first
