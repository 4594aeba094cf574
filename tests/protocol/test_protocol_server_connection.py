"""The server's state machine: sessions, contexts and unreadable input; no peer makes it raise."""

from __future__ import annotations

import json
from typing import Any

import pytest
from protocol.server_side import (
    LIMITS,
    audio,
    completed,
    create,
    give,
    opened,
    ready,
    refused,
    started,
)

from streamer_protocol import (
    Error,
    ErrorCode,
    Limits,
    Ping,
    Pong,
    Queued,
    Rejected,
    ServerConnection,
    ServerEvent,
    SessionClosed,
    SessionIdle,
    TurnCreate,
    TurnStarted,
    TurnWords,
    make_error,
)


def test_a_whole_dialogue() -> None:
    server = opened()
    assert isinstance(create(server, "t1"), TurnCreate)
    sent = [
        server.send(Queued(turn="t1", position=0)),
        server.send(started("t1")),
        server.send(audio(0)),
        server.send(TurnWords(turn="t1", words=(("Hello", 0, 80),))),
        server.send(completed("t1")),
        server.send(SessionIdle()),
    ]
    assert [type(item) for item in sent] == [str, str, bytes, str, str, str]
    assert give(server, "session.close").context == "main"  # type: ignore[union-attr]
    server.send(SessionClosed(reason="client"))
    assert server.contexts == ()
    assert server.closing is None


