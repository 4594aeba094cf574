"""What a caller has heard, from marks and time; and who may claim to be Twilio."""

from __future__ import annotations

from typing import Any

import pytest

from streamer_client.twilio import TurnHeard, TurnRefused, valid_signature
from streamer_client.twilio.playhead import Playhead
from streamer_client.twilio.sockets import close_reason
from streamer_client.twilio.turns import Turns
from streamer_protocol import ErrorCode, TurnCompleted, TurnTruncated, make_error

# The worked example of https://www.twilio.com/docs/usage/security.
TOKEN = "12345"
URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
FORM = {
    "CallSid": "CA1234567890ABCDE",
    "Caller": "+14158675310",
    "Digits": "1234",
    "From": "+14158675310",
    "To": "+18005551212",
}
SIGNATURE = "GvWf1cFY/Q7PnoempGyD5oXAezc="


def completed(turn: str, frames: int = 1, reason: Any = "end") -> TurnCompleted:
    return TurnCompleted(turn=turn, index=0, frames=frames, audio_ms=80, ttfa_ms=1.0, rtf=0.1, reason=reason)


def truncated(turn: str, heard_ms: int, text: str) -> TurnTruncated:
    return TurnTruncated(turn=turn, index=0, heard_ms=heard_ms, text=text)


def playing(audio_ms: float, now_s: float = 0.0) -> Playhead:
    """400 ms or more were sent with a mark every 200 ms."""
    playhead = Playhead()
    for _ in range(round(audio_ms / 20)):
        playhead.send(20, now_s)
        if playhead.unmarked_ms >= 200:
            playhead.mark()
    return playhead


def test_time_tells_up_to_the_first_mark_that_is_out() -> None:
    playhead = playing(1000)
    assert [playhead.heard_ms(now_s) for now_s in (0.0, 0.15, 0.2, 5.0)] == [0, 150, 200, 200]
    assert playhead.returned("2", 0.5)
    assert [playhead.heard_ms(now_s) for now_s in (0.5, 0.6, 9.0)] == [400, 500, 600]
    assert playhead.heard_ms(0.4) == 400, "a clock that goes back takes nothing away"


def test_audio_after_silence_plays_from_then() -> None:
    playhead = playing(200)
    assert playhead.returned("1", 0.3)
    playhead.send(500, 10.0)
    assert playhead.heard_ms(10.1) == pytest.approx(300)


def test_a_mark_counts_once_and_only_if_it_is_out() -> None:
    playhead = playing(400)
    assert not playhead.returned("3", 0.1)
    assert playhead.returned("2", 0.4)
    assert not playhead.returned("2", 0.5)
    assert not playhead.returned("1", 0.5), "the second says that the first was played"
    assert playhead.confirmed_ms == playhead.sent_ms == 400


def test_after_a_cut_only_what_was_heard_counts() -> None:
    playhead = playing(1000)
    playhead.returned("1", 0.25)
    assert playhead.cut(0.3505) == 300
    assert not playhead.returned("2", 0.4), "cleared, not played"
    playhead.send(20, 1.0)
    assert playhead.heard_ms(2.0) == 320
    assert playhead.mark() == "6", "a name is never used again"


def test_what_was_sent_but_not_marked_counts_by_time() -> None:
    playhead = playing(100)
    assert playhead.heard_ms(0.04) == pytest.approx(40)
    assert playhead.heard_ms(4) == 100


def test_a_turn_is_heard_once_the_caller_is_past_its_end() -> None:
    turns = Turns()
    turns.add("a", "One.")
    turns.add("b", "Two.")
    assert turns.admit("a", 0, 80)
    assert turns.admit("b", 80, 160)
    assert turns.completed(completed("a")) == []
    assert turns.heard(79) == []
    assert turns.heard(80) == [TurnHeard("a", "One.", 80, True)]
    assert turns.heard(160) == [], "not completed yet"
    assert turns.completed(completed("b")) == [TurnHeard("b", "Two.", 80, True)]
    assert not turns


