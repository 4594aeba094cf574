"""The client's state machine: what it lets out, and how it notices a server that breaks the protocol."""

from __future__ import annotations

import json

import pytest

from streamer_protocol import (
    AudioFormat,
    AudioFrame,
    AudioKind,
    ClientConnection,
    ClientEvent,
    ErrorCode,
    Limits,
    LocalProtocolError,
    Ping,
    Pong,
    Rejected,
    RemoteProtocolError,
    ServerConnection,
    ServerMessage,
    SessionClose,
    SessionClosed,
    SessionIdle,
    SessionReady,
    SessionStart,
    TurnAppend,
    TurnCommit,
    TurnCreate,
    TurnStarted,
    make_error,
)
from streamer_protocol.parsing import encode_server

TURN = TurnCreate(turn="t1", speaker="S1", text="Hello.")


def ready(context: str = "main", handle: int = 1) -> SessionReady:
    return SessionReady(
        context=context,
        session="s",
        resume_token=None,
        handle=handle,
        model="tiny",
        audio=AudioFormat(),
        voices={},
        limits=Limits(),
    )


def give(client: ClientConnection, message: ServerMessage) -> ClientEvent:
    """Past the server's own state machine, as a faulty server would."""
    (event,) = client.receive_text(encode_server(message))
    return event


def give_audio(client: ClientConnection, frame: int, handle: int = 1) -> ClientEvent:
    data = AudioFrame(handle=handle, turn_index=0, frame=frame, kind=AudioKind.OPUS, payload=b"\x08").pack()
    (event,) = client.receive_binary(data)
    return event


def opened() -> ClientConnection:
    client = ClientConnection()
    client.send(SessionStart())
    give(client, ready())
    return client


def speaking() -> ClientConnection:
    client = opened()
    client.send(TURN)
    give(client, TurnStarted(turn="t1", index=0, speaker="S1", first_frame=0))
    return client


def test_both_ends_understand_each_other() -> None:
    client, server = ClientConnection(), ServerConnection()
    for message in (SessionStart(), Ping(id="1")):
        assert server.receive_text(client.send(message)) == [message]
    assert client.receive_text(server.send(ready())) == [ready()]
    assert server.receive_text(client.send(TURN)) == [TURN]
    start = TurnStarted(turn="t1", index=0, speaker="S1", first_frame=0)
    assert client.receive_text(server.send(start)) == [start]
    frame = AudioFrame(handle=1, turn_index=0, frame=0, kind=AudioKind.OPUS, payload=b"\x08")
    assert client.receive_binary(server.send(frame)) == [frame]
    assert client.context_of(frame) == "main"
    assert server.receive_text(client.send(SessionClose())) == [SessionClose()]
    assert client.receive_text(server.send(SessionClosed(reason="client"))) == [SessionClosed(reason="client")]
    assert client.context_of(frame) is None
    assert server.receive_text(client.send(SessionStart())) == [SessionStart()]


def test_frames_of_two_contexts_count_apart() -> None:
    client = speaking()
    client.send(SessionStart(context="b"))
    give(client, ready("b", handle=2))
    client.send(TurnCreate(context="b", turn="t1", speaker="S1", text="x"))
    give(client, TurnStarted(context="b", turn="t1", index=0, speaker="S1", first_frame=0))
    frames = [give_audio(client, number, handle) for number, handle in [(0, 1), (0, 2), (1, 2), (1, 1)]]
    assert all(isinstance(frame, AudioFrame) for frame in frames)


@pytest.mark.parametrize(("numbers", "word"), [([1], "skips"), ([0, 2], "skips"), ([0, 0], "repeats")])
def test_a_gap_or_a_repeat_is_noticed(numbers: list[int], word: str) -> None:
    client = speaking()
    *_, event = [give_audio(client, number) for number in numbers]
    assert isinstance(event, RemoteProtocolError)
    assert word in str(event)
    assert event.context == "main"
    assert client.closing
    assert client.receive_text('{"type":"pong"}') == []
    assert client.receive_binary(b"") == []


@pytest.mark.parametrize("data", ["{", b"\xff", '{"type":"ping"}', '{"type":"pong","x":1}'])
def test_unreadable_text_is_noticed(data: str | bytes) -> None:
    client = ClientConnection()
    (event,) = client.receive_text(data)
    assert isinstance(event, RemoteProtocolError)
    assert event.context is None
    assert client.closing


