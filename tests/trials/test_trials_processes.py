"""Processes that are killed without a word: a client in the middle of a turn, and the server itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace
from serving import LIMITS, running
from trials.company import SIZES, assert_all_gone, becomes, neighbours, open_files

from streamer_client import Audio, ConnectionLost, connect

WAIT_S = 60.0
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
# Takes a few frames, says so, and then reads no more: it is in the middle of the turn for as long as it lives.
CLIENT = """
import asyncio, json, sys, websockets
async def main():
    async with websockets.connect(sys.argv[1], max_queue=1) as socket:
        audio = {"format": "pcm_s16le", "sample_rate": 48000}
        await socket.send(json.dumps({"type": "session.start", "audio": audio, "seed": 1}))
        for i in range(3):
            turn = {"turn": f"t{i}", "speaker": "S1", "text": "The weather is so nice today, let us go for a walk."}
            await socket.send(json.dumps({"type": "turn.create", **turn}))
        frames = 0
        while frames < 3:
            frames += isinstance(await socket.recv(), bytes)
        print("speaking", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[Process]:
    """A Python process, which does not outlive the block."""
    child = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=PIPE, stderr=PIPE, env=ENVIRONMENT)
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def says(child: Process, words: str) -> str:
    """The first line of its output, which begins so."""
    assert child.stdout is not None and child.stderr is not None
    line = (await asyncio.wait_for(child.stdout.readline(), WAIT_S)).decode()
    assert line.startswith(words), (line, (await child.stderr.read()).decode())
    return line


async def test_a_client_killed_in_the_middle_of_a_turn_leaves_nothing() -> None:
    limits = replace(LIMITS, resume_grace_ms=200)
    async with running(limits, send_buffer_bytes=1024, **SIZES) as server:
        await neighbours(server, asyncio.create_task(asyncio.sleep(0)))
        n_files = open_files()
        async with process("-c", CLIENT, server.url) as first, process("-c", CLIENT, server.url) as second:
            await says(first, "speaking")
            await says(second, "speaking")

            async def kill() -> None:
                for child in (first, second):
                    child.send_signal(signal.SIGKILL)
                    await child.wait()
                # For as long as the grace time lasts, they might have come back.
                await becomes(lambda: len(server.state.sockets) <= 1)

            await neighbours(server, asyncio.create_task(kill()))
        await assert_all_gone(server, n_files)


async def test_a_client_whose_server_is_killed_is_told_so() -> None:
    flags = ["--set", "limits.resume_grace_ms=500", "--null-model", "--port", "0", "--log-level", "error"]
    async with process("-m", "streamer.cli", "serve", *flags) as server:
        url = (await says(server, "listening on ws://127.0.0.1:")).split()[-1]
        async with connect(url) as dialogue:
            with pytest.raises(
                ConnectionLost, match=r"vanished.*as long as the server keeps the session.*Is the server running"
            ):
                async for event in dialogue.say("[S1] The weather is so nice today, let us go for a walk."):
                    if isinstance(event, Audio) and server.returncode is None:
                        server.send_signal(signal.SIGKILL)
                        await server.wait()
            # And so is who asks for more.
            with pytest.raises(ConnectionLost, match=r"vanished"):
                await dialogue.turn("S1", "Are you there?")
