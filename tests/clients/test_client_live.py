"""Text that is still being written, barge-in, and what each turn may ask for, against the real server."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from clients.broken_wires import (
    FAST,
    GREEDY,
    SENTENCE,
    break_somehow,
    heard,
    said,
    through_a_proxy,
    told_by_the_server,
    until,
)
from clients.scripted_server import Peer, audio, completed, serving, started
from serving import WAIT_S, recorded, running

from streamer_client import (
    Audio,
    Dialogue,
    DialogueError,
    Event,
    LocalProtocolError,
    Resumed,
    Sampling,
    SessionClosed,
    SessionIdle,
    TurnCompleted,
    TurnStarted,
    TurnTruncated,
    TurnWords,
    connect,
)
from streamer_protocol import (
    ErrorCode,
    Playback,
    ScriptAppend,
    SessionStart,
    TurnAppend,
    TurnCancel,
    TurnCommit,
    TurnCreate,
    make_error,
)

EXAMPLE = Path(__file__).parents[2] / "clients" / "examples" / "live_llm.py"


async def tokens(*texts: str, then: BaseException | None = None) -> AsyncIterator[str]:
    for text in texts:
        yield text
    if then is not None:
        raise then


async def rest(dialogue: Dialogue) -> list[Event]:
    """Everything up to the end of the session, which is closed."""
    await dialogue.close()
    return [event async for event in dialogue.events()]


async def test_speech_starts_before_the_text_is_complete() -> None:
    async with running() as server, connect(server.url, sampling=GREEDY) as dialogue:
        async with dialogue.live_turn("S2") as turn:
            await turn.write("The weather is so ")
            await turn.write("nice today. ")
            begun = await asyncio.wait_for(until(dialogue, TurnStarted), WAIT_S)
            assert (begun.turn, begun.speaker) == (turn.id, "S2")
            await until(dialogue, Audio)
            await turn.write("Let us go.")
        report = await until(dialogue, TurnCompleted)
        assert report.turn == turn.id
        assert turn.over
        await turn.write("Too late, and nobody minds.")
        assert not [event for event in await rest(dialogue) if isinstance(event, TurnStarted | TurnCompleted)]


async def test_an_exception_in_the_block_cancels_the_turn() -> None:
    async def fail(dialogue: Dialogue) -> None:
        async with dialogue.live_turn("S1") as turn:
            await turn.write(SENTENCE)
            await until(dialogue, TurnStarted)
            raise ZeroDivisionError

    async with running() as server, connect(server.url) as dialogue:
        with pytest.raises(ZeroDivisionError):
            await fail(dialogue)
        assert (await until(dialogue, TurnCompleted)).reason == "cancelled"


async def test_a_turn_without_text_is_none() -> None:
    async with running() as server, connect(server.url) as dialogue:
        async with dialogue.live_turn("S1") as turn:
            await turn.write("")
        with pytest.raises(ZeroDivisionError):
            async with dialogue.live_turn("S1"):
                raise ZeroDivisionError
        assert [event async for event in dialogue.say_stream("S1", tokens("", ""))] == []
        assert [type(event) for event in await rest(dialogue)] == [SessionClosed]


async def test_a_stream_of_tokens_is_one_turn() -> None:
    async with running() as server, connect(server.url, sampling=GREEDY) as dialogue:
        events = [event async for event in dialogue.say_stream("S1", tokens("", "Good ", "morning", ", ", "you."))]
        assert [type(e) for e in events if not isinstance(e, Audio)] == [TurnStarted, TurnCompleted]
        assert sum(isinstance(event, Audio) for event in events) > 3
        events = [event async for event in dialogue.say_stream("S2", tokens("Good morning."))]
        assert isinstance(events[0], SessionIdle), "the first turn's"


async def test_text_in_pieces_is_spoken_once_over_a_wire_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    told = told_by_the_server(monkeypatch)
    dice = random.Random(4)
    events: list[Event] = []
    async with through_a_proxy() as (_, proxy):
        async with connect(proxy.url, sampling=GREEDY, settings=FAST) as dialogue:
            for _ in range(8):
                async for event in dialogue.say_stream("S1", tokens("Hello there", ", my ", "friend. ", "Good day.")):
                    events.append(event)
                    if dice.random() < 0.3:
                        break_somehow(proxy, dice)
        events += [event async for event in dialogue.events()]
    assert heard(events) == said(told)
    assert [event.turn for event in events if isinstance(event, TurnCompleted)] == [f"t{n}" for n in range(1, 9)]
    assert sum(isinstance(event, Resumed) for event in events) > 10


async def test_a_source_of_text_that_fails_cancels_and_comes_through() -> None:
    async with running() as server, connect(server.url) as dialogue:
        seen: list[Event] = []
        with pytest.raises(OSError, match="model gone"):
            async for event in dialogue.say_stream("S1", tokens("Well, ", then=OSError("model gone"))):
                seen.append(event)
        assert isinstance(seen[-1], TurnCompleted)
        assert seen[-1].reason == "cancelled"
        with pytest.raises(OSError, match="at once"):
            _ = [event async for event in dialogue.say_stream("S1", tokens(then=OSError("at once")))]


async def test_leaving_the_loop_early_stops_the_text_and_the_turn() -> None:
    async def endless() -> AsyncIterator[str]:
        yield SENTENCE
        await asyncio.Event().wait()

    async with running() as server, connect(server.url) as dialogue:
        async with aclosing(dialogue.say_stream("S1", endless())) as events:
            async for event in events:
                if isinstance(event, TurnStarted):
                    break
        assert (await until(dialogue, TurnCompleted)).reason == "cancelled"
        assert not [task for task in asyncio.all_tasks() if "_write_rest" in repr(task)]
        # Even before anything was read of the text but its beginning.
        await dialogue.ping()
        async with aclosing(dialogue.say_stream("S1", endless())) as events:
            assert isinstance(await anext(events), SessionIdle)
        assert (await until(dialogue, TurnCompleted)).reason == "cancelled"


async def test_a_text_that_is_refused_is_an_error_of_who_writes_it() -> None:
    async with running() as server, connect(server.url) as dialogue:
        with pytest.raises(DialogueError, match="invalid_script"):
            _ = [event async for event in dialogue.say_stream("S1", tokens("Hi. ", "[S2] ", "Hello."))]
        await until(dialogue, SessionIdle)
        with pytest.raises(DialogueError, match="text_too_long"):
            async with dialogue.live_turn("S1") as turn:
                await turn.write("x" * 400)
                async for event in dialogue.events():
                    if isinstance(event, TurnCompleted) or getattr(event, "turn", None) == turn.id:
                        break
                await turn.write("more")


async def test_barge_in_keeps_what_was_heard() -> None:
    async with running() as server, connect(server.url, sampling=GREEDY) as dialogue:
        turn = await dialogue.turn("S1", SENTENCE)
        for _ in range(5):
            await until(dialogue, Audio)
        await dialogue.played(160)
        await dialogue.cancel(turn, played_ms=240)
        cut = await until(dialogue, TurnTruncated)
        assert (cut.turn, cut.heard_ms) == (turn, 240)
        assert SENTENCE.startswith(cut.text.strip())
        assert (await until(dialogue, TurnCompleted)).reason == "cancelled"


async def test_a_turn_may_have_its_own_sampling_and_seed() -> None:
    async with running() as server, connect(server.url, seed=1, sampling=GREEDY) as dialogue:
        _ = [event async for event in dialogue.say("[S1] Hello. [S2] Hi.", seed=40)]
        await dialogue.turn("S1", "Hello.", seed=50)
        await until(dialogue, TurnCompleted)
        async with dialogue.live_turn("S1", seed=60, sampling=Sampling(audio_temperature=0.5)) as turn:
            await turn.write("Hello. ")
        await until(dialogue, TurnCompleted)
        requests = recorded(server).requests
        assert len(requests) == 4
        assert len({request.seed for request in requests}) == 4
        assert [request.sampling.audio_temperature for request in requests] == [0, 0, 0, 0.5]


async def test_what_is_asked_for_reaches_the_server_as_it_is() -> None:
    hot = Sampling(audio_temperature=2)

    async def script(peer: Peer) -> None:
        await peer.open()
        assert peer.start == SessionStart(words=True, language="en-GB")
        assert await peer.expect(TurnCreate) == TurnCreate(turn="t1", speaker="S1", text="a", sampling=hot, seed=2)
        assert await peer.expect(TurnAppend) == TurnAppend(turn="t2", speaker="S2", text="b", sampling=hot, seed=3)
        assert await peer.expect(TurnAppend) == TurnAppend(turn="t2", text="c")
        assert await peer.expect(TurnCommit) == TurnCommit(turn="t2")
        assert await peer.expect(Playback) == Playback(played_ms=80)
        assert await peer.expect(TurnCancel) == TurnCancel(played_ms=90)
        script = ScriptAppend(script="s3", text="[S1] d", sampling=hot, seed=4)
        assert await peer.expect(ScriptAppend) == script
        await peer.send(started("t1"), audio(0), TurnWords(turn="t1", words=(("a", 0, 80),)))
        await peer.send(TurnTruncated(turn="t1", index=0, heard_ms=40, text=""), completed("t1", reason="cancelled"))
        await peer.send(make_error(ErrorCode.OVERLOADED, "enough", turn="s3"))
        await peer.finish()

    async with serving(script) as url, connect(url, words=True, language="en-GB") as dialogue:
        await dialogue.turn("S1", "a", sampling=hot, seed=2)
        async with dialogue.live_turn("S2", sampling=hot, seed=3) as turn:
            await turn.write("b")
            await turn.write("c")
        await dialogue.played(80)
        await dialogue.cancel(played_ms=90)
        seen: list[type] = []
        with pytest.raises(DialogueError, match="enough"):
            async for event in dialogue.say("[S1] d", sampling=hot, seed=4):
                seen.append(type(event))
        assert seen == [TurnStarted, Audio, TurnWords, TurnTruncated, TurnCompleted]


async def test_wrong_values_are_refused_here() -> None:
    async with running() as server, connect(server.url) as dialogue:
        with pytest.raises(LocalProtocolError, match="played_ms"):
            await dialogue.played(-1)
        with pytest.raises(LocalProtocolError, match="nobody"):
            await dialogue.cancel("nobody")
        with pytest.raises(LocalProtocolError, match="seed"):
            await dialogue.turn("S1", "Hello.", seed=-1)
        with pytest.raises(LocalProtocolError, match="speaker"):
            async with dialogue.live_turn("S9") as turn:  # type: ignore[arg-type]
                await turn.write("Hello.")


async def test_the_example_prints_what_is_kept_after_an_interruption() -> None:
    async with running() as server:
        command = [sys.executable, str(EXAMPLE), "--url", server.url, "--words-per-s", "0"]
        run = await asyncio.to_thread(
            subprocess.run, [*command, "--interrupt-after-ms", "80"], capture_output=True, text=True, timeout=60
        )
    assert run.returncode == 0, run.stderr
    assert "interrupts after 40 ms" in run.stdout
    assert "t1 is kept as far as it was heard, 40 ms: " in run.stdout
    assert "(cancelled)" in run.stdout
