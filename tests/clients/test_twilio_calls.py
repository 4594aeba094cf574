"""Whole calls: a phone on a real WebSocket, the bridge, and the real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients.fake_phone import SENTENCE, Phone, Switchboard, audio_of, calling, switchboard
from clients.scripted_server import Peer, completed, serving, started
from serving import LIMITS, WAIT_S, assert_at_rest, recorded, running
from support import load_model

from streamer.server import DialogueServer
from streamer_client import AudioFormat
from streamer_client.audio import mulaw_to_float
from streamer_client.twilio import CallEvent, Dtmf, HungUp, PhoneLine, Started, TurnHeard, TurnRefused
from streamer_protocol import AudioFrame, AudioKind, Playback, TurnCancel, TurnCreate, TurnTruncated

RECORDING = Path(__file__).parents[1] / "data" / "twilio" / "call.jsonl"
FRAME_BYTES = 160
FRAMES_PER_MARK = 10


@asynccontextmanager
async def call(program: Any = None, **options: Any) -> AsyncIterator[tuple[DialogueServer, Switchboard, Phone]]:
    async with running() as server, switchboard(server.url, program, **options) as board, calling(board) as phone:
        yield server, board, phone


def shape(value: Any) -> Any:
    """Names and types, all the way down."""
    return {key: shape(part) for key, part in value.items()} if isinstance(value, dict) else type(value)


async def test_a_recorded_call() -> None:
    heard: list[np.ndarray] = []

    async def program(line: PhoneLine, event: CallEvent) -> None:
        if isinstance(event, Dtmf):
            await line.interrupt()

    async with call(program, on_audio=heard.append, greeting=SENTENCE) as (_, board, phone):
        for line in RECORDING.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if entry["from"] == "twilio":
                await phone.socket.send(json.dumps(entry["message"]))
                continue
            message = await phone.until(entry["message"]["event"])
            assert shape(message) == shape(entry["message"])
            assert message.get("mark") == entry["message"].get("mark")
        assert await phone.rest() == []
        assert phone.socket.close_code == 1000
        events = await board.over()

    started, digit, *_, end = events
    assert isinstance(started, Started)
    assert (started.call_sid, started.parameters["customer"]) == ("CA2c7d41e6a0b94f58b3d6f1a8e5c07294", "Ann Österberg")
    assert (digit, end) == (Dtmf("5"), HungUp("caller", "the call ended"))
    samples = np.concatenate(heard)
    assert samples.dtype == np.float32
    # 25 messages of 20 ms; the resampler keeps some for what would follow.
    assert 6000 < len(samples) <= 8000
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert abs(np.argmax(spectrum) * 16_000 / len(samples) - 440) < 3
    assert 0.2 < np.max(np.abs(samples)) < 0.3


async def test_what_is_said_is_played_in_frames_of_20_ms_and_told_when_heard() -> None:
    async with call(greeting=SENTENCE) as (_, board, phone):
        await phone.begin()
        playing = asyncio.create_task(phone.play())
        line = await board.answered()
        await asyncio.wait_for(line.wait_heard(), WAIT_S)
        payloads = audio_of(phone.log)
        await line.hang_up("goodbye")
        await playing
        events = await board.over()
    assert {len(payload) for payload in payloads} == {FRAME_BYTES}
    assert [event["event"] for event in phone.log[: FRAMES_PER_MARK + 1]] == ["media"] * FRAMES_PER_MARK + ["mark"]
    assert np.max(np.abs(mulaw_to_float(b"".join(payloads)))) > 0.01
    heard = next(event for event in events if isinstance(event, TurnHeard))
    assert (heard.text, heard.whole, heard.heard_ms) == (SENTENCE, True, 20 * len(payloads))
    assert events[-1] == HungUp("us", "goodbye")
    assert (phone.socket.close_code, phone.socket.close_reason) == (1000, "goodbye")


async def test_barge_in_keeps_what_the_marks_confirm() -> None:
    """Three marks of 200 ms came back, the fourth did not: between 600 and 800 ms were heard, whatever the time."""

    async def program(line: PhoneLine, event: CallEvent) -> None:
        if isinstance(event, Dtmf):
            await line.interrupt()
            await line.interrupt()
            await line.say("Yes?", speaker="S2")

    async with call(program, greeting=SENTENCE) as (server, board, phone):
        await phone.begin()
        for _ in range(3):
            await phone.give_back((await phone.until("mark"))["mark"]["name"])
        late = (await phone.until("mark"))["mark"]["name"]
        await phone.press("1")
        await phone.until("clear")
        # Twilio gives the marks of what was cleared back, too; that does not mean that it was played.
        await phone.give_back(late)
        playing = asyncio.create_task(phone.play())
        cut, answer = await board.heard(2)
        await phone.send("stop")
        await playing
        assert phone.log.count({"event": "clear", "streamSid": phone.log[0]["streamSid"]}) == 1
        assert not cut.whole
        assert 600 <= cut.heard_ms <= 800
        assert SENTENCE.startswith(cut.text.strip())
        assert (answer.text, answer.whole) == ("Yes?", True)
        after = phone.log[next(i for i, m in enumerate(phone.log) if m["event"] == "clear") :]
        assert 20 * len(audio_of(after)) == answer.heard_ms, "nothing of the turn that was cut"
        # The model goes on from the frames that were heard, 80 ms each, a row a frame.
        slot = load_model("delay-nvq4").config.audio_assistant_gen_slot_token_id
        prompt = recorded(server).requests[1].prompt_rows
        assert int((prompt[:, 0] == slot).sum()) == cut.heard_ms // 80


def sound(frame: int, turn_index: int) -> AudioFrame:
    payload = bytes([turn_index]) * FRAME_BYTES
    return AudioFrame(handle=7, turn_index=turn_index, frame=frame, kind=AudioKind.MULAW, last=False, payload=payload)


async def test_audio_that_crosses_the_interruption_is_not_played() -> None:
    """The server does not know of it yet, and goes on for 10 frames."""
    reports: list[int] = []
    reported = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.open()
        assert peer.start.audio == AudioFormat(format="mulaw", sample_rate=8000, frame_ms=20)
        first = await peer.expect(TurnCreate)
        await peer.send(started(first.turn), *(sound(frame, 0) for frame in range(60)))
        reports.append((await peer.expect(Playback)).played_ms)
        reported.set()
        cancel = await peer.expect(TurnCancel)
        assert cancel.turn is None
        assert cancel.played_ms is not None
        assert 1000 <= cancel.played_ms <= 1200
        await peer.send(*(sound(frame, 0) for frame in range(60, 70)))
        await peer.send(TurnTruncated(turn=first.turn, index=0, heard_ms=cancel.played_ms, text="The"))
        second = await peer.expect(TurnCreate)
        await peer.send(completed(first.turn, reason="cancelled"))
        await peer.send(started(second.turn, 1, 70), *(sound(frame, 1) for frame in range(70, 75)))
        await peer.send(completed(second.turn, 1))
        reports.append((await peer.expect(Playback)).played_ms - cancel.played_ms)
        await peer.finish()

    async def program(line: PhoneLine, event: CallEvent) -> None:
        if isinstance(event, Dtmf):
            await line.interrupt()
            await line.say("Yes?")

    async with serving(script) as url, switchboard(url, program, greeting=SENTENCE) as board, calling(board) as phone:
        await phone.begin()
        marks = [(await phone.until("mark"))["mark"]["name"] for _ in range(6)]
        for mark in marks[:5]:
            await phone.give_back(mark)
        await asyncio.wait_for(reported.wait(), WAIT_S)
        await phone.press("1")
        await phone.until("clear")
        before = len(phone.log)
        await phone.give_back((await phone.until("mark"))["mark"]["name"])
        assert set(b"".join(audio_of(phone.log[before:]))) == {1}
        heard = await board.heard(2)
        await phone.send("stop")
        await board.over()
    assert [(turn.text, turn.whole) for turn in heard] == [("The", False), ("Yes?", True)]
    assert reports == [1000, 100], "about every second, and when it is silent"


async def test_a_turn_in_pieces_ends_where_it_is_interrupted() -> None:
    written: list[bool] = []

    async def program(line: PhoneLine, event: CallEvent) -> None:
        if isinstance(event, Started):
            async with line.live_turn(speaker="S2") as turn:
                written.append(await turn.write("Good morning to you. "))
                await something_heard.wait()
                await line.interrupt()
                written.append(await turn.write("And another thing. "))
            async with line.live_turn():
                pass
            async with line.live_turn() as turn:
                written.append(await turn.write("Never mind."))

    something_heard = asyncio.Event()
    async with call(program) as (_, board, phone):
        await phone.begin()
        await phone.give_back((await phone.until("mark"))["mark"]["name"])
        something_heard.set()
        await phone.until("clear")
        playing = asyncio.create_task(phone.play())
        cut, answer = await board.heard(2)
        # The turn without text does not count.
        await asyncio.wait_for(board.lines[0].wait_heard(), WAIT_S)
        await phone.send("stop")
        await playing
    assert written == [True, False, True]
    assert not cut.whole
    assert (answer.text, answer.whole) == ("Never mind.", True)


@pytest.mark.parametrize("way", ["stop", "close", "vanish"])
async def test_hanging_up_in_mid_speech_leaves_nothing_held(way: str) -> None:
    async with call(greeting=SENTENCE) as (server, board, phone):
        await phone.begin()
        await phone.until("media")
        if way == "stop":
            await phone.send("stop")
        elif way == "close":
            await phone.socket.close()
        else:
            phone.socket.transport.abort()
        end = (await board.over())[-1]
        assert isinstance(end, HungUp)
        assert end.by == "caller"
        assert len(end.reason) > 5
        (line,) = board.lines
        assert line.over
        assert await line.say("Hello?") is None
        async with line.live_turn() as turn:
            assert not await turn.write("Hello?")
        await line.interrupt()
        await line.wait_heard()
        await line.hang_up()
        await asyncio.wait_for(server.state.sessions.wait_none(), WAIT_S)
        await assert_at_rest(server)


async def test_a_turn_that_is_refused_does_not_end_the_call() -> None:
    async def program(line: PhoneLine, event: CallEvent) -> None:
        if isinstance(event, Started):
            assert await line.say("") is None
            await line.say("x" * (LIMITS.max_text_chars + 1))
            async with line.live_turn() as turn:
                await turn.write("...")
        if isinstance(event, TurnRefused) and event.code == "no_speech":
            await line.say("Hello.")
        if isinstance(event, TurnHeard):
            await line.hang_up()

    async with call(program) as (_, board, phone):
        await phone.begin()
        await phone.play()
        events = await board.over()
    kinds = [type(event).__name__ for event in events]
    assert kinds == ["Started", "TurnRefused", "TurnRefused", "TurnHeard", "HungUp"]
    assert [event.code for event in events if isinstance(event, TurnRefused)] == ["text_too_long", "no_speech"]
