"""Logs: one line an event, nothing private, nothing that a peer can forge, and nobody waits for who reads them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from streamer.performance import TurnReport
from streamer.server.logs import LogFormat, LogLevel, SessionLog, configure_logging, dropped_records, get_logger

REPORT = TurnReport("t1", 4, 14, 1120, 70.6789, 0.20001, "end")
KEY = "ds_" + "k3Y" * 14 + "x"


def logged(write: Callable[[], None], level: LogLevel = "info", format: LogFormat = "json") -> list[str]:
    """The lines that are written while ``write`` runs."""
    reading, writing = os.pipe()
    chunks: list[bytes] = []

    def read() -> None:
        while chunk := os.read(reading, 65536):
            chunks.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with configure_logging(level, format, writing):
            write()
    finally:
        os.close(writing)
        reader.join()
        os.close(reading)
    return b"".join(chunks).decode().splitlines()


def parsed(write: Callable[[], None], level: LogLevel = "info") -> list[dict[str, Any]]:
    return [json.loads(line) for line in logged(write, level)]


def test_a_completed_turn_is_one_line_with_all_that_is_known_of_it() -> None:
    def speak() -> None:
        log = SessionLog("s-1", "main", "alice", text=False)
        log.opened(voices={"S1": "heart"})
        log.turn_completed(REPORT, 2, "what nobody is to know")
        log.refused("text_too_long", "`text` is what nobody is to know", turn="t2")
        log.closed("closed by the client")

    opened, turn, refused, closed = parsed(speak, "debug")
    for line in (opened, turn, refused, closed):
        assert (line.pop("session"), line.pop("context"), line.pop("key")) == ("s-1", "main", "alice")
        assert (line.pop("level"), line.pop("logger")) == ("info", "streamer")
        assert line.pop("timestamp").endswith("Z")
    assert opened == {"event": "session opened", "voices": {"S1": "heart"}}
    assert turn == {
        "event": "turn completed",
        "turn": "t1",
        "index": 4,
        "speaker": "S2",
        "frames": 14,
        "audio_ms": 1120,
        "ttfa_ms": 70.7,
        "rtf": 0.2,
        "reason": "end",
    }
    assert refused == {"event": "refused", "code": "text_too_long", "turn": "t2"}
    assert closed == {"event": "session closed", "reason": "closed by the client"}


def test_texts_are_logged_where_that_was_asked_for() -> None:
    def speak() -> None:
        log = SessionLog("s-1", "main", None, text=True)
        log.turn_completed(REPORT, 1, "good morning")
        log.refused("text_too_long", "x" * 5000)

    turn, refused = parsed(speak)
    assert turn["text"] == "good morning"
    assert refused["message"] == "x" * 500


def test_libraries_write_through_the_same_formatter() -> None:
    def write() -> None:
        log = logging.getLogger("some.library")
        log.info("%s of %d", "part", 3)
        log.debug("too much")
        try:
            raise ValueError("broken")
        except ValueError:
            log.exception("failed")
            get_logger().exception("failed too", value=object)

    info, failed, own = parsed(write)
    assert (info["event"], info["level"], info["logger"]) == ("part of 3", "info", "some.library")
    for line in (failed, own):
        assert line["level"] == "error"
        assert line["exception"].endswith("ValueError: broken")
    assert own["value"] == "<class 'object'>"


@pytest.mark.parametrize("format", ["json", "console"])
def test_no_secret_and_no_line_of_a_peers_making_gets_out(format: LogFormat) -> None:
    def write() -> None:
        log = logging.getLogger("aiohttp.server")
        log.error("Authorization: Bearer %s\n%s", KEY, '{"event": "forged"}')
        get_logger().info("asked", url=f"/v1/dialogue?token={KEY}", nested={"header": [f"Bearer {KEY}"]})
        get_logger().info("escaped", turn="\x1b[31mred", text="a\r\nb\u2028c\x85d")
        try:
            raise ValueError(f"key {KEY} \x1b[2J")
        except ValueError:
            log.exception("failed")

    lines = logged(write, format=format)
    whole = "\n".join(lines)
    assert KEY not in whole
    assert "\x1b" not in whole
    assert len([line for line in lines if not line.startswith((" ", "Traceback", "ValueError"))]) == 4


def test_a_reader_that_has_stopped_holds_up_nothing_and_what_it_misses_is_counted() -> None:
    script = (
        "import logging\n"
        "from streamer.server.logs import configure_logging, dropped_records, get_logger\n"
        "with configure_logging('info', 'json'):\n"
        "    for n in range(12_000):\n"
        "        logging.getLogger('x').info('%s', 'y' * 200)\n"
        "    print(dropped_records(), flush=True)\n"
    )
    reading, writing = os.pipe()
    try:
        done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=writing, timeout=60)
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == 0
    assert 0 < int(done.stdout) < 12_000


def test_lines_that_can_not_be_written_are_counted() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    before = dropped_records()
    with configure_logging("info", "json", writing):
        get_logger().info("into the void")
    os.close(writing)
    assert dropped_records() == before + 1


def test_what_was_configured_before_is_back_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    assert logged(lambda: get_logger().info("x"))
    assert (root.handlers, root.level) == before
    get_logger().info("nobody configured anything")
    assert capfd.readouterr() == ("", "")
