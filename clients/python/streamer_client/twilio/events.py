"""What happens on a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Started:
    """The call is up. `parameters` are those that the call's TwiML gave the stream."""

    call_sid: str
    stream_sid: str
    account_sid: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TurnHeard:
    """A turn is over for the caller: heard to its end (`whole`), or cut after `heard_ms`, which is `text` of its words.

    The words of a turn that was cut are the server's estimate, and what the dialogue remembers.
    """

    turn: str
    text: str
    heard_ms: int
    whole: bool


@dataclass(frozen=True, slots=True)
class TurnRefused:
    """The server does not speak a turn, or not all of its text; the call goes on. `code`: see docs/protocol.md."""

    turn: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Dtmf:
    """The caller pressed a key: `0`-`9`, `*`, `#`, `A`-`D`."""

    digit: str


@dataclass(frozen=True, slots=True)
class HungUp:
    """The call is over; the last event. `by`: the caller's side, the dialogue server, or this program."""

    by: Literal["caller", "server", "us"]
    reason: str


CallEvent: TypeAlias = Started | TurnHeard | TurnRefused | Dtmf | HungUp
