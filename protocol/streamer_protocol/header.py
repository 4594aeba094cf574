"""Audio frames: a 16-byte little-endian header, then the payload.

u8 version | u8 kind | u8 flags | u8 zero | u32 context handle | u32 turn index | u32 frame number
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from streamer_protocol.errors import HeaderError
from streamer_protocol.messages import MAX_U32, AudioFormatName

HEADER_BYTES = 16
HEADER_VERSION = 1
FLAG_LAST = 1
_LAYOUT = struct.Struct("<BBBBIII")


class AudioKind(IntEnum):
    """What the payload is."""

    OPUS = 1
    PCM_S16LE = 2
    MULAW = 3


KIND_OF_FORMAT: dict[AudioFormatName, AudioKind] = {
    "opus": AudioKind.OPUS,
    "pcm_s16le": AudioKind.PCM_S16LE,
    "mulaw": AudioKind.MULAW,
}
_KIND_VALUES = frozenset(int(kind) for kind in AudioKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFrame:
    """One audio frame. `frame` counts the frames of its context from 0, without gap; `last` ends a turn."""

    handle: int
    turn_index: int
    frame: int
    kind: AudioKind
    last: bool = False
    payload: bytes

    def pack(self) -> bytes:
        """Header and payload. Raises HeaderError for a number that is no u32, or an empty payload."""
        for name in ("handle", "turn_index", "frame"):
            if not 0 <= getattr(self, name) <= MAX_U32:
                raise HeaderError(f"audio frame: {name} {getattr(self, name)} is not in 0..{MAX_U32}")
        if not self.payload:
            raise HeaderError("audio frame: the payload is empty")
        flags = FLAG_LAST if self.last else 0
        head = _LAYOUT.pack(HEADER_VERSION, self.kind, flags, 0, self.handle, self.turn_index, self.frame)
        return head + self.payload

    @classmethod
    def unpack(cls, data: bytes) -> AudioFrame:
        """The frame in one binary message. Raises HeaderError if it is too short or not of this version."""
        if len(data) <= HEADER_BYTES:
            raise HeaderError(f"audio frame: {len(data)} bytes, less than a header and a payload")
        version, kind, flags, zero, handle, turn_index, frame = _LAYOUT.unpack_from(data)
        if version != HEADER_VERSION:
            raise HeaderError(f"audio frame: version {version}, know {HEADER_VERSION}")
        if kind not in _KIND_VALUES:
            raise HeaderError(f"audio frame: unknown kind {kind}")
        if flags & ~FLAG_LAST or zero:
            raise HeaderError(f"audio frame: unknown flags {flags:#x} or reserved byte {zero:#x}")
        return cls(
            handle=handle,
            turn_index=turn_index,
            frame=frame,
            kind=AudioKind(kind),
            last=bool(flags & FLAG_LAST),
            payload=data[HEADER_BYTES:],
        )
