"""The server's state machine: turns and scripts, their ids and limits, and misuse by the server itself."""

from __future__ import annotations

from typing import Any

import pytest
from protocol.server_side import (
    accepted,
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
    AudioKind,
    ErrorCode,
    Limits,
    LocalProtocolError,
    Rejected,
    Sampling,
    ScriptAppend,
    ServerConnection,
    ServerEvent,
    SessionClosed,
    SessionIdle,
    TurnAppend,
    TurnCancel,
    TurnCreate,
    TurnTruncated,
    make_error,
)


def test_text_length_and_queue_length_are_limited() -> None:
    server = opened()
    for kind, fields in [
        ("turn.create", {"turn": "a", "speaker": "S1"}),
        ("turn.append", {"turn": "a", "speaker": "S1"}),
        ("script.append", {"script": "a"}),
    ]:
        error = refused(give(server, kind, text="x" * 51, **fields))
        assert (error.code, error.turn) == (ErrorCode.TEXT_TOO_LONG, "a")
        assert "`text`" in error.message
    create(server, "t1")
    piece(server, "t2", "x" * 49, speaker="S1")
    assert refused(create(server, "t3")).code == ErrorCode.QUEUE_FULL
    assert refused(piece(server, "t3", speaker="S1")).code == ErrorCode.QUEUE_FULL
    assert refused(give(server, "script.append", text="x")).code == ErrorCode.QUEUE_FULL
    assert not isinstance(piece(server, "t2"), Rejected)
    server.send(started("t1"))
    assert isinstance(create(server, "t3"), TurnCreate)


def test_the_pieces_of_a_turn_count_together() -> None:
    server = opened()
    piece(server, "t1", "x" * 49, speaker="S1")
    for _ in range(2):
        error = refused(piece(server, "t1", "yz"))
        assert (error.code, error.turn) == (ErrorCode.TEXT_TOO_LONG, "t1")
        assert "51 characters" in error.message
    assert not isinstance(piece(server, "t1", "y"), Rejected)
    assert not isinstance(give(server, "turn.commit", turn="t1"), Rejected)


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


def piece(server: ServerConnection, turn: str, text: str = "x", **fields: Any) -> ServerEvent:
    return give(server, "turn.append", turn=turn, text=text, **fields)


def test_the_first_piece_says_who_speaks_and_how() -> None:
    server = opened()
    missing = refused(piece(server, "t1"))
    assert (missing.code, missing.turn) == (ErrorCode.INVALID_MESSAGE, "t1")
    assert "`speaker`" in missing.message
    first = piece(server, "t1", speaker="S2", sampling={"text_top_k": 3}, seed=1)
    assert first == TurnAppend(turn="t1", speaker="S2", text="x", sampling=Sampling(text_top_k=3), seed=1)
    assert not isinstance(piece(server, "t1", speaker="S2"), Rejected)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"speaker": "S1"}, "`speaker`"),
        ({"sampling": {}}, "`sampling`"),
        ({"seed": 0}, "`seed`"),
    ]
    for fields, named in changes:
        error = refused(piece(server, "t1", **fields))
        assert (error.code, error.turn) == (ErrorCode.INVALID_MESSAGE, "t1")
        assert named in error.message


def test_a_turn_in_pieces() -> None:
    server = opened()
    assert refused(give(server, "turn.commit", turn="t1")).code == ErrorCode.UNKNOWN_TURN
    piece(server, "t1", "Hel", speaker="S1")
    server.send(make_error(ErrorCode.TEXT_TOO_LONG, "this piece is too long", turn="t1"))
    server.send(started("t1"))
    assert not isinstance(give(server, "turn.append", turn="t1", text="lo"), Rejected)
    server.send(make_error(ErrorCode.INTERNAL, "one piece was lost", turn="t1"))
    assert not isinstance(give(server, "turn.commit", turn="t1"), Rejected)
    assert refused(give(server, "turn.commit", turn="t1")).code == ErrorCode.UNKNOWN_TURN
    assert refused(give(server, "turn.append", turn="t1", text="!")).code == ErrorCode.DUPLICATE_TURN
    piece(server, "t2", speaker="S1")
    server.send(make_error(ErrorCode.NOT_SUPPORTED, "not that", turn="t2"))
    assert refused(give(server, "turn.commit", turn="t2")).code == ErrorCode.UNKNOWN_TURN
    assert isinstance(create(server, "t2"), TurnCreate)


def test_cancel_takes_known_turns_finished_ones_too() -> None:
    server = opened()
    assert refused(give(server, "turn.cancel", turn="t1")).code == ErrorCode.UNKNOWN_TURN
    create(server, "t1")
    server.send(started("t1"))
    server.send(completed("t1"))
    assert give(server, "turn.cancel", turn="t1", played_ms=40) == TurnCancel(turn="t1", played_ms=40)
    server.send(TurnTruncated(turn="t1", index=0, heard_ms=40, text="Hel"))
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


def test_a_script_gets_an_id_and_its_turns_can_be_spoken() -> None:
    server = opened()
    assert give(server, "script.append", text="[S1] Hi.") == ScriptAppend(script="script-1", text="[S1] Hi.")
    server.send(accepted("script-1", 2))
    server.send(started("script-1.1"))
    server.send(completed("script-1.1"))
    assert give(server, "script.append", text="x", script="script-2") == ScriptAppend(script="script-2", text="x")
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
