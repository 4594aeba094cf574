"""The OpenAPI document: valid, true of a running server, and with examples that work."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from server.http_serving import LIMITS, VOICES, HttpServer, http_running
from server.test_http_speech import events_of

from streamer.server.http import HttpService, HttpSettings
from streamer.server.http.errors import CODES
from streamer.server.http.openapi import TOKEN_EXAMPLE, openapi_document


async def document_of(server: HttpServer) -> dict[str, Any]:
    async with server.client.get(server.url + "/v1/openapi.json") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        document: dict[str, Any] = await answer.json()
        return document


def check(document: dict[str, Any], name: str, value: Any) -> None:
    """``value`` is what the schema of this name says."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    Draft202012Validator(schema).validate(value)


def examples_of(document: dict[str, Any], path: str, content_type: str) -> list[Any]:
    body = document["paths"][path]["post"]["requestBody"]["content"][content_type]
    return [example["value"] for example in body["examples"].values()]


async def test_the_document_is_valid_openapi_and_names_every_route() -> None:
    async with http_running() as server:
        document = await document_of(server)
        validate(document, cls=OpenAPIV31SpecValidator)
        described = {(verb.upper(), path) for path, item in document["paths"].items() for verb in item}
        served = {(route.method, route.path) for route in server.service.routes()}
        assert served <= described
        others = {"/v1/tokens", "/healthz", "/readyz", "/metrics"}
        assert {path for _, path in described - served} - others == {"/v1/voices/{id}"}  # its parameters
        for code in CODES:
            assert f"`{code}`" in document["info"]["description"]


async def test_its_examples_of_speech_are_spoken() -> None:
    async with http_running() as server:
        document = await document_of(server)
        examples = examples_of(document, "/v1/audio/speech", "application/json")
        types = document["paths"]["/v1/audio/speech"]["post"]["responses"]["200"]["content"]
        assert len(examples) == 3
        for example in examples:
            check(document, "SpeechRequest", example)
            async with server.client.post(server.url + "/v1/audio/speech", json=example) as answer:
                assert answer.status == 200, await answer.text()
                assert answer.content_type in types
                body = await answer.read()
            if example.get("stream_format") == "sse":
                events = events_of(body)
                check(document, "SpeechDone", events[-1])
                check(document, "SpeechDelta", events[0])


async def test_its_example_of_an_upload_makes_the_voice_that_it_promises(tmp_path: Any) -> None:
    settings = HttpSettings(limits=LIMITS, voices_store=tmp_path)
    async with http_running(settings) as server:
        document = await document_of(server)
        (example,) = examples_of(document, "/v1/voices", "multipart/form-data")
        check(document, "VoiceUpload", example | {"file": "any"})
        form = aiohttp.FormData(example)
        form.add_field("file", (VOICES / "joe.wav").read_bytes(), filename="joe.wav")
        async with server.client.post(server.url + "/v1/voices", data=form) as answer:
            assert answer.status == 201
            check(document, "VoiceInfo", await answer.json())
        async with server.client.get(server.url + "/v1/voices") as answer:
            check(document, "VoiceList", await answer.json())
        check(document, "ErrorBody", {"error": await server.error("GET", "/v1/voices/nobody", 404)})


@pytest.mark.parametrize(
    "wrong", [{"speed": "fast"}, {"response_format": "mp3"}, {"voice": 3}, {"seed": -1}, {"model": None}]
)
async def test_what_the_server_refuses_the_schema_refuses_too(wrong: dict[str, Any]) -> None:
    async with http_running() as server:
        document = await document_of(server)
        request = {"model": "m", "input": "Hi.", "voice": "one"} | wrong
        schema = {"$ref": "#/components/schemas/SpeechRequest", "components": document["components"]}
        assert not Draft202012Validator(schema).is_valid(request)
        await server.error("POST", "/v1/audio/speech", 400, json=request)


async def test_more_paths_can_be_described() -> None:
    async with http_running() as server:
        more = {"/v1/more": {"get": {"responses": {"200": {"description": "More."}}}}}
        service = HttpService(server, server.settings, more)
        document = json.loads(service.document)
        validate(document, cls=OpenAPIV31SpecValidator)
        assert document["paths"]["/v1/more"] == more["/v1/more"]


def test_the_example_of_a_token_fits_its_schema() -> None:
    check(json.loads(json.dumps(openapi_document("1"))), "TokenRequest", TOKEN_EXAMPLE)
