"""Who else is there during a trial: a neighbour whose speech must not change; and what must be left after it."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from serving import AT_REST, WAIT_S, RecordingEngine, recorded, running, started

from streamer.server import DialogueServer

SCRIPT = "[S1] Hello there. [S2] Hi, how are you? [S1] Very well."
# Of the neighbour alone, so that its rows are known among everybody's.
SEED = 97_531
LIVELY = {"audio_temperature": 0.9, "text_temperature": 0.4}
# Nobody plays the audio, so nothing may wait for that.
SIZES: dict[str, Any] = {"max_sessions": 64, "max_lead_s": None}


@dataclass(frozen=True)
class Take:
    """What the neighbour was sent, (n,) float32, and the rows that the engine made for it, by request."""

    audio: np.ndarray
    rows: dict[int, np.ndarray]


_alone: list[Take] = []


async def neighbour(server: DialogueServer) -> np.ndarray:
    """A session that speaks its script to the end; its audio, (n,) float32."""
    async with started(server, seed=SEED, sampling=LIVELY) as client:
        await client.send("script.append", text=SCRIPT)
        await client.until("session.idle")
        assert [frame.frame for frame in client.frames] == list(range(len(client.frames)))
        await client.send("session.close")
        await client.until("session.closed")
        return client.pcm()


async def alone() -> Take:
    """The neighbour with a server of its own; spoken once for all trials."""
    if not _alone:
        async with running(**SIZES) as server:
            audio = await neighbour(server)
            _alone.append(Take(audio, dict(recorded(server).rows)))
    return _alone[0]


async def neighbours(server: DialogueServer, crowd: asyncio.Task[None]) -> int:
    """Neighbours, one after another, until the crowd is gone: each is sent what it would be alone. How many."""
    expected = await alone()
    n = 0
    while not crowd.done() or n == 0:
        assert_undisturbed(recorded(server), await neighbour(server), expected)
        n += 1
    await crowd
    return n


def assert_undisturbed(engine: RecordingEngine, audio: np.ndarray, expected: Take) -> None:
    """Row for row the same; the audio but for the rounding of a batch of another size."""
    for seed, rows in expected.rows.items():
        np.testing.assert_array_equal(engine.rows[seed], rows)
    np.testing.assert_allclose(audio, expected.audio, atol=1e-4)


async def assert_all_gone(server: DialogueServer, n_files: int | None = None) -> None:
    """Without being stopped, the server holds nothing any more: no socket, session, slot or encoder, no open file."""
    await asyncio.wait_for(server.state.no_sockets.wait(), WAIT_S)
    await asyncio.wait_for(server.state.sessions.wait_none(), WAIT_S)
    await asyncio.wait_for(server.state.sessions.settle(), WAIT_S)
    engine = server.state.speech.engine
    assert await asyncio.to_thread(engine.wait_idle, WAIT_S)
    assert engine.holdings() == AT_REST
    assert engine.failure is None
    assert not server.state.speech.encoders
    assert len(server.state.sessions._per_key) == server.state.sessions.waiting == 0
    metrics = server.state.metrics
    assert metrics._opened == metrics._closed
    if n_files is not None:
        await becomes(lambda: open_files() <= n_files)


async def becomes(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""

    async def look() -> None:
        # Whatever changes it tells nobody.
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)

    await asyncio.wait_for(look(), WAIT_S)


def open_files() -> int:
    """File descriptors of this process, which is server and client in one."""
    return len(list(Path("/proc/self/fd").iterdir()))


def allow_many_files() -> None:
    """As many open files as the system lets this process have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
