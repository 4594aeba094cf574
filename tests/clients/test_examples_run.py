"""The examples as a user runs them: programs of their own, against a server with the embedded model."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import websockets
from clients.fake_phone import Phone
from serving import running
from support import decode_with_ffmpeg

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "clients" / "examples"
PAGE = ROOT / "docs" / "examples.md"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
DOCUMENT = """# The [tea](http://example.com) shop

It is *open* [S2].

## Where is it?

- By the river.

```
code is not read
```

## Prices
"""
TIMING = re.compile(r"(\d\d):([0-5]\d):([0-5]\d)\.(\d{3}) --> (\d\d):([0-5]\d):([0-5]\d)\.(\d{3})")
INTERRUPTED = " -- (interrupted)"
Cue = tuple[int, int, str]


@contextmanager
def process(*command: str, **environment: str) -> Iterator[str]:
    """A program that serves until the end of the block; gives the first line it prints."""
    variables = {**ENVIRONMENT, **environment}
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True, env=variables) as program:
        assert program.stdout is not None
        try:
            yield program.stdout.readline()
        finally:
            program.terminate()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with process("-m", "streamer.cli", "serve", "--port", "0", "--log-level", "warning") as line:
        assert line.startswith("listening on ")
        yield line.split()[-1]


def documented(example: str) -> list[list[str]]:
    """The arguments that docs/examples.md gives an example."""
    page = PAGE.read_text(encoding="utf-8")
    commands = re.findall(rf"^python clients/examples/{example}.py (.*)$", page, re.MULTILINE)
    return [shlex.split(command) for command in commands]


def run(example: str, *arguments: str, folder: Path | None = None) -> str:
    command = [sys.executable, str(EXAMPLES / f"{example}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=folder, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_is_short(example: str) -> None:
    assert len((EXAMPLES / example).read_text().splitlines()) < 100


def test_a_podcast_by_rules(url: str, tmp_path: Path) -> None:
    (tmp_path / "tea.md").write_text(DOCUMENT, encoding="utf-8")
    by_rules, _ = documented("podcast")
    printed = run("podcast", *by_rules, "--url", url, "--seed", "2", folder=tmp_path)
    *turns, wrote = printed.splitlines()
    assert turns == [
        "S1: Welcome! Today we talk about The tea shop.",
        "S2: I am curious. Please begin.",
        "S1: It is open S2.",
        "S2: Where is it?",
        "S1: By the river.",
        "S2: And what about Prices?",
    ]
    seconds = float(wrote.split()[-2])
    samples = decode_with_ffmpeg((tmp_path / "tea.opus").read_bytes(), 24_000)
    assert abs(len(samples) / 24_000 - seconds) < 0.1
    assert seconds > 4
    assert np.sqrt(np.mean(samples**2)) > 0.005


class Llm(BaseHTTPRequestHandler):
    """An endpoint that speaks chat completions, with one answer to everything."""

    asked: dict[str, Any]

    def do_POST(self) -> None:
        size_bytes = int(self.headers["Content-Length"])
        Llm.asked = {"path": self.path, "key": self.headers["Authorization"], **json.loads(self.rfile.read(size_bytes))}
        said = "Sure!\n[S2] **What** is it?\n[S1] A tea shop. [S2]\n[S2] Good."
        answer = json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


def test_a_podcast_by_an_llm(url: str, tmp_path: Path) -> None:
    (tmp_path / "tea.md").write_text(DOCUMENT, encoding="utf-8")
    with HTTPServer(("127.0.0.1", 0), Llm) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            _, by_llm = documented("podcast")
            by_llm = [word.replace(":11434/", f":{server.server_port}/") for word in by_llm]
            printed = run("podcast", *by_llm, "--url", url, folder=tmp_path)
        finally:
            server.shutdown()
            thread.join()
    assert printed.splitlines()[:-1] == ["S2: What is it?", "S1: A tea shop.", "S2: Good."]
    assert (Llm.asked["path"], Llm.asked["key"]) == ("/v1/chat/completions", "Bearer secret")
    assert Llm.asked["model"] == "small"
    assert DOCUMENT in Llm.asked["messages"][0]["content"]
    assert len(decode_with_ffmpeg((tmp_path / "tea.wav").read_bytes(), 24_000)) > 24_000


def test_two_agents_remember_what_was_heard(url: str) -> None:
    (arguments,) = documented("two_agents")
    printed = run("two_agents", *arguments, "--url", url, "--seed", "2").splitlines()
    said, remembered = printed[:6], printed[6:]
    assert [line[:4] for line in said] == ["S1: ", "S2: "] * 3
    assert all(line.endswith(INTERRUPTED) for line in said[:4])
    kept = [line[4:].removesuffix(INTERRUPTED) for line in said]
    assert all(2 < len(text) < 60 for text in kept[:4]), kept
    assert said[-1] == "S2: No.", "whoever is brief is not interrupted"
    assert remembered == [
        f"S1 remembers saying: {' / '.join(kept[0::2])}",
        f"S2 remembers saying: {' / '.join(kept[1::2])}",
    ]


def test_an_answer_while_it_is_written(url: str) -> None:
    (arguments,) = documented("live_llm")
    printed = run("live_llm", *arguments, "--url", url)
    assert "is kept as far as it was heard, " in printed


def parse_webvtt(text: str) -> list[Cue]:
    """The cues as (start, end, text), times in ms, of a file that keeps to the W3C's syntax."""
    header, *blocks = text.rstrip("\n").split("\n\n")
    assert header == "WEBVTT"
    cues: list[Cue] = []
    for block in blocks:
        timing, *lines = block.split("\n")
        found = TIMING.fullmatch(timing)
        assert found, timing
        numbers = [int(group) for group in found.groups()]
        start, end = (((h * 60 + m) * 60 + s) * 1000 + ms for h, m, s, ms in (numbers[:4], numbers[4:]))
        assert lines
        assert all(line and "-->" not in line for line in lines)
        payload = "\n".join(lines)
        assert "<" not in re.sub(r"^<v [^>&]+>", "", payload)
        assert not re.search(r"&(?!amp;|lt;|gt;)", payload)
        cues.append((start, end, payload))
    for (_, end, _), (start, _, _) in pairwise(cues):
        assert end <= start, "cues do not overlap"
    assert all(start < end for start, end, _ in cues)
    return cues


