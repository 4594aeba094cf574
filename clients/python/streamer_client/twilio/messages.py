"""Twilio's media-stream messages (JSON text frames), as far as a call needs them.

https://www.twilio.com/docs/voice/media-streams/websocket-messages
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Struct

MAX_MESSAGE_BYTES = 64 * 2**10  # Twilio's own are below 1 KiB
INBOUND = "inbound"
_Sid = Annotated[str, Meta(min_length=1, max_length=128)]


class _Part(Struct, frozen=True, rename="camel"):
    """Unknown fields are passed over: Twilio adds some now and then."""


class _Message(_Part, frozen=True, tag_field="event", tag=str.lower):
    pass


class MediaFormat(_Part, frozen=True):
    encoding: str
    sample_rate: int
    channels: int


class StartBody(_Part, frozen=True):
    call_sid: _Sid
    media_format: MediaFormat
    account_sid: str = ""
    custom_parameters: dict[str, str] = {}


class MediaBody(_Part, frozen=True, omit_defaults=True):
    """`payload`: mu-law at 8 kHz, base64 on the wire. `track` comes with the caller's."""

    payload: bytes
    track: str = INBOUND


class MarkBody(_Part, frozen=True):
    name: str


class DtmfBody(_Part, frozen=True):
    digit: Annotated[str, Meta(pattern=r"\A[0-9A-D*#]\Z")]


class Connected(_Message, frozen=True):
    """The WebSocket is open."""


class Start(_Message, frozen=True):
    """The stream begins; comes once."""

    stream_sid: _Sid
    start: StartBody


class Media(_Message, frozen=True):
    """Audio, either way: from the caller, or to be played after what was sent before."""

    stream_sid: str
    media: MediaBody


class Mark(_Message, frozen=True):
    """Sent by us after audio; comes back when all before it was played, or was cleared."""

    stream_sid: str
    mark: MarkBody


class Dtmf(_Message, frozen=True):
    """A key was pressed."""

    stream_sid: str
    dtmf: DtmfBody


class Stop(_Message, frozen=True):
    """The stream has ended: the caller hung up, or the call went elsewhere."""

    stream_sid: str = ""


class Clear(_Message, frozen=True):
    """Sent by us: forget the audio that was not played yet."""

    stream_sid: str


FromTwilio: TypeAlias = Connected | Start | Media | Mark | Dtmf | Stop
ToTwilio: TypeAlias = Media | Mark | Clear
_decoder: msgspec.json.Decoder[FromTwilio] = msgspec.json.Decoder(FromTwilio)
_encoder = msgspec.json.Encoder()


def parse(data: str | bytes) -> FromTwilio | str:
    """The message, or what is wrong with it; whatever a peer sends, nothing is raised."""
    if len(data) > MAX_MESSAGE_BYTES:
        return f"a message of {len(data)} bytes; Twilio's have at most {MAX_MESSAGE_BYTES}"
    try:
        return _decoder.decode(data)
    except RecursionError:
        return "JSON that is nested too deeply"
    except (msgspec.DecodeError, ValueError) as error:
        return str(error)


def encode(message: ToTwilio) -> str:
    """JSON for a text frame: Twilio refuses binary ones."""
    return _encoder.encode(message).decode()
