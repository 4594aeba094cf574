"""The browser's client and player without a browser: their own tests, in Node, against real servers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import struct
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from clients.broken_wires import told_by_the_server
from cutting_proxy import CuttingProxy
from msgspec.structs import replace
from opuslib_next import APPLICATION_AUDIO, Encoder
from serving import BRIEF_PAUSE, LIMITS, running
from support import decode_with_ffmpeg

from streamer.server.keys import add_key
from streamer_protocol import AudioFrame

WEB = Path(__file__).parents[2] / "clients" / "web"
RATE_HZ = 24_000
FRAME_SAMPLES = 1920
_NO_PACING_S = 1_000


def node_version() -> int:
    """Node's major version; 0 without one."""
    node = shutil.which("node")
    if node is None:
        return 0
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"v(\d+)", said)
    return 0 if found is None else int(found[1])


NODE = node_version()
pytestmark = pytest.mark.skipif(NODE < 20, reason="needs Node 20 or later")


def run_node(*arguments: str, folder: Path = WEB, environment: Mapping[str, str] | None = None) -> str:
    """Run Node with a WebSocket of its own, which version 20 hides behind a flag; its output."""
    flags = "--experimental-websocket --no-warnings" if NODE < 22 else "--no-warnings"
    done = subprocess.run(
        ["node", *arguments],
        cwd=folder,
        env={**os.environ, "NODE_OPTIONS": flags, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def passed(output: str) -> int:
    """How many tests of ``node --test`` passed; none failed."""
    figures = dict(re.findall(r"^(?:#|ℹ) (pass|fail) (\d+)$", output, re.MULTILINE))
    assert figures["fail"] == "0", output
    return int(figures["pass"])


def as_heard(data: str | bytes) -> dict[str, Any]:
    """What a server sent, as the tests in Node write down what they hear."""
    if isinstance(data, str):
        message: dict[str, Any] = json.loads(data)
        return message
    frame = AudioFrame.unpack(data)
    payload = base64.b64encode(frame.payload).decode()
    return {"turnIndex": frame.turn_index, "frame": frame.frame, "last": frame.last, "payload": payload}


@contextlib.asynccontextmanager
async def controlled(proxy: CuttingProxy, other: CuttingProxy, told: list[str | bytes]) -> AsyncIterator[str]:
    """The address at which the tests in Node ask for a wire to be broken, and for what the servers have said."""

    async def obey(request: web.Request) -> web.Response:
        numbers = {name: int(value) for name, value in request.query.items()}
        for wire in (proxy, other):
            if request.match_info["what"] == "mend":
                wire.cut_after()
                wire.refuse(0)
                wire.resume()
                wire.cut()
            else:
                getattr(wire, request.match_info["what"])(**numbers)
        return web.Response()

    async def said(_: web.Request) -> web.Response:
        answer = web.json_response([as_heard(data) for data in told])
        told.clear()
        return answer

    app = web.Application()
    app.add_routes([web.post("/{what}", obey), web.get("/said", said)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert runner.addresses
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def servers(tmp_path: Path, told: list[str | bytes]) -> AsyncIterator[dict[str, str]]:
    """What the tests in Node find in their environment."""
    keys = tmp_path / "keys.jsonl"
    key, _ = add_key(keys, "web", ["dialogue", "tokens"])
    hasty = replace(LIMITS, resume_grace_ms=300)
    async with contextlib.AsyncExitStack() as stack:
        plain = await stack.enter_async_context(running(settings=BRIEF_PAUSE, max_lead_s=_NO_PACING_S))
        locked = await stack.enter_async_context(running(settings={"keys_file": keys}))
        impatient = await stack.enter_async_context(running(hasty))
        proxy = await stack.enter_async_context(CuttingProxy(plain.port))
        other = await stack.enter_async_context(CuttingProxy(impatient.port))
        control = await stack.enter_async_context(controlled(proxy, other, told))
        yield {
            "SERVER": plain.url,
            "PROXY": proxy.url,
            "LOCKED": locked.url,
            "IMPATIENT": other.url,
            "CONTROL": control,
            "TOKEN": await client_token(locked.port, key),
        }


async def client_token(port: int, key: str) -> str:
    """A token for the dialogue socket, as a backend asks for one."""
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"http://127.0.0.1:{port}/v1/tokens", json={"scopes": ["dialogue"], "ttl_s": 300}) as answer,
    ):
        token = (await answer.json())["token"]
        assert isinstance(token, str)
        return token


async def test_sessions_speak_stop_and_outlive_their_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with servers(tmp_path, told_by_the_server(monkeypatch)) as environment:
        # One after the other: there is one wire to break.
        options = ("--test", "--test-concurrency=1", "--test-timeout=20000")
        tests = ("test/session.test.js", "test/resume.test.js")
        output = await asyncio.to_thread(run_node, *options, *tests, environment=environment)
    assert passed(output) >= 15


def test_clock_ring_buffer_and_turns_count_right() -> None:
    assert passed(run_node("--test", "test/clock.test.js", "test/playout.test.js", "test/turns.test.js")) == 24


def test_downloads_are_files_that_others_can_play(tmp_path: Path) -> None:
    tone = np.sin(np.arange(40 * FRAME_SAMPLES) * 0.06) * np.linspace(0.1, 0.9, 40 * FRAME_SAMPLES)
    samples = (tone * 32767).astype("<i2")
    encoder = Encoder(RATE_HZ, 1, APPLICATION_AUDIO)
    frames = [samples[at : at + FRAME_SAMPLES].tobytes() for at in range(0, len(samples), FRAME_SAMPLES)]
    packets = [encoder.encode(frame, FRAME_SAMPLES) for frame in frames]
    path = tmp_path / "packets"
    path.write_bytes(b"".join(struct.pack("<H", len(packet)) + packet for packet in packets))
    passed(run_node("--test", "test/files.test.js", environment={"PACKETS": str(path), "FOLDER": str(tmp_path)}))
    heard = decode_with_ffmpeg((tmp_path / "out.opus").read_bytes(), RATE_HZ)
    assert np.abs(heard - tone[: len(heard)])[960:].max() < 0.05
    assert len(tone) - len(heard) in range(FRAME_SAMPLES)
    if (WEB / "node_modules" / "opus-decoder").exists():
        wav = decode_with_ffmpeg((tmp_path / "out.wav").read_bytes(), RATE_HZ)
        assert len(wav) == len(heard)
        assert np.abs(wav - tone[: len(wav)])[960:].max() < 0.05
        # The second turn begins where the first 16 frames end, later by the encoder's look-ahead.
        turn = np.frombuffer((tmp_path / "turn.f32").read_bytes(), "<f4")
        begin = 16 * FRAME_SAMPLES - 156
        assert np.abs(turn - tone[begin : begin + len(turn)]).max() < 0.05


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder in which the client is installed."""
    (tmp_path / "node_modules" / "@dialogue-streamer").mkdir(parents=True)
    (tmp_path / "node_modules" / "@dialogue-streamer" / "client").symlink_to(WEB)
    return tmp_path


async def test_the_documents_snippets_run(package: Path) -> None:
    document = WEB.parents[1] / "docs" / "web-client.md"
    snippets = re.findall(r"```js\n(.*?)```", document.read_text(), re.DOTALL)
    said = []
    async with running() as server:
        for snippet in snippets:
            # The test's server has a free port and voices of its own; all else is word for word.
            code = snippet.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
            (package / "hello.mjs").write_text(code.replace("'heart'", "'one'").replace("'joe'", "'two'"))
            said.append(await asyncio.to_thread(run_node, "hello.mjs", folder=package))
    assert said[0].split("\n") == ["S1 speaks", "S2 speaks", "S1 speaks", ""]
    assert (package / "hello.pcm").stat().st_size > 3 * 2 * FRAME_SAMPLES
    assert re.fullmatch(r"\d+ frames, (end|max_length)\n", said[1])
    assert said[2:] == ["turn 0\nheard 100 ms\n"]
