"""The server's state machine: which message is answered how, in which state; no peer makes it raise."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamer_protocol import (
    AudioFormat,
    AudioFrame,
    AudioKind,
    Error,
    ErrorCode,
    Limits,
    LocalProtocolError,
    Ping,
    Pong,
    Queued,
    Rejected,
    ScriptAccepted,
    ScriptAppend,
    ScriptTurn,
    ServerConnection,
    ServerEvent,
    SessionClosed,
    SessionIdle,
    SessionReady,
    TurnCancel,
    TurnCompleted,
    TurnCreate,
    TurnStarted,
    TurnWords,
    make_error,
)

LIMITS = Limits(max_message_bytes=2_000, max_text_chars=50, max_contexts=2, max_queued_turns=2)


def ready(context: str = "main", handle: int = 1) -> SessionReady:
    return SessionReady(
        context=context,
        session=f"s-{context}",
        resume_token=None,
        handle=handle,
        model="tiny",
        audio=AudioFormat(),
        voices={"S1": "heart"},
        limits=LIMITS,
    )


def give(server: ServerConnection, kind: str, **fields: Any) -> ServerEvent:
    (event,) = server.receive_text(json.dumps({"type": kind, **fields}))
    return event


def refused(event: ServerEvent) -> Error:
    assert isinstance(event, Rejected), event
    return event.error


def opened(**fields: Any) -> ServerConnection:
    server = ServerConnection(LIMITS)
    give(server, "session.start", **fields)
    server.send(ready())
    return server


def create(server: ServerConnection, turn: str, **fields: Any) -> ServerEvent:
    return give(server, "turn.create", turn=turn, speaker="S1", text="Hello.", **fields)


def audio(
    frame: int, *, turn_index: int = 0, handle: int = 1, kind: AudioKind = AudioKind.OPUS
) -> AudioFrame:
    return AudioFrame(handle=handle, turn_index=turn_index, frame=frame, kind=kind, payload=b"\x08")


def started(turn: str, index: int = 0, first_frame: int = 0) -> TurnStarted:
    return TurnStarted(turn=turn, index=index, speaker="S1", first_frame=first_frame)


def completed(turn: str, index: int = 0) -> TurnCompleted:
    return TurnCompleted(turn=turn, index=index, frames=1, audio_ms=80, ttfa_ms=1.0, rtf=0.1, reason="end")


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


def test_text_length_and_queue_length_are_limited() -> None:
    server = opened()
    for kind, fields in [
        ("turn.create", {"turn": "a", "speaker": "S1"}),
        ("turn.append", {"turn": "a"}),
        ("script.append", {"script": "a"}),
    ]:
        error = refused(give(server, kind, text="x" * 51, **fields))
        assert (error.code, error.turn) == (ErrorCode.TEXT_TOO_LONG, "a")
        assert "`text`" in error.message
    create(server, "t1")
    give(server, "turn.append", turn="t2", text="x" * 50)
    assert refused(create(server, "t3")).code == ErrorCode.QUEUE_FULL
    assert refused(give(server, "turn.append", turn="t3", text="x")).code == ErrorCode.QUEUE_FULL
    assert refused(give(server, "script.append", text="x")).code == ErrorCode.QUEUE_FULL
    assert not isinstance(give(server, "turn.append", turn="t2", text="x"), Rejected)
    server.send(started("t1"))
    assert isinstance(create(server, "t3"), TurnCreate)


def test_turn_ids_are_used_once() -> None:
    server = opened()
    create(server, "t1")
    assert refused(create(server, "t1")).code == ErrorCode.DUPLICATE_TURN
    assert refused(give(server, "turn.append", turn="t1", text="x")).code == ErrorCode.DUPLICATE_TURN
    server.send(started("t1"))
    server.send(completed("t1"))
    assert refused(create(server, "t1")).code == ErrorCode.DUPLICATE_TURN


def test_a_refused_turn_gives_its_id_and_its_place_back() -> None:
    server = opened()
    for _ in range(5):
        create(server, "t1")
        server.send(refused(create(server, "t1")))  # a message that was refused does not end the turn
        assert refused(create(server, "t1")).code == ErrorCode.DUPLICATE_TURN
        server.send(make_error(ErrorCode.NO_SPEECH, "nothing to say", turn="t1"))
    create(server, "t1")
    server.send(make_error(ErrorCode.INTERNAL, "broken", turn="t1"))
    server.send(completed("t1"))


def test_a_turn_in_pieces() -> None:
    server = opened()
    assert refused(give(server, "turn.commit", turn="t1")).code == ErrorCode.UNKNOWN_TURN
    give(server, "turn.append", turn="t1", text="Hel")
    server.send(make_error(ErrorCode.TEXT_TOO_LONG, "this piece is too long", turn="t1"))
    server.send(started("t1"))
    assert not isinstance(give(server, "turn.append", turn="t1", text="lo"), Rejected)
    server.send(make_error(ErrorCode.INTERNAL, "one piece was lost", turn="t1"))
    assert not isinstance(give(server, "turn.commit", turn="t1"), Rejected)
    assert refused(give(server, "turn.commit", turn="t1")).code == ErrorCode.UNKNOWN_TURN
    assert refused(give(server, "turn.append", turn="t1", text="!")).code == ErrorCode.DUPLICATE_TURN
    give(server, "turn.append", turn="t2", text="x")
    server.send(make_error(ErrorCode.NOT_SUPPORTED, "not yet", turn="t2"))
    assert refused(give(server, "turn.commit", turn="t2")).code == ErrorCode.UNKNOWN_TURN
    assert isinstance(create(server, "t2"), TurnCreate)


def test_cancel_takes_known_turns_finished_ones_too() -> None:
    server = opened()
    assert refused(give(server, "turn.cancel", turn="t1")).code == ErrorCode.UNKNOWN_TURN
    create(server, "t1")
    server.send(started("t1"))
    server.send(completed("t1"))
    assert give(server, "turn.cancel", turn="t1", played_ms=40) == TurnCancel(turn="t1", played_ms=40)
    assert give(server, "turn.cancel") == TurnCancel()


def test_finished_turns_are_forgotten_in_the_end() -> None:
    server = opened()
    for number in range(1_100):
        create(server, f"t{number}")
        server.send(started(f"t{number}", index=number))
        server.send(completed(f"t{number}", index=number))
    assert refused(give(server, "turn.cancel", turn="t0")).code == ErrorCode.UNKNOWN_TURN
    assert isinstance(give(server, "turn.cancel", turn="t1099"), TurnCancel)


def test_waiting_turns_are_never_forgotten() -> None:
    server = ServerConnection(Limits(max_queued_turns=2_000))
    give(server, "session.start")
    server.send(ready())
    for number in range(1_100):
        create(server, f"t{number}")
    server.send(started("t0"))


def accepted(script: str, count: int) -> ScriptAccepted:
    turns = (ScriptTurn(turn=f"{script}.{n}", speaker="S1", text="x") for n in range(1, count + 1))
    return ScriptAccepted(script=script, turns=tuple(turns))


def test_a_script_gets_an_id_and_its_turns_can_be_spoken() -> None:
    server = opened()
    assert give(server, "script.append", text="[S1] Hi.") == ScriptAppend(script="script-1", text="[S1] Hi.")
    server.send(accepted("script-1", 2))
    server.send(started("script-1.1"))
    server.send(completed("script-1.1"))
    assert give(server, "script.append", text="x", script="script-2") == ScriptAppend(
        script="script-2", text="x"
    )
    third = give(server, "script.append", text="x")
    assert isinstance(third, ScriptAppend)
    assert third.script == "script-3"


def test_no_client_can_take_the_ids_of_a_scripts_turns() -> None:
    server = opened()
    give(server, "script.append", text="x", script="a")
    assert refused(give(server, "script.append", text="x", script="a")).code == ErrorCode.DUPLICATE_TURN
    assert refused(create(server, "a.2")).code == ErrorCode.DUPLICATE_TURN
    server.send(accepted("a", 2))
    assert isinstance(create(server, "b.2"), TurnCreate) is False  # the queue of two is full
    server.send(started("a.1"))
    create(server, "b.2")
    assert refused(give(server, "script.append", text="x", script="b")).code == ErrorCode.DUPLICATE_TURN


def test_a_refused_script_gives_its_id_back() -> None:
    server = opened()
    give(server, "script.append", text="x", script="a")
    server.send(make_error(ErrorCode.TOO_MANY_SPEAKERS, "six speakers", turn="a"))
    assert not isinstance(give(server, "script.append", text="x", script="a"), Rejected)
    server.send(accepted("a", 1))


def misuse(server: ServerConnection, *messages: Any, match: str) -> None:
    for message in messages[:-1]:
        server.send(message)
    with pytest.raises(LocalProtocolError, match=match):
        server.send(messages[-1])


def test_local_misuse_is_an_exception() -> None:
    misuse(ServerConnection(), ready(), match=r"session.ready while the context is absent")
    misuse(opened(), ready(), match="handle 1 is taken")
    misuse(opened(), ready(handle=2), match="session.ready while the context is ready")
    misuse(opened(), started("t1"), match="`t1` is not known")
    misuse(opened(), SessionClosed(reason="x"), SessionIdle(), match="absent")
    misuse(opened(), accepted("a", 2), accepted("a", 2), match="a.1` is taken")
    misuse(opened(), TurnCreate(turn="a", speaker="S1", text="x"), match="TurnCreate")
    spoken = [accepted("a", 1), started("a.1")]
    misuse(opened(), *spoken, started("a.1"), match="started already")
    misuse(opened(), *spoken, completed("a.1"), completed("a.1"), match="completed already")
    misuse(opened(), accepted("a", 1), started("a.1", first_frame=1), match="first_frame 1")


def test_a_session_has_one_handle() -> None:
    server = opened()
    give(server, "session.close")
    misuse(server, ready(handle=2), match="has a handle already")


def test_audio_misuse_is_an_exception() -> None:
    spoken = [accepted("a", 1), started("a.1")]
    misuse(opened(), audio(0, handle=7), match="unknown handle 7")
    misuse(opened(), audio(0), match="turn index 0, which is not being spoken")
    misuse(opened(), *spoken, audio(1), match="skips: got 1, expected 0")
    misuse(opened(), *spoken, audio(0), audio(0), match="repeats: got 0, expected 1")
    misuse(opened(), *spoken, audio(0, kind=AudioKind.MULAW), match="MULAW")
    misuse(opened(), *spoken, completed("a.1"), audio(0), match="not being spoken")
    misuse(opened(), audio(-1), match="frame -1")


def test_misuse_changes_nothing() -> None:
    server = opened()
    misuse(server, accepted("a", 1), started("a.1"), audio(5), match="skips")
    server.send(audio(0))
