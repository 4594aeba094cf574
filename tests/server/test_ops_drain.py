"""A server process that is told to stop while it speaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets
from serving import RawClient
from websockets.exceptions import ConnectionClosed, InvalidStatus

WAIT_S = 60.0
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}


class Served:
    """A ``streamer serve`` process, where it listens, and, when it has ended, what it logged."""

    def __init__(self, process: Process, url: str) -> None:
        self.process = process
        self.url = url

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def ended(self) -> list[dict[str, Any]]:
        """Wait for the end; the lines of the log."""
        _, log = await asyncio.wait_for(self.process.communicate(), WAIT_S)
        return [json.loads(line) for line in log.splitlines()]

    @contextlib.asynccontextmanager
    async def client(self, **start: Any) -> AsyncIterator[RawClient]:
        async with websockets.connect(self.url, subprotocols=[websockets.Subprotocol("dialogue.v1")]) as socket:
            client = RawClient(socket)
            await client.send("session.start", audio={"format": "pcm_s16le"}, seed=1, **start)
            await client.until("session.ready")
            yield client


@contextlib.asynccontextmanager
async def serving(*arguments: str) -> AsyncIterator[Served]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "streamer.cli", "serve", "--port", "0", *arguments),
        stdout=PIPE,
        stderr=PIPE,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), WAIT_S)).decode()
        assert line.startswith("listening on ws://127.0.0.1:")
        yield Served(process, line.split()[-1])
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def refused(client: RawClient) -> dict[str, Any]:
    """Ask for new sessions until the server, which was told to stop, refuses one."""
    n = 0
    while True:
        n += 1
        await client.send("session.start", context=f"more-{n}")
        while True:
            message = await client.receive()
            if isinstance(message, dict) and message.get("context") == f"more-{n}":
                break
        if message["type"] == "error":
            return message
        await client.send("session.close", context=f"more-{n}")
        await client.until("session.closed", context=f"more-{n}")


async def test_at_sigterm_running_turns_finish_new_sessions_are_refused_and_the_exit_code_is_0() -> None:
    async with serving("--drain", "60") as served:
        async with served.client() as client:
            await client.send("script.append", text="[S1] Good morning, how are you today? [S2] I am well.", script="s")
            await client.until("turn.started", turn="s.1")
            served.terminate()
            error = await refused(client)
            assert (error["code"], error["fatal"]) == ("shutting_down", False)
            assert error["retry_after_ms"] > 0
            with pytest.raises(InvalidStatus) as newcomer:
                async with served.client():
                    pass
            assert newcomer.value.response.status_code == 503
            assert int(newcomer.value.response.headers["Retry-After"]) > 0
            reports = [await client.until("turn.completed", turn=f"s.{n}") for n in (1, 2)]
            await client.until("session.closed", context="main")
            with pytest.raises(ConnectionClosed):
                await client.receive()
        log = await served.ended()
    assert served.process.returncode == 0
    assert [report["reason"] for report in reports] == ["end", "end"]
    assert len(client.frames) == sum(report["frames"] for report in reports)
    events = [line["event"] for line in log]
    assert events[0] == "server started"
    assert events[-1] == "server stopped"
    turns = [line for line in log if line["event"] == "turn completed"]
    assert [line["turn"] for line in turns] == ["s.1", "s.2"]
    assert "morning" not in json.dumps(log)


async def test_a_second_sigterm_stops_at_once() -> None:
    async with serving("--drain", "600", "--null-model") as served:
        async with served.client() as client:
            # The null model takes as long as it lasts, minutes.
            await client.send("turn.create", turn="t", speaker="S1", text="And so on. " * 500)
            await client.until("turn.started", turn="t")
            served.terminate()
            await refused(client)
            served.terminate()
            await served.ended()
    assert served.process.returncode is not None
