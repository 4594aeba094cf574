"""The OpenAPI 3.1 document, made from the types that parse the requests and that the answers are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from streamer.server.http.answer import SpeechDelta, SpeechDone, SpeechError
from streamer.server.http.containers import CONTAINERS
from streamer.server.http.errors import CODES, ErrorBody
from streamer.server.http.requests import SpeechRequest
from streamer.server.http.voices import VoiceInfo, VoiceList, VoiceUpload
from streamer.server.tokens import TokenRequest, TokenResponse

Json = dict[str, Any]
_REF = "#/components/schemas/{name}"


class Health(msgspec.Struct, frozen=True):
    """The process answers."""

    status: str


class Ready(msgspec.Struct, frozen=True):
    """New sessions are taken."""

    status: str
    model: str


_TYPES = (
    SpeechRequest,
    SpeechDelta,
    SpeechDone,
    SpeechError,
    VoiceInfo,
    VoiceList,
    VoiceUpload,
    TokenRequest,
    TokenResponse,
    Health,
    Ready,
    ErrorBody,
)

SPEECH_EXAMPLES: Json = {
    "one voice": {"model": "tts", "input": "Hello there.", "voice": "alloy", "response_format": "opus"},
    "a dialogue": {
        "model": "tts",
        "input": "[S1] Hello there. [S2] Hi, how are you?",
        "voice": {"S1": "alloy", "S2": "echo"},
        "response_format": "wav",
        "seed": 7,
    },
    "events": {
        "model": "tts",
        "input": "Hello there.",
        "voice": {"id": "alloy"},
        "response_format": "pcm",
        "stream_format": "sse",
    },
}
UPLOAD_EXAMPLE: Json = {
    "id": "ann",
    "transcript": "What is said in the recording.",
    "consent": "true",
    "language": "en",
    "description": "calm, low",
    "name": "Ann",
}
TOKEN_EXAMPLE: Json = {"scopes": ["dialogue"], "ttl_s": 300}


def openapi_document(version: str, extra_paths: Mapping[str, Any] | None = None) -> Json:
    """The document of this server, ``extra_paths`` included; ``version`` is the server's."""
    _, components = msgspec.json.schema_components(_TYPES, ref_template=_REF)
    upload = components["VoiceUpload"]
    # A file is no type of JSON's, so it has none here either.
    upload["properties"]["file"] = {"description": "The recording.", "contentMediaType": "application/octet-stream"}
    upload["required"] = [*upload["required"], "file"]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dialogue streamer",
            "version": version,
            "description": _description(),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": {**_speech(), **_voices(), **_others(), **(extra_paths or {})},
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _description() -> str:
    codes = "\n".join(f"- `{code}` ({status}): {meaning}" for code, (status, meaning) in CODES.items())
    return (
        "Dialogue scripts in, speech out while it is made. The WebSocket `/v1/dialogue` has a document of its own. "
        "Without API keys on the server no credentials are needed.\n\n"
        f"Every error has a body with a stable `code`:\n\n{codes}"
    )


def _speech() -> Json:
    audio: Json = {kind().content_type.partition(";")[0]: {} for kind in CONTAINERS.values()}
    events = {"schema": {"oneOf": [_ref(kind) for kind in ("SpeechDelta", "SpeechDone", "SpeechError")]}}
    operation = {
        "operationId": "createSpeech",
        "summary": "Speak a text or a dialogue",
        "description": (
            "Audio is sent as it is made. When it can't be made to its end, the connection breaks off; with "
            "`stream_format` `sse` an error event comes before that."
        ),
        "requestBody": _json_body("SpeechRequest", SPEECH_EXAMPLES),
        "responses": {
            "200": {"description": "The audio, in chunks.", "content": {**audio, "text/event-stream": events}},
            **_errors(400, 401, 403, 408, 413, 429, 500, 503),
        },
    }
    return {"/v1/audio/speech": {"post": operation}}


def _voices() -> Json:
    form = {"schema": _ref("VoiceUpload"), "examples": {"a recording": {"value": UPLOAD_EXAMPLE}}}
    voice_id = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "/v1/voices": {
            "get": {
                "operationId": "listVoices",
                "summary": "All voices",
                "responses": {"200": _answer("The voices.", "VoiceList"), **_errors(401, 403)},
            },
            "post": {
                "operationId": "createVoice",
                "summary": "Make a voice from a recording",
                "requestBody": {"required": True, "content": {"multipart/form-data": form}},
                "responses": {
                    "201": _answer("The new voice.", "VoiceInfo"),
                    **_errors(400, 401, 403, 408, 409, 413, 415, 500, 501, 503, 507),
                },
            },
        },
        "/v1/voices/{id}": {
            "parameters": [voice_id],
            "get": {
                "operationId": "getVoice",
                "summary": "One voice",
                "responses": {"200": _answer("The voice.", "VoiceInfo"), **_errors(401, 403, 404)},
            },
            "delete": {
                "operationId": "deleteVoice",
                "summary": "Remove an uploaded voice",
                "responses": {"204": {"description": "It is gone."}, **_errors(401, 403, 404, 500, 501)},
            },
        },
    }


def _others() -> Json:
    metrics = {"description": "Prometheus' text format, or OpenMetrics.", "content": {"text/plain": {}}}
    document = {"description": "This document.", "content": {"application/json": {"schema": {"type": "object"}}}}
    return {
        "/v1/tokens": {
            "post": {
                "operationId": "createToken",
                "summary": "A short-lived token for a browser",
                "requestBody": {**_json_body("TokenRequest", {"a browser": TOKEN_EXAMPLE}), "required": False},
                "responses": {"200": _answer("The token.", "TokenResponse"), **_errors(400, 401, 403, 408, 413)},
            }
        },
        "/v1/openapi.json": {"get": {"operationId": "getOpenApi", "security": [], "responses": {"200": document}}},
        "/healthz": {
            "get": {
                "operationId": "getHealth",
                "summary": "Whether the process answers",
                "security": [],
                "responses": {"200": _answer("It does.", "Health")},
            }
        },
        "/readyz": {
            "get": {
                "operationId": "getReadiness",
                "summary": "Whether new sessions are taken",
                "security": [],
                "responses": {"200": _answer("They are.", "Ready"), **_errors(503)},
            }
        },
        "/metrics": {
            "get": {
                "operationId": "getMetrics",
                "summary": "Figures for Prometheus",
                "responses": {"200": metrics, **_errors(401, 403)},
            }
        },
    }


def _ref(name: str) -> Json:
    return {"$ref": _REF.format(name=name)}


def _json_body(name: str, examples: Json) -> Json:
    named = {key: {"value": value} for key, value in examples.items()}
    return {"required": True, "content": {"application/json": {"schema": _ref(name), "examples": named}}}


def _answer(description: str, name: str) -> Json:
    return {"description": description, "content": {"application/json": {"schema": _ref(name)}}}


def _errors(*statuses: int) -> Json:
    return {str(status): _answer(_codes_of(status), "ErrorBody") for status in statuses}


def _codes_of(status: int) -> str:
    codes: Sequence[str] = [code for code, (usual, _) in CODES.items() if usual == status]
    return " or ".join(f"`{code}`" for code in codes or ["unknown_voice"])