def test_a_cut_reaches_each_turn_in_its_own_way() -> None:
    turns = Turns()
    for name in ("heard", "half", "unheard", "waiting"):
        turns.add(name, name)
    for n, name in enumerate(("heard", "half", "unheard")):
        turns.admit(name, 80 * n, 80 * (n + 1))
    turns.completed(completed("heard"))
    turns.completed(completed("half"))
    assert turns.cut(120) == [TurnHeard("heard", "heard", 80, True)]
    assert not turns.speaking
    assert not turns.admit("unheard", 120, 200)
    assert not turns.admit("nobody", 120, 200)
    assert turns.truncated(truncated("half", 40, "ha")) == [TurnHeard("half", "ha", 40, False)]
    assert turns.completed(completed("unheard", reason="cancelled")) == []
    assert turns.truncated(truncated("unheard", 0, "")) == [TurnHeard("unheard", "", 0, False)]
    assert turns.completed(completed("waiting", frames=0, reason="cancelled")) == [TurnHeard("waiting", "", 0, False)]
    assert turns.truncated(truncated("waiting", 0, "")) == []
    assert not turns


def test_a_turn_that_ended_as_it_was_cut_is_told_once() -> None:
    """The server had spoken it to its end before it knew of the cut, and all of it was heard: nothing to truncate."""
    turns = Turns()
    turns.add("a", "One.")
    turns.admit("a", 0, 80)
    assert turns.cut(80) == []
    assert turns.completed(completed("a")) == [TurnHeard("a", "One.", 80, True)]

    turns.add("b", "Two.")
    turns.admit("b", 80, 160)
    assert turns.cut(160) == []
    assert not turns.admit("b", 160, 240)
    assert turns.completed(completed("b")) == [], "its end was dropped: the server tells what is kept"
    assert turns.heard(500) == []
    assert turns.truncated(truncated("b", 80, "Tw")) == [TurnHeard("b", "Tw", 80, False)]


def test_errors_belong_to_their_turns() -> None:
    turns = Turns()
    turns.add("a", "One.")
    assert turns.failed(make_error(ErrorCode.OVERLOADED, "later")) == []
    assert turns.failed(make_error(ErrorCode.OVERLOADED, "later", turn="x")) == []
    assert turns.failed(make_error(ErrorCode.UNKNOWN_TURN, "a commit too late", turn="a")) == []
    assert turns.failed(make_error(ErrorCode.OVERLOADED, "later", turn="a")) == [
        TurnRefused("a", "overloaded", "later")
    ]
    assert turns.completed(completed("a", frames=0, reason="error")) == []
    assert not turns


def test_a_turn_that_fails_in_the_middle_can_still_be_interrupted() -> None:
    turns = Turns()
    turns.add("a", "One.")
    turns.started("a")
    turns.admit("a", 0, 80)
    assert turns.failed(make_error(ErrorCode.INTERNAL, "oh", turn="a")) == [TurnRefused("a", "internal", "oh")]
    assert turns.completed(completed("a", reason="error")) == []
    assert turns.speaking, "it still sounds"
    assert turns.heard(80) == []
    assert not turns


def test_twilios_own_example_is_valid() -> None:
    assert valid_signature(TOKEN, SIGNATURE, URL, FORM)
    assert valid_signature(TOKEN, SIGNATURE, URL, dict(reversed(FORM.items())))


@pytest.mark.parametrize(
    "forged",
    [
        {"auth_token": "12346"},
        {"signature": ""},
        {"signature": "é"},
        {"signature": SIGNATURE.lower()},
        {"url": URL.replace("https", "http")},
        {"parameters": None},
        {"parameters": {**FORM, "Digits": "1235"}},
        {"parameters": {**FORM, "More": "x"}},
    ],
)
def test_anything_else_is_not(forged: dict[str, Any]) -> None:
    given = {"auth_token": TOKEN, "signature": SIGNATURE, "url": URL, "parameters": FORM}
    assert not valid_signature(**{**given, **forged})


def test_a_close_frame_holds_only_so_much() -> None:
    assert close_reason("short") == "short"
    assert close_reason("é" * 100) == "é" * 61