def test_unreadable_audio_is_noticed() -> None:
    (event,) = opened().receive_binary(b"short")
    assert "5 bytes" in str(event)
    assert "unknown handle 9" in str(give_audio(speaking(), 0, handle=9))


def test_messages_out_of_place_are_noticed() -> None:
    assert "absent" in str(give(ClientConnection(), SessionIdle()))
    assert "`zz` is not known" in str(give(opened(), TurnStarted(turn="zz", index=0, speaker="S1", first_frame=0)))
    client = opened()
    client.send(SessionStart(context="b"))
    assert "handle 1 is taken" in str(give(client, ready("b")))


def test_a_pong_or_an_error_may_come_at_any_time() -> None:
    client = ClientConnection()
    assert give(client, Pong(context="x")) == Pong(context="x")
    error = make_error(ErrorCode.BINARY_NOT_ALLOWED, "no")
    assert give(client, error) == error
    assert not client.closing


def test_a_ping_needs_no_session_and_opens_none() -> None:
    client = ClientConnection()
    assert ServerConnection().receive_text(client.send(Ping())) == [Ping()]
    with pytest.raises(LocalProtocolError, match=r"send session.start first"):
        client.send(TURN)


def test_a_fatal_error_ends_reading() -> None:
    client = opened()
    error = make_error(ErrorCode.SHUTTING_DOWN, "bye")
    assert give(client, error) == error
    assert client.closing
    assert client.receive_text('{"type":"pong"}') == []


def test_any_error_refuses_a_start_and_the_next_may_follow() -> None:
    client = ClientConnection()
    client.send(SessionStart())
    give(client, make_error(ErrorCode.INVALID_MESSAGE, "a field this server does not know"))
    client.send(SessionStart())


def test_an_error_about_a_message_does_not_end_the_turn_it_names() -> None:
    client = opened()
    client.send(TURN)
    give(client, make_error(ErrorCode.INVALID_MESSAGE, "that cancel", turn="t1"))
    assert isinstance(give(client, TurnStarted(turn="t1", index=0, speaker="S1", first_frame=0)), TurnStarted)


def test_a_later_piece_goes_out_without_its_speaker() -> None:
    """With it, a piece under way would open a turn anew that the server has refused meanwhile."""
    client, server = opened(), ServerConnection()
    server.receive_text('{"type":"session.start"}')
    server.send(ready())
    first, later = (client.send(TurnAppend(turn="p", speaker="S1", text=text)) for text in ("a", "b"))
    assert server.receive_text(first) == [TurnAppend(turn="p", speaker="S1", text="a")]
    refusal = server.send(make_error(ErrorCode.NO_SPEECH, "not a word", turn="p"))
    (event,) = server.receive_text(later)
    assert isinstance(event, Rejected)
    give(client, make_error(ErrorCode.NO_SPEECH, "not a word", turn="p"))
    assert json.loads(refusal)["code"] == "no_speech"
    give(client, event.error)
    client.send(TurnCreate(turn="p", speaker="S1", text="again"))


@pytest.mark.parametrize(
    ("first", "lives"), [(Limits().max_text_chars, True), (Limits().max_text_chars + 1, False)], ids=["later", "first"]
)
def test_only_a_first_piece_that_is_too_long_ends_its_turn(first: int, lives: bool) -> None:
    """The commit is sent before the error comes."""
    client = opened()
    for text in ("x" * first, "y"):
        client.send(TurnAppend(turn="p", speaker="S1", text=text))
    client.send(TurnCommit(turn="p"))
    give(client, make_error(ErrorCode.TEXT_TOO_LONG, "too long", turn="p"))
    event = give(client, TurnStarted(turn="p", index=0, speaker="S1", first_frame=0))
    assert isinstance(event, TurnStarted) == lives


def test_local_misuse_is_an_exception() -> None:
    client = ClientConnection()
    with pytest.raises(LocalProtocolError, match=r"send session.start first"):
        client.send(TURN)
    client.send(SessionStart())
    with pytest.raises(LocalProtocolError, match=r"wait for session.ready"):
        client.send(TURN)
    give(client, ready())
    client.send(TURN)
    with pytest.raises(LocalProtocolError, match="`t1` is taken"):
        client.send(TURN)
    client.send(SessionClose())
    with pytest.raises(LocalProtocolError, match="closing"):
        client.send(TURN)
