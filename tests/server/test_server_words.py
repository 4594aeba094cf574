"""Word times while a turn is spoken, and the turns of a script that is spoken in one pass; by the embedded model."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from serving import RawClient, assert_at_rest, started

from streamer.engine import EngineConfig
from streamer.server import DialogueServer, ServerConfig
from streamer.speech import Speech, SpeechConfig
from streamer_protocol import AudioFrame

FIRST, SECOND, THIRD = "How are you today?", "I am very well, thank you for asking.", "That is good."
SCRIPT = f"[S1] {FIRST} [S2] {SECOND} [S1] {THIRD}"


@contextlib.asynccontextmanager
async def embedded() -> AsyncIterator[DialogueServer]:
    speech = Speech.load(SpeechConfig(engine=EngineConfig(max_sessions=4, max_lead_s=None)))
    speech.engine.start()
    try:
        async with DialogueServer(speech, ServerConfig(port=0)) as server:
            yield server
        await assert_at_rest(server)
    finally:
        await asyncio.to_thread(speech.close)


def words_of(client: RawClient, turn: str) -> list[tuple[str, int, int]]:
    said = [m for m in client.log if isinstance(m, dict) and m["type"] == "turn.words" and m["turn"] == turn]
    return [tuple(word) for m in said for word in m["words"]]


def check(words: list[tuple[str, int, int]], text: str, audio_ms: int) -> None:
    """Every word once, in order, one after the other, within the turn."""
    assert [word for word, _, _ in words] == text.split()
    times = [time for _, start_ms, end_ms in words for time in (start_ms, end_ms)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= audio_ms


def report(client: RawClient, turn: str) -> dict[str, Any]:
    return next(m for m in client.log if isinstance(m, dict) and m["type"] == "turn.completed" and m["turn"] == turn)


async def test_words_come_while_the_turn_is_spoken() -> None:
    async with embedded() as server, started(server, words=True, sampling={}) as client:
        await client.send("script.append", text=f"[S1] {FIRST} [S2] {SECOND}", script="s")
        await client.until("session.idle")
        for turn, text in (("s.1", FIRST), ("s.2", SECOND)):
            check(words_of(client, turn), text, report(client, turn)["audio_ms"])
        # Not all at the end.
        first_words = next(n for n, m in enumerate(client.log) if isinstance(m, dict) and m["type"] == "turn.words")
        assert first_words < max(n for n, m in enumerate(client.log) if isinstance(m, AudioFrame) and m.turn_index == 0)
        # A later word is not said at the beginning: the times follow the voice.
        assert words_of(client, "s.2")[-1][1] > report(client, "s.2")["audio_ms"] / 3


async def test_a_script_in_one_pass_has_its_turns() -> None:
    async with embedded() as server, started(server, words=True, mode="script", sampling={}) as client:
        await client.send("script.append", text=SCRIPT, script="s")
        accepted = await client.until("script.accepted")
        assert [turn["turn"] for turn in accepted["turns"]] == ["s.1", "s.2", "s.3"]
        await client.until("session.idle")
        n_frames = 0
        for index, (turn, speaker, text) in enumerate(
            [("s.1", "S1", FIRST), ("s.2", "S2", SECOND), ("s.3", "S1", THIRD)]
        ):
            begun = next(
                m for m in client.log if isinstance(m, dict) and m["type"] == "turn.started" and m["turn"] == turn
            )
            assert (begun["index"], begun["speaker"], begun["first_frame"]) == (index, speaker, n_frames)
            done = report(client, turn)
            assert done["reason"] in ("end", "max_length")
            assert done["frames"] == sum(f.turn_index == index for f in client.frames) > 0
            check(words_of(client, turn), text, done["audio_ms"])
            n_frames += done["frames"]
        assert n_frames == len(client.frames)
        assert [f.frame for f in client.frames] == list(range(n_frames))
        # What follows goes on from the turns, one by one.
        await client.send("turn.create", turn="next", speaker="S2", text="Yes.")
        await client.spoken("next")


async def test_to_cancel_one_turn_of_a_pass_ends_the_pass() -> None:
    async with embedded() as server, started(server, words=True, mode="script", sampling={}) as client:
        await client.send("script.append", text=SCRIPT, script="s")
        await client.audio(1)
        await client.send("turn.cancel", turn="s.3")
        for turn in ("s.1", "s.2", "s.3"):
            await client.until("turn.completed", turn=turn, reason="cancelled")
        await client.until("session.idle")
        await client.send("script.append", text="[S1] Hello there.", script="t")
        await client.spoken("t.1")


async def test_pieces_of_one_turn_count_their_words_from_its_beginning() -> None:
    async with embedded() as server, started(server, words=True, sampling={}) as client:
        await client.send("turn.append", turn="x", speaker="S1", text="How are you today? And")
        await client.audio(1)
        await client.send("turn.append", turn="x", text=" how is the weather?")
        await client.send("turn.commit", turn="x")
        done = await client.spoken("x")
        check(words_of(client, "x"), "How are you today? And how is the weather?", done["audio_ms"])
