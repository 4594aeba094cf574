"""A server connection to play with, and the messages it sends."""

from __future__ import annotations

import json
from typing import Any

from streamer_protocol import (
    AudioFormat,
    AudioFrame,
    AudioKind,
    Error,
    Limits,
    Rejected,
    ScriptAccepted,
    ScriptTurn,
    ServerConnection,
    ServerEvent,
    SessionReady,
    TurnCompleted,
    TurnStarted,
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


def audio(frame: int, *, turn_index: int = 0, handle: int = 1, kind: AudioKind = AudioKind.OPUS) -> AudioFrame:
    return AudioFrame(handle=handle, turn_index=turn_index, frame=frame, kind=kind, payload=b"\x08")


def started(turn: str, index: int = 0, first_frame: int = 0) -> TurnStarted:
    return TurnStarted(turn=turn, index=index, speaker="S1", first_frame=first_frame)


def completed(turn: str, index: int = 0) -> TurnCompleted:
    return TurnCompleted(turn=turn, index=index, frames=1, audio_ms=80, ttfa_ms=1.0, rtf=0.1, reason="end")


def accepted(script: str, count: int) -> ScriptAccepted:
    turns = (ScriptTurn(turn=f"{script}.{n}", speaker="S1", text="x") for n in range(1, count + 1))
    return ScriptAccepted(script=script, turns=tuple(turns))
