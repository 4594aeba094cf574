"""The AsyncAPI 3 document of the dialogue socket, made from the message structs.

`python -m streamer_protocol.asyncapi` writes it to standard output.
"""

from __future__ import annotations

import inspect
import json
from typing import Any, TypeAlias, get_args

import msgspec

from streamer_protocol import PATH, SUBPROTOCOL
from streamer_protocol.errors import ErrorCode
from streamer_protocol.header import HEADER_BYTES, HEADER_VERSION, KIND_OF_FORMAT, AudioFrame, AudioKind
from streamer_protocol.messages import (
    DEFAULT_SAMPLE_RATE_HZ,
    SAMPLE_RATES_HZ,
    AudioFormat,
    ClientMessage,
    Error,
    Limits,
    Message,
    Ping,
    Playback,
    Pong,
    Queued,
    Sampling,
    ScriptAccepted,
    ScriptAppend,
    ScriptTurn,
    ServerMessage,
    SessionClose,
    SessionClosed,
    SessionIdle,
    SessionReady,
    SessionStart,
    Speaker,
    TurnAppend,
    TurnCancel,
    TurnCommit,
    TurnCompleted,
    TurnCreate,
    TurnStarted,
    TurnTruncated,
    TurnWords,
    message_type,
)

Json: TypeAlias = dict[str, Any]

AUDIO_MESSAGE = "audio"
_SCHEMAS = "#/components/schemas/"
_MESSAGES = "#/components/messages/"
_CHANNEL = "#/channels/dialogue"

_READY = SessionReady(
    session="s-5f0c",
    resume_token="eyJzIjoicy01ZjBjIn0.aSGx",
    handle=1,
    model="tiny",
    audio=AudioFormat(),
    voices={"S1": "heart", "S2": "joe"},
    limits=Limits(),
)
CLIENT_EXAMPLES: tuple[ClientMessage, ...] = (
    SessionStart(voices={"S1": "heart", "S2": "joe"}, language="en", seed=1),
    SessionStart(context="phone", audio=AudioFormat(format="mulaw", frame_ms=20), mode="script", words=True),
    SessionStart(resume="eyJzIjoicy01ZjBjIn0.aSGx", last_frame=16, messages_after=0),
    TurnCreate(turn="t1", speaker="S1", text="How was your trip?", sampling=Sampling(audio_temperature=0.8), seed=7),
    TurnAppend(turn="t2", speaker="S2", text="Oh, it was "),
    TurnAppend(turn="t2", text="wonderful."),
    TurnCommit(turn="t2"),
    ScriptAppend(script="s1", text="[S1] Hello. [S2] Hi."),
    TurnCancel(turn="t2", played_ms=640),
    Playback(played_ms=560),
    SessionClose(),
    Ping(id="p1"),
)
SERVER_EXAMPLES: tuple[ServerMessage, ...] = (
    _READY,
    msgspec.structs.replace(_READY, resume_token="eyJzIjoicy01ZjBjIn0.b7Qw", resumed=True, received=2),
    ScriptAccepted(
        script="s1",
        turns=(ScriptTurn(turn="s1.1", speaker="S1", text="Hello."), ScriptTurn(turn="s1.2", speaker="S2", text="Hi.")),
    ),
    Queued(turn="t1", position=1),
    TurnStarted(turn="t1", index=0, speaker="S1", first_frame=0),
    TurnWords(turn="t1", words=(("How", 0, 160), ("was", 160, 400))),
    TurnCompleted(turn="t1", index=0, frames=14, audio_ms=1120, ttfa_ms=70.7, rtf=0.2, reason="end"),
    TurnTruncated(turn="t2", index=1, heard_ms=640, text="Oh, it"),
    SessionIdle(),
    SessionClosed(reason="closed by the client"),
    Pong(id="p1"),
    Error(code="queue_full", message="turn.create: max_queued_turns (64) turns wait already", turn="t9"),
)
AUDIO_EXAMPLE = AudioFrame(handle=1, turn_index=2, frame=300, kind=AudioKind.OPUS, last=True, payload=b"\x08\x0b\xe4")


def document() -> Json:
    """The AsyncAPI document, as JSON values. `receive` and `send` are the server's."""
    client, server = get_args(ClientMessage), get_args(ServerMessage)
    names = {kind: message_type(kind) for kind in (*client, *server)}
    messages = {name: _message(kind) for kind, name in names.items()} | {AUDIO_MESSAGE: _audio_message()}
    return {
        "asyncapi": "3.0.0",
        "info": _info(),
        "defaultContentType": "application/json",
        "servers": {"local": _server("127.0.0.1:8000", "ws"), "public": _server("speech.example.com", "wss")},
        "channels": {
            "dialogue": {
                "address": PATH,
                "title": "Dialogue",
                "description": "Text frames are JSON in UTF-8, both ways; binary frames are audio, to the client only.",
                "messages": {name: {"$ref": _MESSAGES + name} for name in messages},
                "bindings": {"ws": _handshake()},
            }
        },
        "operations": {
            "fromClient": _operation("receive", "What a client sends.", [names[kind] for kind in client]),
            "toClient": _operation(
                "send", "What the server sends.", [*(names[kind] for kind in server), AUDIO_MESSAGE]
            ),
        },
        "components": {"schemas": _schemas(), "messages": messages, "securitySchemes": _security_schemes()},
    }


def main() -> None:
    """Write the document to standard output."""
    print(json.dumps(document(), indent=2, ensure_ascii=False))


def _info() -> Json:
    return {
        "title": "dialogue streamer",
        "version": "1",
        "description": "A dialogue script in, multi-speaker speech out, while it is being spoken. docs/protocol.md "
        "tells the rules of order that no schema holds.",
        "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
    }


