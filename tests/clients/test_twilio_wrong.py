"""What a phone's side or a server may do wrong: a call ends with a reason or goes on, and nothing is raised."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import numpy as np
import pytest
import websockets
from clients.fake_phone import FORMAT, SENTENCE, STREAM, Phone, calling, start_body, switchboard
from clients.scripted_server import Peer, serving
from hypothesis import given
from hypothesis import strategies as st
from serving import WAIT_S, running
from websockets.asyncio.server import ServerConnection, serve

from streamer_client import LocalProtocolError
from streamer_client.twilio import CallEvent, Dtmf, HungUp, PhoneLine, Started, TurnHeard, bridge, bridging, messages
from streamer_protocol import ErrorCode, SessionClosed, make_error

NO_SERVER = "ws://127.0.0.1:1"
START = json.dumps({"event": "start", "streamSid": STREAM, "start": start_body()})
FIRST_WORDS: dict[str, str | bytes] = {
    "not json": "hello",
    "not an object": "[1, 2]",
    "nothing": "",
    "too deep": '{"event":"connected","x":' + "[" * 50_000,
    "huge": json.dumps({"event": "connected", "x": "y" * 70_000}),
    "binary": b"\xff\x00\x01",
    "another protocol": '{"type": "session.start"}',
    "unknown event": '{"event": "begin"}',
    "media first": json.dumps({"event": "media", "streamSid": STREAM, "media": {"payload": "/w=="}}),
    "mark first": json.dumps({"event": "mark", "streamSid": STREAM, "mark": {"name": "1"}}),
    "start without a format": json.dumps({"event": "start", "streamSid": STREAM, "start": {"callSid": "CA1"}}),
    "start of another format": json.dumps(
        {"event": "start", "streamSid": STREAM, "start": start_body(mediaFormat={**FORMAT, "sampleRate": 16_000})}
    ),
    "start without a stream": json.dumps({"event": "start", "streamSid": "", "start": start_body()}),
}
LATER_WORDS: dict[str, str | bytes] = {
    **{name: words for name, words in FIRST_WORDS.items() if name not in ("media first", "mark first")},
    "connected again": '{"event": "connected", "protocol": "Call", "version": "1.0.0"}',
    "start again": START,
    "another stream": json.dumps({"event": "dtmf", "streamSid": "MZ0", "dtmf": {"digit": "9"}}),
    "no key": json.dumps({"event": "dtmf", "streamSid": STREAM, "dtmf": {"digit": "55"}}),
    "no base64": json.dumps({"event": "media", "streamSid": STREAM, "media": {"payload": "!!!!"}}),
    "no number": json.dumps({"event": "media", "streamSid": STREAM, "media": {"payload": 7}}),
    "our own audio": json.dumps(
        {"event": "media", "streamSid": STREAM, "media": {"payload": "gICA", "track": "outbound"}}
    ),
    "empty audio": json.dumps({"event": "media", "streamSid": STREAM, "media": {"payload": ""}}),
    "unknown mark": json.dumps({"event": "mark", "streamSid": STREAM, "mark": {"name": "77"}}),
    "clear": json.dumps({"event": "clear", "streamSid": STREAM}),
}


async def end_of_call(url: str, *words: str | bytes, **options: Any) -> tuple[list[CallEvent], Phone]:
    """What happens when the phone says these words."""
    async with switchboard(url, **options) as board, calling(board) as phone:
        for data in words:
            await phone.socket.send(data)
        await phone.rest()
        return await board.over(), phone


@pytest.mark.parametrize("words", FIRST_WORDS.values(), ids=FIRST_WORDS)
async def test_who_does_not_begin_as_twilio_does_is_shown_the_door(words: str | bytes) -> None:
    events, phone = await end_of_call(NO_SERVER, words)
    (end,) = events
    assert isinstance(end, HungUp)
    assert end.by == "us"
    assert "audio/x-mulaw" in end.reason or "no media stream of Twilio's" in end.reason
    assert phone.socket.close_code == 1002
    assert phone.socket.close_reason
    assert end.reason.startswith(phone.socket.close_reason)


async def test_what_means_nothing_later_does_not_disturb_the_call(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[np.ndarray] = []
    async with running() as server, switchboard(server.url, on_audio=heard.append, on_audio_rate=8000) as board:
        async with calling(board) as phone:
            await phone.begin()
            for words in LATER_WORDS.values():
                await phone.socket.send(words)
            await phone.press("#")
            await phone.send("media", media={"payload": base64.b64encode(b"\x80\xff\x00").decode()})
            await phone.send("stop")
            await phone.send("stop")
            await phone.rest()
            events = await board.over()
    assert [type(event) for event in events] == [Started, Dtmf, HungUp]
    assert [list(np.round(samples, 3)) for samples in heard] == [[0.98, 0.0, -0.98]]
    assert len(caplog.records) == 1


@given(st.text() | st.binary() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_no_message_raises(data: str | bytes) -> None:
    assert isinstance(messages.parse(data), str)


@given(st.sampled_from([*LATER_WORDS.values(), START]), st.integers(0, 300), st.binary(max_size=4))
def test_no_damaged_message_raises(words: str | bytes, at: int, change: bytes) -> None:
    data = words.encode() if isinstance(words, str) else words
    messages.parse(data[:at] + change + data[at + len(change) :])


async def test_a_phone_that_never_begins_is_shown_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridging, "START_TIMEOUT_S", 0.01)
    events, phone = await end_of_call(NO_SERVER, '{"event": "connected", "protocol": "Call", "version": "1.0.0"}')
    assert events == [HungUp("us", "no `start` came within 0.01 s")]
    assert phone.socket.close_code == 1002


async def test_a_server_that_is_not_there_ends_the_call() -> None:
    events, phone = await end_of_call(NO_SERVER, START, greeting="Hello.")
    assert [type(event) for event in events] == [Started, HungUp]
    assert isinstance(events[-1], HungUp)
    assert (events[-1].by, phone.socket.close_code) == ("server", 1011)
    assert "127.0.0.1:1" in events[-1].reason


async def test_a_session_that_is_refused_ends_the_call() -> None:
    async with running() as server:
        events, phone = await end_of_call(server.url, START, voices={"S1": "nobody"})
    assert isinstance(events[-1], HungUp)
    assert events[-1].by == "server"
    assert "unknown_voice" in events[-1].reason
    assert (phone.socket.close_code, phone.socket.close_reason) == (1011, events[-1].reason[:123])


@pytest.mark.parametrize("fatal", [True, False])
async def test_a_session_that_ends_ends_the_call(fatal: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        if fatal:
            await peer.send(make_error(ErrorCode.SHUTTING_DOWN, "going home"))
        else:
            await peer.send(SessionClosed(reason="session_too_long"))
        await peer.socket.wait_closed()

    async with serving(script) as url:
        events, phone = await end_of_call(url, START)
    assert isinstance(events[-1], HungUp)
    assert events[-1].by == "server"
    assert ("going home" if fatal else "session_too_long") in events[-1].reason
    assert phone.socket.close_code == 1011


async def test_a_caller_who_is_gone_before_the_session_opens_is_let_go() -> None:
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.socket.recv()
        asked.set()
        await peer.socket.wait_closed()

    async with serving(script) as url, switchboard(url, greeting=SENTENCE) as board, calling(board) as phone:
        await phone.begin()
        await asyncio.wait_for(asked.wait(), WAIT_S)
        await phone.send("stop")
        assert await board.over() == [Started("CA1", STREAM, "AC1", {}), HungUp("caller", "the call ended")]


async def test_a_listener_that_fails_ends_the_call_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(samples: np.ndarray) -> None:
        raise OSError("no recogniser")

    media = json.dumps({"event": "media", "streamSid": STREAM, "media": {"payload": "gICA"}})
    async with running() as server:
        events, phone = await end_of_call(server.url, START, media, on_audio=fail, on_audio_rate=8000)
    assert events[-1] == HungUp("us", "on_audio failed: OSError('no recogniser')")
    assert phone.socket.close_code == 1011
    assert "on_audio failed" in caplog.text


async def test_a_program_that_fails_hangs_up(caplog: pytest.LogCaptureFixture) -> None:
    async def program(line: PhoneLine, event: CallEvent) -> None:
        if isinstance(event, Started):
            async with line.live_turn() as turn:
                await turn.write("Good morning.")
                raise ZeroDivisionError

    async with running() as server, switchboard(server.url, program) as board, calling(board) as phone:
        await phone.begin()
        await phone.rest()
        assert phone.socket.close_code == 1000
        await board.over()
        assert board.lines[0].over
    assert "ZeroDivisionError" in caplog.text


async def test_what_was_written_before_a_failure_is_said() -> None:
    async def program(line: PhoneLine, event: CallEvent) -> None:
        if isinstance(event, Started):
            with pytest.raises(ZeroDivisionError):
                async with line.live_turn() as turn:
                    await turn.write("Good morning.")
                    raise ZeroDivisionError

    async with running() as server, switchboard(server.url, program) as board, calling(board) as phone:
        await phone.begin()
        playing = asyncio.create_task(phone.play())
        (heard,) = await board.heard(1)
        await phone.send("stop")
        await playing
    assert isinstance(heard, TurnHeard)
    assert (heard.text, heard.whole) == ("Good morning.", True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"speaker": "S9"}, "S9"),
        ({"voices": {"X": "heart"}}, "voices"),
        ({"on_audio": print, "on_audio_rate": 44_100}, "44100"),
    ],
)
async def test_arguments_that_cannot_be_are_raised_at_once(options: dict[str, Any], said: str) -> None:
    raised: list[BaseException] = []

    async def answer(websocket: ServerConnection) -> None:
        try:
            await bridge(websocket, url=NO_SERVER, **options)
        except LocalProtocolError as error:
            raised.append(error)

    async with serve(answer, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with websockets.connect(f"ws://127.0.0.1:{port}") as socket:
            await socket.wait_closed()
    assert len(raised) == 1
    assert said in str(raised[0])
