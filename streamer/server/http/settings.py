"""What the HTTP interface is made with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from aiohttp import web

from streamer.audio import DEFAULT_COMPLEXITY
from streamer.performance import TurnReport
from streamer.speech import Speech
from streamer_protocol import Limits


class Served(Protocol):
    """What the interface needs of the server that it is a part of."""

    @property
    def speech(self) -> Speech: ...
    @property
    def draining(self) -> bool: ...


def identity_name(request: web.Request) -> str:
    """The name that authentication has set; ``open`` where nobody asks who calls."""
    return str(getattr(request.get("identity"), "name", "open"))


@dataclass(frozen=True, slots=True)
class HttpHooks:
    """Whom else it concerns.

    ``caller``: the name of who sends a request. ``admit``: whether the caller may have one more dialogue; ``dismiss``:
    one that was admitted is over. ``completed``: a turn is over; ``refused``: an error was answered, by its code;
    ``sent``: bytes of audio have left.
    """

    caller: Callable[[web.Request], str] = identity_name
    admit: Callable[[web.Request], bool] = lambda _: True
    dismiss: Callable[[web.Request], None] = lambda _: None
    completed: Callable[[web.Request, TurnReport], None] = lambda _, __: None
    refused: Callable[[str], None] = lambda _: None
    sent: Callable[[int], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Settings of the HTTP interface.

    ``voices_store``: the folder of uploaded voices; None takes no uploads. ``send_buffer_bytes``: unsent audio per
    request before its generation waits. ``body_timeout_s``: how long a JSON body, ``upload_timeout_s``: how long a
    recording may take to arrive. ``stall_timeout_s``: after so long without reading anything a listener counts as
    gone. ``max_uploads``: recordings taken in at once.
    """

    limits: Limits = field(default_factory=Limits)
    voices_store: Path | None = None
    send_buffer_bytes: int = 32 * 2**10
    opus_complexity: int = DEFAULT_COMPLEXITY
    body_timeout_s: float = 30.0
    upload_timeout_s: float = 120.0
    stall_timeout_s: float = 120.0
    max_uploads: int = 4
    hooks: HttpHooks = field(default_factory=HttpHooks)
