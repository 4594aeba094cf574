"""docs/protocol.md tells what the package does: its tables are the structs, its examples parse."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from msgspec import NODEFAULT
from msgspec.structs import fields

from streamer_protocol import (
    AudioFormat,
    AudioFrame,
    ClientMessage,
    ErrorCode,
    Limits,
    Message,
    RemoteProtocolError,
    Sampling,
    ServerMessage,
    SessionStart,
    message_type,
)
from streamer_protocol.asyncapi import document
from streamer_protocol.messages import SAMPLE_RATES_HZ
from streamer_protocol.parsing import parse_client, parse_server

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
# A message goes on in the lines that begin with spaces.
SENT = [
    re.sub(r"\n +", "", found) for block in BLOCKS for found in re.findall(r"^[<>] .+(?:\n +.+)*", block, re.MULTILINE)
]


def table(after: str) -> list[list[str]]:
    """The cells of the first table behind a piece of text."""
    rows: list[list[str]] = []
    for line in DOCUMENT[DOCUMENT.index(after) :].splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
        elif rows:
            break
    return rows[2:]


def ticked(cell: str) -> list[str]:
    """What stands in backticks, but not within brackets or braces, which tell what a field holds."""
    return re.findall(r"`([^`]+)`", re.sub(r"\{.*?\}|\[.*?\]|\(.*?\)", "", cell))


def names_of(kind: type[Message]) -> list[str]:
    return [field.name for field in fields(kind) if field.name != "context"]


def test_the_fields_of_session_start() -> None:
    rows = table("### `session.start`")
    assert sorted(ticked(row[0])[0] for row in rows) == sorted(names_of(SessionStart))
    plain = {"null": None, "false": False, "0": 0, "`turns`": "turns"}
    defaults = {field.name: field.default for field in fields(SessionStart)}
    told = {ticked(row[0])[0]: plain[row[2]] for row in rows if row[2] in plain}
    assert len(told) >= 7
    assert told == {name: defaults[name] for name in told}


def test_the_parts_of_session_start() -> None:
    assert [ticked(row[0])[0] for row in table("\n`audio`:")] == [field.name for field in fields(AudioFormat)]
    named = [name for row in table("\n`sampling` (null") for name in ticked(row[0])]
    assert sorted(named) == sorted(field.name for field in fields(Sampling))
    rates = next(row[1] for row in table("\n`audio`:") if "sample_rate" in row[0])
    told = {name: tuple(map(int, numbers.split())) for name, numbers in re.findall(r"(\w+): ([\d ]+)", rates)}
    assert told == SAMPLE_RATES_HZ


@pytest.mark.parametrize(
    ("heading", "union"), [("### The others", ClientMessage), ("## Server to client", ServerMessage)]
)
def test_the_fields_of_the_messages(heading: str, union: object) -> None:
    told = {ticked(row[0])[0]: ticked(row[1]) for row in table(heading)}
    kinds = {message_type(kind): kind for kind in get_args(union) if kind is not SessionStart}
    assert set(told) == set(kinds)
    for name, kind in kinds.items():
        assert sorted(told[name]) == sorted(names_of(kind)), name


@pytest.mark.parametrize("kind", [kind for kind in get_args(ClientMessage) if kind is not SessionStart])
def test_what_may_be_left_out_says_so(kind: type[Message]) -> None:
    cell = next(row[1] for row in table("### The others") if ticked(row[0]) == [message_type(kind)])
    optional = {name for part in cell.split(", ") if "or null (null" in part for name in ticked(part)[:1]}
    assert optional == {
        field.name for field in fields(kind) if field.name != "context" and field.default is not NODEFAULT
    }


def test_the_limits_and_their_defaults() -> None:
    told = {ticked(row[0])[0]: int(row[1]) for row in table("`limits` of `session.ready`")}
    assert told == {name: getattr(Limits(), name) for name in Limits.__struct_fields__}


def test_the_codes_and_what_they_close_with() -> None:
    told = {ticked(row[0])[0]: row[2] for row in table("| code | meaning | fatal")}
    assert set(told) == {code.value for code in ErrorCode}
    for code in ErrorCode:
        assert told[code.value][:4] == ("" if code.close_code is None else str(code.close_code)), code


def test_the_refusals_before_the_handshake_have_known_codes() -> None:
    rows = table("| status | code | why |")
    assert {ticked(row[1])[0] for row in rows} <= {code.value for code in ErrorCode}


def test_the_header_of_audio_frames() -> None:
    told = [(int(row[0]), row[1]) for row in table("| offset | type | |")]
    header = document()["components"]["messages"]["audio"]["x-header"]
    assert told == [(field["offset"], field["type"]) for field in header]


def test_the_examples_are_found() -> None:
    assert len(SENT) >= 14
    assert sum(sent.startswith("< 01") for sent in SENT) >= 3
    assert sum('"resume"' in sent for sent in SENT) == 1


@pytest.mark.parametrize("sent", SENT)
def test_an_example_parses(sent: str) -> None:
    way, data = sent[0], sent[2:]
    if data.startswith("01"):
        frame = AudioFrame.unpack(bytes.fromhex(data.partition("<")[0]) + b"\x08")
        assert frame.handle == 1
        return
    parsed = parse_client(data, 10_000) if way == ">" else parse_server(data)
    assert not isinstance(parsed, RemoteProtocolError), parsed
    assert f'"type":"{message_type(parsed)}"' in data


def test_the_header_example_is_the_frame_that_it_says() -> None:
    told = re.search(r"handle (\d+), turn index (\d+), frame (\d+), last of its turn, Opus: `([0-9a-f ]+)`", DOCUMENT)
    assert told is not None
    frame = AudioFrame.unpack(bytes.fromhex(told[4]) + b"\x08")
    assert (frame.handle, frame.turn_index, frame.frame, frame.last, frame.kind.name) == (
        *map(int, told.groups()[:3]),
        True,
        "OPUS",
    )


def test_nothing_is_left_for_later() -> None:
    assert "not yet" not in DOCUMENT.lower()