def test_subtitles_by_words(url: str, tmp_path: Path) -> None:
    (arguments,) = documented("subtitles")
    run("subtitles", *arguments, "--url", url, folder=tmp_path)
    cues = parse_webvtt((tmp_path / "hello.vtt").read_text(encoding="utf-8"))
    words = " ".join(re.sub("<v S[12]>", "", text) for _, _, text in cues)
    assert len(cues) >= 3, "a cue for each sentence"
    assert [text[:6] for _, _, text in cues] == ["<v S1>"] * (len(cues) - 1) + ["<v S2>"]
    assert "Good morning" in words
    assert "happy" in words
    sound_ms = len(decode_with_ffmpeg((tmp_path / "hello.wav").read_bytes(), 24_000)) / 24
    assert sound_ms / 2 < cues[-1][1] <= sound_ms + 1


async def test_subtitles_by_turns_where_no_word_times_are_known(tmp_path: Path) -> None:
    script = "[S1] Is 1 < 2 & 3 > 2? [S2] Yes. [S1] Good."
    async with running() as server:
        arguments = (script, "--out", "a.vtt", "--audio", "a.opus", "--url", server.url)
        await asyncio.to_thread(run, "subtitles", *arguments, folder=tmp_path)
    cues = parse_webvtt((tmp_path / "a.vtt").read_text(encoding="utf-8"))
    assert [text for _, _, text in cues] == ["<v S1>Is 1 &lt; 2 &amp; 3 &gt; 2?", "<v S2>Yes.", "<v S1>Good."]
    sound_ms = len(decode_with_ffmpeg((tmp_path / "a.opus").read_bytes(), 24_000)) / 24
    assert cues[0][0] == 0
    assert [start for start, _, _ in cues[1:]] == [end for _, end, _ in cues[:-1]]
    assert abs(cues[-1][1] - sound_ms) < 30


async def test_a_phone_line(url: str) -> None:
    token = {"TWILIO_AUTH_TOKEN": "12345"}
    command = (str(EXAMPLES / "phone_line.py"), "--public-host", "phone.example", "--port", "0", "--url", url)
    with process(*command, **token) as line:
        here = f"127.0.0.1:{line.split()[-1]}"
        webhook = f"http://{here}/?CallSid=CA1"
        status, _, refusal = await asyncio.to_thread(fetch, webhook, signed("https://phone.example/?CallSid=CA2"))
        assert (status, refusal) == (403, "this is not signed by Twilio\n")
        status, kind, twiml = await asyncio.to_thread(fetch, webhook, signed("https://phone.example/?CallSid=CA1"))
        assert (status, kind) == (200, "text/xml")
        stream = ElementTree.fromstring(twiml).find("./Connect/Stream")
        assert stream is not None
        assert stream.attrib == {"url": "wss://phone.example/stream"}
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(f"ws://{here}/stream")
        headers = {"X-Twilio-Signature": signed(stream.attrib["url"])}
        async with websockets.connect(f"ws://{here}/stream", additional_headers=headers) as socket:
            phone = Phone(socket)
            await phone.begin()
            await phone.until("media")
            loud = b"\x80\x00" * 80
            await phone.send("media", media={"payload": base64.b64encode(loud).decode()})
            await phone.until("clear")
            await phone.press("5")
            await phone.until("media")
            await phone.press("#")
            await phone.play()
            assert (socket.close_code, socket.close_reason) == (1000, "the caller is done")
    assert sum(message["event"] == "clear" for message in phone.log) == 2, "by voice, and by the second key"


def signed(url: str) -> str:
    return base64.b64encode(hmac.new(b"12345", url.encode(), hashlib.sha1).digest()).decode()


def fetch(url: str, signature: str) -> tuple[int, str | None, str]:
    """Status, type and body."""
    request = urllib.request.Request(url, headers={"X-Twilio-Signature": signature})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()
