"""The AsyncAPI document: it is the one that is checked in, it is AsyncAPI 3, and its examples are good."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from streamer_protocol import (
    AudioFrame,
    ClientMessage,
    Error,
    ErrorCode,
    RemoteProtocolError,
    ServerMessage,
    message_type,
)
from streamer_protocol.asyncapi import AUDIO_EXAMPLE, document
from streamer_protocol.parsing import parse_client, parse_server

CHECKED_IN = Path(__file__).parents[2] / "docs" / "asyncapi.json"
DOCUMENT = document()
CLIENT = [message_type(kind) for kind in get_args(ClientMessage)]
SERVER = [message_type(kind) for kind in get_args(ServerMessage)]
EXAMPLES = [
    pytest.param(name, example["payload"], id=f"{name}-{number}")
    for name in (*CLIENT, *SERVER)
    for number, example in enumerate(DOCUMENT["components"]["messages"][name]["examples"])
]

ODD: list[Any] = [None, True, -1, 0, 1, 20, 8000, 44100, 2**32, 2**63, 0.5, 11.5, "", "S2", "S6", "x\n", "opus", [], {}]


def resolve(reference: str) -> Any:
    assert reference.startswith("#/"), reference
    found = DOCUMENT
    for part in reference[2:].split("/"):
        found = found[part]
    return found


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            assert list(value) == ["$ref"], f"something stands beside {value['$ref']}"
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


@cache
def validator(name: str) -> Draft7Validator:
    """Of a message's payload, with the document's schemas to refer to."""
    schema = DOCUMENT["components"]["messages"][name]["payload"]
    return Draft7Validator({"allOf": [schema], "components": DOCUMENT["components"]})


def test_the_document_that_is_checked_in_is_current(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "streamer_protocol.asyncapi")
    runpy.run_module("streamer_protocol.asyncapi", run_name="__main__")
    assert capsys.readouterr().out == CHECKED_IN.read_text(encoding="utf-8"), (
        "run python -m streamer_protocol.asyncapi > docs/asyncapi.json"
    )


def test_it_has_what_asyncapi_3_asks_for() -> None:
    fields = {"asyncapi", "info", "defaultContentType", "servers", "channels", "operations", "components"}
    assert set(DOCUMENT) == fields
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(DOCUMENT["info"])
    for server in DOCUMENT["servers"].values():
        assert server["protocol"] in ("ws", "wss")
        assert re.fullmatch(r"[a-z0-9.]+(:\d+)?", server["host"])
        assert all(entry["$ref"].startswith("#/components/securitySchemes/") for entry in server["security"])
    for holder in (DOCUMENT["servers"], DOCUMENT["channels"], DOCUMENT["operations"], *DOCUMENT["components"].values()):
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in holder)
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert (schemes["bearer"]["type"], schemes["bearer"]["scheme"]) == ("http", "bearer")
    assert (schemes["token"]["type"], schemes["token"]["in"], schemes["token"]["name"]) == (
        "httpApiKey",
        "query",
        "token",
    )


def test_every_reference_leads_somewhere_of_the_right_kind() -> None:
    kinds = {
        "#/components/schemas/": {"type", "properties"},
        "#/components/messages/": {"name", "payload", "contentType"},
        "#/components/securitySchemes/": {"type"},
        "#/channels/dialogue/messages/": {"$ref"},
    }
    for reference in references(DOCUMENT):
        target = resolve(reference)
        wanted = next((fields for start, fields in kinds.items() if reference.startswith(start)), {"address"})
        assert wanted <= set(target), reference
        assert wanted != {"address"} or reference == "#/channels/dialogue"


def test_operations_take_the_channels_messages_each_way() -> None:
    channel = DOCUMENT["channels"]["dialogue"]
    assert channel["address"] == "/v1/dialogue"
    assert set(channel["bindings"]) == {"ws"}
    ways = {operation["action"]: operation for operation in DOCUMENT["operations"].values()}
    assert set(ways) == {"receive", "send"}
    for action, names in (("receive", CLIENT), ("send", [*SERVER, "audio"])):
        told = [entry["$ref"].removeprefix("#/channels/dialogue/messages/") for entry in ways[action]["messages"]]
        assert told == names
        assert ways[action]["channel"] == {"$ref": "#/channels/dialogue"}
        assert [resolve(channel["messages"][name]["$ref"])["name"] for name in told] == names
    assert set(channel["messages"]) == {*CLIENT, *SERVER, "audio"}


def test_schemas_are_draft_07_and_closed() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        Draft7Validator.check_schema(schema)
        assert schema["additionalProperties"] is False, name
        assert schema["description"], name
        assert "prefixItems" not in json.dumps(schema)


def test_every_message_has_an_example() -> None:
    assert {param.values[0] for param in EXAMPLES} == {*CLIENT, *SERVER}


@pytest.mark.parametrize(("name", "payload"), EXAMPLES)
def test_an_example_fits_its_schema_and_parses(name: str, payload: dict[str, Any]) -> None:
    validator(name).validate(payload)
    text = json.dumps(payload)
    parsed = parse_client(text, 10_000) if name in CLIENT else parse_server(text)
    assert not isinstance(parsed, RemoteProtocolError)
    assert message_type(parsed) == name


def test_the_audio_frame_is_described_byte_for_byte() -> None:
    told = DOCUMENT["components"]["messages"]["audio"]
    data = bytes.fromhex(told["x-example-hex"])
    assert AudioFrame.unpack(data) == AUDIO_EXAMPLE
    sizes = {"u8": 1, "u32": 4}
    fields = told["x-header"]
    ends = [field["offset"] + sizes[field["type"]] for field in fields]
    assert [0, *ends] == [*(field["offset"] for field in fields), 16]
    values = [int.from_bytes(data[field["offset"] : end], "little") for field, end in zip(fields, ends, strict=True)]
    assert values == [1, 1, 1, 0, 1, 2, 300]
    assert told["payload"]["minLength"] == 17


def test_every_error_code_is_listed() -> None:
    code = DOCUMENT["components"]["schemas"]["Error"]["properties"]["code"]
    assert code["examples"] == [entry["code"] for entry in code["x-codes"]] == [code.value for code in ErrorCode]
    assert {entry["code"]: entry["closeCode"] for entry in code["x-codes"] if entry["fatal"]} == {
        code.value: code.close_code for code in ErrorCode if code.fatal
    }


def payloads(names: list[str]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    """An example with one of its values, of the message itself or of an object in it, replaced, added or left out."""
    fields = {
        name: sorted(resolve(DOCUMENT["components"]["messages"][name]["payload"]["$ref"])["properties"])
        for name in names
    }

    @st.composite
    def changed(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
        name, payload = draw(st.sampled_from([p.values for p in EXAMPLES if p.values[0] in names]))
        payload = json.loads(json.dumps(payload))
        assert isinstance(payload, dict)
        inner = [payload, *(value for value in payload.values() if isinstance(value, dict))]
        target = draw(st.sampled_from(inner))
        known = sorted(target) if target is not payload else fields[str(name)]
        key = draw(st.sampled_from([*(known or ["S1"]), "format", "sample_rate", "zz"]))
        if draw(st.booleans()):
            target[key] = draw(st.sampled_from(ODD))
        else:
            target.pop(key, None)
        return str(name), payload

    return changed()


@given(payloads(CLIENT))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_schema_and_parser_take_the_same_client_messages(case: tuple[str, dict[str, Any]]) -> None:
    name, payload = case
    if payload.get("type") != name:
        return
    parsed = parse_client(json.dumps(payload), 10_000)
    assert validator(name).is_valid(payload) == (not isinstance(parsed, Error)), parsed


@given(payloads(SERVER))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_what_fits_the_schema_is_a_server_message(case: tuple[str, dict[str, Any]]) -> None:
    name, payload = case
    if validator(name).is_valid(payload):
        parsed = parse_server(json.dumps(payload))
        assert not isinstance(parsed, RemoteProtocolError), parsed
