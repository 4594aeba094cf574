"""What a dialogue yields: the server's messages as they are, and `Audio`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from streamer_client.audio import OpusDecoder, Samples, mulaw_to_float, pcm_to_float
from streamer_client.errors import NotDecoded, ProtocolError
from streamer_protocol import (
    AudioFrame,
    AudioKind,
    Error,
    Queued,
    ScriptAccepted,
    SessionClosed,
    SessionIdle,
    TurnCompleted,
    TurnStarted,
    TurnTruncated,
    TurnWords,
    packet_samples_48k,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Audio:
    """One audio frame.

    `payload` is one Opus packet, or 16-bit little-endian PCM, or mu-law, as `kind` says. `frame` counts the
    frames of the dialogue from 0 without gap; `last` marks the last frame of a turn spoken to its end.
    """

    context: str
    turn: str
    turn_index: int
    frame: int
    last: bool
    kind: AudioKind
    payload: bytes = field(repr=False)
    sample_rate: int
    duration_ms: float
    decoded: Samples | None = field(default=None, repr=False)

    @property
    def pcm(self) -> Samples:
        """(samples,) float32 at `sample_rate`. Raises NotDecoded for Opus unless `decode` was asked for."""
        if self.decoded is not None:
            return self.decoded
        if self.kind is AudioKind.OPUS:
            raise NotDecoded
        if self.kind is AudioKind.PCM_S16LE:
            return pcm_to_float(self.payload)
        return mulaw_to_float(self.payload)


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """The connection was lost for this `reason`; attempt 1, 2, ... to get another begins after `delay_ms`."""

    attempt: int
    delay_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """The dialogue goes on where it was, `lost_ms` after the loss was noticed. Nothing is missing, nothing repeated."""

    lost_ms: int


Event: TypeAlias = (
    Audio
    | ScriptAccepted
    | Queued
    | TurnStarted
    | TurnCompleted
    | TurnTruncated
    | TurnWords
    | SessionIdle
    | SessionClosed
    | Error
    | Reconnecting
    | Resumed
)


def audio_event(frame: AudioFrame, context: str, turn: str, sample_rate: int, decoder: OpusDecoder | None) -> Audio:
    """The event of a frame, its Opus packet decoded if there is a decoder.

    Raises ProtocolError for a payload that cannot be what the frame says.
    """
    decoded = None
    if frame.kind is AudioKind.OPUS:
        try:
            duration_ms = packet_samples_48k(frame.payload) / 48
        except ValueError as error:
            raise ProtocolError(f"the server sent a broken Opus packet: {error}") from error
        if decoder is not None:
            decoded = decoder.decode(frame.payload)
    else:
        width_bytes = 2 if frame.kind is AudioKind.PCM_S16LE else 1
        if len(frame.payload) % width_bytes:
            raise ProtocolError(f"the server sent {len(frame.payload)} bytes of 16-bit PCM")
        duration_ms = len(frame.payload) / width_bytes * 1000 / sample_rate
    return Audio(
        context=context,
        turn=turn,
        turn_index=frame.turn_index,
        frame=frame.frame,
        last=frame.last,
        kind=frame.kind,
        payload=frame.payload,
        sample_rate=sample_rate,
        duration_ms=duration_ms,
        decoded=decoded,
    )