def _server(host: str, protocol: str) -> Json:
    schemes = [{"$ref": f"#/components/securitySchemes/{name}"} for name in _security_schemes()]
    return {"host": host, "protocol": protocol, "security": schemes}


def _security_schemes() -> Json:
    return {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key, or a client token from POST /v1/tokens; nothing, where the server has no keys.",
        },
        "token": {
            "type": "httpApiKey",
            "name": "token",
            "in": "query",
            "description": "A client token, for browsers, which can't set headers here. API keys are refused.",
        },
    }


def _handshake() -> Json:
    subprotocol = {"type": "string", "const": SUBPROTOCOL}
    token = {"type": "string", "description": "A client token."}
    return {
        "method": "GET",
        "headers": {"type": "object", "properties": {"Sec-WebSocket-Protocol": subprotocol}},
        "query": {"type": "object", "properties": {"token": token}},
        "bindingVersion": "0.1.0",
    }


def _operation(action: str, summary: str, names: list[str]) -> Json:
    return {
        "action": action,
        "summary": summary,
        "channel": {"$ref": _CHANNEL},
        "messages": [{"$ref": f"{_CHANNEL}/messages/{name}"} for name in names],
    }


def _message(kind: type[Message]) -> Json:
    examples = [_payload(example) for example in (*CLIENT_EXAMPLES, *SERVER_EXAMPLES) if type(example) is kind]
    return {
        "name": message_type(kind),
        "title": kind.__name__,
        "summary": inspect.cleandoc(str(kind.__doc__)).partition("\n")[0],
        "contentType": "application/json",
        "payload": {"$ref": _SCHEMAS + kind.__name__},
        "examples": [{"payload": payload} for payload in examples],
    }


def _payload(example: Message) -> Json:
    """As it may travel: a client leaves out what is the default."""
    payload: Json = json.loads(msgspec.json.encode(example))
    if isinstance(example, get_args(ServerMessage)):
        return payload
    told: Json = {"type": payload["type"]}
    for field in msgspec.structs.fields(example):
        if getattr(example, field.name) not in (field.default, {}):
            value = payload[field.name]
            told[field.name] = {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value
    return told


def _audio_message() -> Json:
    """A binary frame, which no JSON schema can describe; its header is told in an extension."""
    kinds = ", ".join(f"{kind.value} {name}" for name, kind in KIND_OF_FORMAT.items())
    fields = [
        (0, "u8", "version", str(HEADER_VERSION)),
        (1, "u8", "kind", kinds),
        (2, "u8", "flags", "1: last frame of its turn"),
        (3, "u8", "reserved", "0"),
        (4, "u32", "handle", "of session.ready"),
        (8, "u32", "turn index", "of turn.started"),
        (12, "u32", "frame number", "from 0 through the whole context, without gap"),
    ]
    return {
        "name": AUDIO_MESSAGE,
        "title": "AudioFrame",
        "summary": f"A binary frame: {HEADER_BYTES} bytes of header, little-endian, then at least one byte of audio.",
        "contentType": "application/octet-stream",
        "payload": {"type": "string", "format": "binary", "minLength": HEADER_BYTES + 1},
        "x-header": [dict(zip(("offset", "type", "name", "value"), row, strict=True)) for row in fields],
        "x-example-hex": AUDIO_EXAMPLE.pack().hex(),
    }


def _schemas() -> Json:
    kinds = [*get_args(ClientMessage), *get_args(ServerMessage)]
    _, found = msgspec.json.schema_components(kinds, ref_template=_SCHEMAS + "{name}")
    schemas: Json = {name: _draft_07(schema) for name, schema in found.items()}
    for kind in get_args(ServerMessage):
        # The server leaves nothing out, whatever the defaults are.
        schemas[kind.__name__]["required"] = list(schemas[kind.__name__]["properties"])
    for name in ("SessionStart", "SessionReady"):
        schemas[name]["properties"]["voices"]["propertyNames"] = {"enum": list(get_args(Speaker))}
    schemas["AudioFormat"]["allOf"] = [_rates(name) for name in SAMPLE_RATES_HZ]
    codes = [
        {"code": code.value, "meaning": code.meaning, "fatal": code.fatal, "closeCode": code.close_code}
        for code in ErrorCode
    ]
    schemas["Error"]["properties"]["code"] |= {"examples": [code.value for code in ErrorCode], "x-codes": codes}
    return schemas


def _rates(name: str) -> Json:
    """Which sample rates go with a format; the default format is meant where none is given."""
    required = [] if name == AudioFormat().format else ["format"]
    return {
        "if": {"properties": {"format": {"const": name}}, "required": required},
        "then": {"properties": {"sample_rate": {"enum": [0, *SAMPLE_RATES_HZ[name]]}}},
        "description": f"{name}: 0 means {DEFAULT_SAMPLE_RATE_HZ[name]}",
    }


def _draft_07(schema: Any) -> Any:
    """JSON Schema as AsyncAPI takes it: draft 07 has other words for tuples, and nothing beside a $ref."""
    if isinstance(schema, list):
        return [_draft_07(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    told = {key: _draft_07(value) for key, value in schema.items()}
    if "description" in told and isinstance(told["description"], str):
        told["description"] = inspect.cleandoc(told["description"])
    if "prefixItems" in told:
        told |= {"items": told.pop("prefixItems"), "additionalItems": False}
    if "$ref" in told and len(told) > 1:
        told = {"allOf": [{"$ref": told.pop("$ref")}], **told}
    return told


if __name__ == "__main__":
    main()
