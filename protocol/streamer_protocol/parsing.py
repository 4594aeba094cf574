"""Bytes to typed messages and back. Whatever a peer sends, the answer is a value, never an exception."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar, get_args

import msgspec

from streamer_protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError, make_error
from streamer_protocol.messages import (
    SAMPLE_RATES_HZ,
    ClientMessage,
    Error,
    FrameMs,
    Id,
    Message,
    Mode,
    Ping,
    ServerMessage,
    SessionStart,
    Speaker,
    message_type,
)

MAX_DETAIL_CHARS = 300  # of a parser's sentence, which may quote the peer

_ENCODER = msgspec.json.Encoder()
_CLIENT: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)
_SERVER: msgspec.json.Decoder[ServerMessage] = msgspec.json.Decoder(ServerMessage)


class _Envelope(msgspec.Struct):
    """What an error should name even when the rest of the message is wrong."""

    type: Any = None
    context: Any = "main"
    turn: Any = None
    script: Any = None


_CHOICES: dict[str, tuple[object, ...]] = {
    "`$.type`": tuple(message_type(kind) for kind in get_args(ClientMessage)),
    "`$.speaker`": get_args(Speaker),
    "`key` in `$.voices`": get_args(Speaker),
    "`$.mode`": get_args(Mode),
    "`$.audio.format`": tuple(SAMPLE_RATES_HZ),
    "`$.audio.frame_ms`": get_args(FrameMs),
}
_ENVELOPE = msgspec.json.Decoder(_Envelope)
_Detail: TypeAlias = tuple[ErrorCode, str]
_Decoded = TypeVar("_Decoded")


def parse_client(data: bytes | str, max_bytes: int) -> ClientMessage | Error:
    """A client's text frame as its message, or as the `error` to answer."""
    # A str is measured as it travelled; the first test alone keeps a huge one from being encoded at all.
    if len(data) > max_bytes or (isinstance(data, str) and len(data.encode(errors="replace")) > max_bytes):
        text = f"the message is larger than max_message_bytes ({max_bytes})"
        return make_error(ErrorCode.MESSAGE_TOO_LARGE, text)
    result = _decode(data, _CLIENT)
    if not isinstance(result, tuple):
        return result
    code, detail = result
    context, turn = _addressed(data) if code is ErrorCode.INVALID_MESSAGE else ("main", None)
    return make_error(code, detail, context=context, turn=turn)


def is_sent_again(data: bytes | str) -> bool:
    """Whether a message that failed to decode is of a type that a client sends again, as far as can be read."""
    envelope = _envelope(data)
    return envelope is None or envelope.type not in (message_type(SessionStart), message_type(Ping))


def parse_server(data: bytes | str) -> ServerMessage | RemoteProtocolError:
    """A server's text frame as its message, or what is wrong with it."""
    result = _decode(data, _SERVER)
    if not isinstance(result, tuple):
        return result
    code, detail = result
    return RemoteProtocolError(f"{code}: {detail}")


def encode_client(message: ClientMessage) -> str:
    """The JSON text. Raises LocalProtocolError naming the field if a value breaks the protocol."""
    return _encode(message, _CLIENT)


def encode_server(message: ServerMessage) -> str:
    """The JSON text. Raises LocalProtocolError naming the field if a value breaks the protocol."""
    return _encode(message, _SERVER)


def _decode(data: bytes | str, decoder: msgspec.json.Decoder[_Decoded]) -> _Decoded | _Detail:
    """The message, or a code and a sentence."""
    try:
        if isinstance(data, str):
            data.encode()
        else:
            data = data.decode()
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        return ErrorCode.INVALID_UTF8, _clip(f"not UTF-8: {error.reason}")
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        return ErrorCode.INVALID_MESSAGE, _clip(str(error)) + _advice(str(error))
    except RecursionError:
        return ErrorCode.INVALID_JSON, "JSON is nested too deeply"
    except ValueError as error:
        return ErrorCode.INVALID_JSON, _clip(f"not JSON: {error}")


def _encode(message: Message, decoder: msgspec.json.Decoder[Any]) -> str:
    try:
        data = _ENCODER.encode(message)
        decoder.decode(data)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        raise LocalProtocolError(f"{type(message).__name__}: {error}") from error
    return data.decode()


def _addressed(data: bytes | str) -> tuple[str, str | None]:
    """Context and turn (or script) of a message that failed to decode, as far as they can be read."""
    envelope = _envelope(data)
    if envelope is None:
        return "main", None
    named = envelope.turn if envelope.turn is not None else envelope.script
    return _as_id(envelope.context) or "main", _as_id(named)


def _envelope(data: bytes | str) -> _Envelope | None:
    try:
        return _ENVELOPE.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None


def _as_id(value: object) -> str | None:
    try:
        return msgspec.convert(value, Id)
    except msgspec.ValidationError:
        return None


def _advice(detail: str) -> str:
    """The values that would have been right, for the fields that have a few."""
    choices = _CHOICES.get(detail.rpartition(" - at ")[2])
    return "" if choices is None else f": use one of {', '.join(map(str, choices))}"


def _clip(text: str) -> str:
    """Keep both ends: the reason stands first, the field path last."""
    half = MAX_DETAIL_CHARS // 2
    return text if len(text) <= MAX_DETAIL_CHARS else f"{text[:half]} … {text[-half:]}"