@pytest.mark.parametrize(
    ("data", "code", "close_code"),
    [
        ("{", ErrorCode.INVALID_JSON, None),
        ("", ErrorCode.INVALID_JSON, None),
        ('{"type":"playback","played_ms":NaN}', ErrorCode.INVALID_JSON, None),
        ('{"type":"ping","id":"\\ud800"}', ErrorCode.INVALID_JSON, None),
        ('{"q":' + "[" * 1_900 + "}", ErrorCode.INVALID_JSON, None),
        (b'{"type":"ping","id":"\xff"}', ErrorCode.INVALID_UTF8, 1007),
        ('{"type":"ping","id":"\ud800"}', ErrorCode.INVALID_UTF8, 1007),
        ("[" * 1_900, ErrorCode.INVALID_MESSAGE, None),
        ('{"type":"playback","played_ms":%s}' % ("9" * 1_900), ErrorCode.INVALID_MESSAGE, None),
        ('{"type":"session.start","text":"' + "x" * 5_000_000 + '"}', ErrorCode.MESSAGE_TOO_LARGE, 1009),
        ('"' + "ü" * 1_500 + '"', ErrorCode.MESSAGE_TOO_LARGE, 1009),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_unreadable_messages(data: str | bytes, code: ErrorCode, close_code: int | None) -> None:
    server = ServerConnection(LIMITS)
    error = refused(server.receive_text(data)[0])
    assert (error.code, error.fatal, server.closing) == (code, close_code is not None, close_code)


def test_deep_nesting_beyond_the_recursion_limit_is_an_answer() -> None:
    server = ServerConnection(Limits(max_message_bytes=1_000_000))
    error = refused(server.receive_text('{"q":' + "[" * 200_000)[0])
    assert (error.code, error.message) == (ErrorCode.INVALID_JSON, "JSON is nested too deeply")


def test_a_repeated_key_counts_once_the_last_time() -> None:
    assert give_raw('{"type":"ping","id":"a","id":"b"}') == Ping(id="b")


def give_raw(data: str) -> ServerEvent:
    return ServerConnection().receive_text(data)[0]


def test_binary_is_refused_and_the_socket_lives() -> None:
    server = opened()
    error = refused(server.receive_binary(b"\x00" * 100)[0])
    assert (error.code, error.fatal) == (ErrorCode.BINARY_NOT_ALLOWED, False)
    assert isinstance(create(server, "t1"), TurnCreate)


def test_after_a_fatal_error_nothing_more_is_read() -> None:
    server = opened()
    server.receive_text(b"\xff")
    assert server.receive_text('{"type":"ping"}') == []
    assert server.receive_binary(b"x") == []
    assert json.loads(server.send(Pong()))["type"] == "pong"


@pytest.mark.parametrize(
    ("error", "close_code"),
    [
        (make_error(ErrorCode.SHUTTING_DOWN, "bye"), 1001),
        (Error(code="internal", message="broken", fatal=True), 1008),
        (make_error(ErrorCode.OVERLOADED, "later"), None),
    ],
)
def test_sending_a_fatal_error_closes_with_its_code(error: Error, close_code: int | None) -> None:
    server = opened()
    server.send(error)
    assert server.closing == close_code


def test_the_first_fatal_error_decides_the_close_code() -> None:
    server = opened()
    server.send(refused(server.receive_text(b"\xff")[0]))
    server.send(make_error(ErrorCode.SHUTTING_DOWN, "bye"))
    assert server.closing == 1007


@pytest.mark.parametrize(
    "message",
    [
        {"type": "turn.create", "turn": "a", "speaker": "S1", "text": "x"},
        {"type": "turn.append", "turn": "a", "text": "x"},
        {"type": "turn.commit", "turn": "a"},
        {"type": "script.append", "text": "x"},
        {"type": "turn.cancel"},
        {"type": "playback", "played_ms": 1},
    ],
    ids=lambda message: str(message["type"]),
)
def test_dialogue_messages_need_an_open_session(message: dict[str, Any]) -> None:
    server = ServerConnection(LIMITS)

    def code() -> str:
        return refused(give(server, **{"kind" if k == "type" else k: v for k, v in message.items()})).code

    assert code() == ErrorCode.SESSION_NOT_STARTED
    give(server, "session.start")
    assert code() == ErrorCode.SESSION_NOT_STARTED
    give(server, "session.close")
    assert code() == ErrorCode.SESSION_NOT_STARTED


def test_session_start_twice() -> None:
    server = ServerConnection(LIMITS)
    give(server, "session.start")
    assert refused(give(server, "session.start")).code == ErrorCode.SESSION_ALREADY_STARTED
    server.send(ready())
    assert refused(give(server, "session.start")).code == ErrorCode.SESSION_ALREADY_STARTED
    give(server, "session.close")
    assert refused(give(server, "session.start")).code == ErrorCode.SESSION_ALREADY_STARTED
    assert refused(give(server, "session.close")).code == ErrorCode.SESSION_NOT_STARTED


def test_ping_works_in_any_state_and_context() -> None:
    server = ServerConnection(LIMITS)
    assert give(server, "ping", context="nowhere", id="1") == Ping(context="nowhere", id="1")
    server.send(Pong(context="nowhere", id="1"))
    assert server.contexts == ()


def test_an_error_names_context_and_turn_of_the_message_it_refuses() -> None:
    server = opened()
    bad_speaker = give(server, "turn.create", context="call", turn="t9", speaker="S6", text="x")
    assert (refused(bad_speaker).context, refused(bad_speaker).turn) == ("call", "t9")
    bad_script = give(server, "script.append", context="call", script="sc", text="")
    assert (refused(bad_script).context, refused(bad_script).turn) == ("call", "sc")
    bad_context = give(server, "ping", context=["x"], turn="a b")
    assert (refused(bad_context).context, refused(bad_context).turn) == ("main", None)
    early = create(server, "t1", context="other")
    assert (refused(early).context, refused(early).turn) == ("other", "t1")
    deep = server.receive_text('{"type":"ping","zz":1,"q":' + "[" * 1_900 + "}")[0]
    assert (refused(deep).code, refused(deep).context) == (ErrorCode.INVALID_MESSAGE, "main")


def test_a_refused_start_can_be_repeated_and_other_errors_leave_it_alone() -> None:
    server = ServerConnection(LIMITS)
    give(server, "session.start")
    server.send(refused(create(server, "t1")))
    server.send(ready())
    give(server, "session.start", context="b")
    for code in (ErrorCode.UNKNOWN_VOICE, ErrorCode.INVALID_MESSAGE):
        server.send(make_error(code, "no such voice, no such value", context="b"))
        assert server.contexts == ("main",)
        assert not isinstance(give(server, "session.start", context="b"), Rejected)


def test_contexts_are_independent_and_limited() -> None:
    server = opened()
    give(server, "session.start", context="b")
    server.send(ready("b", handle=2))
    error = refused(give(server, "session.start", context="c"))
    assert (error.code, error.context) == (ErrorCode.TOO_MANY_CONTEXTS, "c")
    create(server, "t1")
    create(server, "t1", context="b")
    server.send(started("t1"))
    server.send(audio(0))
    server.send(audio(1))
    server.send(TurnStarted(context="b", turn="t1", index=0, speaker="S1", first_frame=0))
    server.send(audio(0, handle=2))
    server.send(SessionClosed(reason="client"))
    server.send(audio(1, handle=2))
    assert server.contexts == ("b",)
