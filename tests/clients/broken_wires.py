"""The real server behind a wire that can be broken, and what both ends said, in a form that can be compared."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from cutting_proxy import CuttingProxy
from serving import running

from streamer.server import DialogueServer, outbox
from streamer_client import Audio, Backoff, ClientSettings, Dialogue, Event, Reconnecting, Resumed, Sampling
from streamer_protocol import AudioFrame, Limits, SessionReady
from streamer_protocol.parsing import parse_server

SENTENCE = "The weather is so nice today, let us go for a walk."
SCRIPT = f"[S1] {SENTENCE} [S2] {SENTENCE} [S1] {SENTENCE}"
LIMITS = Limits(max_turn_audio_ms=2400, max_contexts=3)
GREEDY = Sampling(audio_temperature=0, text_temperature=0)
FAST = ClientSettings(backoff=Backoff(base_s=0.001, cap_s=0.01))
OPENING_BYTES = 1_600  # about what the answers to a handshake and a session.start take
NO_PACING_S = 1_000


@contextlib.asynccontextmanager
async def through_a_proxy(limits: Limits = LIMITS) -> AsyncIterator[tuple[DialogueServer, CuttingProxy]]:
    """A server that speaks as fast as it can, and the proxy in front of it."""
    async with running(limits, max_lead_s=NO_PACING_S) as server, CuttingProxy(server.port) as proxy:
        yield server, proxy


def told_by_the_server(monkeypatch: pytest.MonkeyPatch) -> list[str | bytes]:
    """Every message and frame that sessions send from now on, in order, each once."""
    sent: list[str | bytes] = []
    pack = outbox.pack

    def recording(*arguments: Any, **options: Any) -> str | bytes:
        data = pack(*arguments, **options)
        sent.append(data)
        return data

    monkeypatch.setattr(outbox, "pack", recording)
    return sent


async def until(dialogue: Dialogue, kind: type[Event], seen: list[Event] | None = None) -> Any:
    """The next event of this kind; it and what comes before it are noted in `seen`."""
    async for event in dialogue.events():
        if seen is not None:
            seen.append(event)
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__}")


def break_somehow(proxy: CuttingProxy, dice: random.Random) -> None:
    """Break the connection now or soon, in one of the ways that networks have."""
    way = dice.choice(["reset", "refused", "down", "up", "half", "dead"])
    if way == "down":
        proxy.cut_after(down=dice.choice([1, 10]) * dice.randrange(1, OPENING_BYTES))
    elif way == "up":
        proxy.cut_after(up=dice.randrange(1, 400))
    elif way == "half":
        proxy.half_close(dice.choice(["up", "down"]))
    else:
        if way == "refused":
            proxy.refuse(dice.choice([1, 2]))
        if way == "dead":
            proxy.drop()
        proxy.cut()
        proxy.resume()


def heard(events: Iterable[Event]) -> list[object]:
    """What a client got from the server: whole frames and whole messages."""
    return [
        (event.turn_index, event.frame, event.last, event.payload) if isinstance(event, Audio) else event
        for event in events
        if not isinstance(event, Reconnecting | Resumed)
    ]


def said(told: Iterable[str | bytes]) -> list[object]:
    """What a server sent to one client, in the same form."""
    found: list[object] = []
    for data in told:
        if isinstance(data, bytes):
            frame = AudioFrame.unpack(data)
            found.append((frame.turn_index, frame.frame, frame.last, frame.payload))
        else:
            message = parse_server(data)
            assert not isinstance(message, SessionReady | Exception)
            found.append(message)
    return found
