"""Turns whose text comes in pieces, turns with settings of their own, and what a dialogue forgets when it is cut."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from msgspec.structs import replace
from serving import GREEDY, LIMITS, RawClient, recorded, running, started

from streamer_protocol import AudioFrame

LONG = replace(LIMITS, max_turn_audio_ms=20_000)
NEVER = {"live_text_pause_s": 3600.0}


async def append(client: RawClient, *pieces: str, turn: str = "x", **first: Any) -> None:
    fields: dict[str, Any] = {"speaker": "S1", **first}
    for piece in pieces:
        await client.send("turn.append", turn=turn, text=piece, **fields)
        fields = {}


def texts(server: Any) -> list[str]:
    """The prompts of all generations so far, as text."""
    speech = server.state.speech
    return [speech.tokenizer.decode(request.prompt_rows[:, 0].tolist()) for request in recorded(server).requests]


async def test_speech_starts_at_the_first_border_and_before_the_commit() -> None:
    async with running(LONG, settings=NEVER) as server, started(server) as client:
        await append(client, "Well, that is a", " good ques", "tion. And", " the answer")
        await client.until("turn.started", turn="x", speaker="S1", index=0, first_frame=0)
        await client.audio(1)
        assert "good question." in texts(server)[0]
        assert "answer" not in texts(server)[0]
        await append(client, " is no.", speaker=None)
        await client.send("turn.commit", turn="x")
        report = await client.spoken("x")
        assert "the answer is no." in texts(server)[-1]
        # One turn: one start, one end, frames without gap, one index.
        assert client.types.count("turn.started") == client.types.count("turn.completed") == 1
        assert [f.frame for f in client.frames] == list(range(report["frames"]))
        assert {f.turn_index for f in client.frames} == {0}


async def test_the_pieces_sound_as_the_same_text_at_once() -> None:
    """With all of the text there before it can be spoken, live text is the turn that it spells."""
    async with running(settings=NEVER) as server:
        spoken = []
        for live in (False, True):
            async with started(server) as client:
                if live:
                    await append(client, "Hel", "lo", " the", "re my friend")
                    await client.send("turn.commit", turn="x")
                else:
                    await client.send("turn.create", turn="x", speaker="S1", text="Hello there my friend")
                await client.spoken("x")
                spoken.append(client.pcm())
        np.testing.assert_allclose(spoken[0], spoken[1], rtol=0, atol=1e-4)


async def test_a_pause_on_the_wire_starts_speech() -> None:
    async with running(settings={"live_text_pause_s": 0.01}) as server, started(server) as client:
        await append(client, "no border anywhere")
        await client.audio(1)
        await client.send("turn.commit", turn="x")
        await client.spoken("x")
        assert len(recorded(server).requests) == 1


async def test_a_waiting_turn_holds_no_slot_and_others_keep_their_order() -> None:
    async with running(settings=NEVER) as server, started(server) as client:
        await append(client, "Hello. ")
        await client.send("turn.create", turn="y", speaker="S2", text="Hi.")
        await client.audio(1)
        assert await asyncio.to_thread(server.state.speech.engine.wait_idle, 20)
        assert server.state.speech.engine.holdings().slots == 0
        await client.send("turn.commit", turn="x")
        await client.spoken("x")
        await client.spoken("y")
        await client.until("session.idle")


async def test_live_text_has_the_limits_of_one_turn() -> None:
    async with running(settings=NEVER) as server, started(server) as client:
        await append(client, "a" * 200)
        await append(client, "b" * 200, speaker=None)
        error = await client.until("error", code="text_too_long", turn="x")
        assert "400" in error["message"]
        # The piece is refused, the turn goes on.
        await append(client, " c.", speaker=None)
        await client.send("turn.commit", turn="x")
        await client.spoken("x")
        assert not any("bbb" in text for text in texts(server))


async def test_a_later_piece_can_not_change_the_speaker() -> None:
    async with running(settings=NEVER) as server, started(server) as client:
        await append(client, "Hello. ")
        await append(client, "Hi.", speaker="S2")
        assert "S1" in (await client.until("error", code="invalid_message", turn="x"))["message"]
        await append(client, "Hi.", speaker=None, seed=4)
        assert "first piece" in (await client.until("error", code="invalid_message", turn="x"))["message"]
        await client.send("turn.commit", turn="x")
        await client.spoken("x")


async def test_a_tag_cut_in_two_is_found_and_ends_the_turn() -> None:
    async with running(settings=NEVER) as server, started(server) as client:
        await append(client, "Hello. [S", "2] Hi.")
        await client.until("error", code="invalid_script", turn="x")
        await client.until("turn.completed", turn="x", reason="cancelled")
        await client.until("session.idle")


async def test_committed_without_a_word_is_an_error() -> None:
    async with running(settings=NEVER) as server, started(server) as client:
        await append(client, " ... ")
        await client.send("turn.commit", turn="x")
        await client.until("error", code="no_speech", turn="x")
        await client.until("turn.completed", turn="x", reason="error")
        await client.until("session.idle")


async def test_cancelled_live_text_takes_no_more() -> None:
    async with running(settings=NEVER, max_unsent_frames=3) as server, started(server) as client:
        await append(client, "Hello there. ")
        await client.audio(1)
        await client.send("turn.cancel", turn="x")
        await append(client, "More. ", speaker=None)
        await client.until("turn.completed", turn="x", reason="cancelled")
        await client.send("turn.create", turn="y", speaker="S1", text="Hi.")
        await client.spoken("y")
        assert not any("More" in text for text in texts(server))


async def test_what_was_not_heard_is_told_and_forgotten() -> None:
    async with running(LONG) as server, started(server, sampling=GREEDY) as client:
        await client.send("turn.create", turn="x", speaker="S1", text="One two three four five six seven eight.")
        x = await client.spoken("x")
        await client.send("turn.create", turn="y", speaker="S2", text="Nine ten.")
        await client.spoken("y")
        heard_ms = x["audio_ms"] // 2 // 80 * 80
        await client.send("turn.cancel", played_ms=heard_ms)
        cut = await client.until("turn.truncated", turn="x")
        assert (cut["index"], cut["heard_ms"]) == (0, heard_ms)
        assert cut["text"].startswith("One")
        assert "eight" not in cut["text"]
        forgotten = await client.until("turn.truncated", turn="y")
        assert (forgotten["heard_ms"], forgotten["text"]) == (0, "")
        await client.send("turn.create", turn="z", speaker="S1", text="Again.")
        await client.spoken("z")
        prompt, frames = texts(server)[-1], recorded(server).requests[-1].prompt_rows
        assert cut["text"] in prompt
        assert "eight" not in prompt
        assert "Nine" not in prompt
        # The audio that the prompt goes on from is what was heard, and no frame more.
        pad = server.state.speech.model.config.audio_pad_code
        slot = server.state.speech.model.config.audio_assistant_gen_slot_token_id
        assert int((frames[:, 0] == slot).sum()) >= heard_ms // 80
        assert int(((frames[:, 0] == slot) & (frames[:, 1] != pad)).sum()) == heard_ms // 80


async def test_no_audio_of_a_cancelled_turn_comes_after_its_report() -> None:
    async with running(LONG, max_unsent_frames=4) as server, started(server) as client:
        for i in range(10):
            await client.send("turn.create", turn=f"t{i}", speaker="S1", text="Hello there, my friend, how are you?")
            await client.audio(1 + i % 3)
            await client.send("turn.cancel", played_ms=0)
            report = await client.until("turn.completed", turn=f"t{i}", reason="cancelled")
            assert report["frames"] == sum(f.turn_index == i for f in client.frames)
        await client.send("ping")
        await client.until("pong")
        last = max(n for n, m in enumerate(client.log) if isinstance(m, AudioFrame))
        done = [n for n, m in enumerate(client.log) if isinstance(m, dict) and m["type"] == "turn.completed"]
        assert last < done[-1]


async def test_a_turn_may_have_its_own_seed_and_sampling() -> None:
    async with running() as server:
        spoken: list[np.ndarray] = []
        for seed, own in [(1, 7), (2, 7), (2, 8)]:
            async with started(server, seed=seed, sampling={}) as client:
                await client.send("turn.create", turn="x", speaker="S1", text="Hello there.", seed=own)
                await client.spoken("x")
                spoken.append(client.pcm())
        np.testing.assert_array_equal(spoken[0], spoken[1])
        assert spoken[1].shape != spoken[2].shape or (spoken[1] != spoken[2]).any()
        async with started(server, seed=5, sampling={}) as client:
            greedy = {"audio_temperature": 0, "text_temperature": 0}
            await client.send("script.append", text="[S1] Hello. [S2] Hi.", script="s", sampling=greedy, seed=40)
            await client.spoken("s.2")
        first, second = recorded(server).requests[-2:]
        assert (first.seed, second.seed) == (40, 41)
        assert first.sampling.audio_temperature == 0


async def test_the_language_reaches_the_prompt() -> None:
    async with running() as server, started(server, language="de") as client:
        await client.send("turn.create", turn="x", speaker="S1", text="Guten Tag.")
        await client.spoken("x")
        assert "de" in texts(server)[-1].split("Guten")[0]
