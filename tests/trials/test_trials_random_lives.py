"""Five hundred connections that break in every way networks and clients know, beside one that must not notice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter

import websockets
from cutting_proxy import CuttingProxy
from msgspec.structs import replace
from serving import GREEDY, LIMITS, WAIT_S, running
from trials.company import SIZES, assert_all_gone, neighbours, open_files
from websockets.asyncio.client import ClientConnection as Socket
from websockets.exceptions import ConnectionClosed, InvalidHandshake

N_LIVES = 500
AT_ONCE = 8
SENTENCE = "One two three, four five six, seven eight nine ten."
ENDS = ("close", "vanish", "cut", "half close up", "half close down", "stall up", "stall down", "drop", "cut after")


async def live(port: int, dice: random.Random, end: str) -> None:
    """One connection through a proxy of its own, from its start to its ``end``."""
    async with CuttingProxy(port) as proxy:
        if end == "cut after":
            proxy.cut_after(**{dice.choice(["up", "down"]): dice.randrange(1, 12_000)})
        with contextlib.suppress(ConnectionClosed, InvalidHandshake, OSError, asyncio.TimeoutError):
            async with websockets.connect(
                f"{proxy.url}/v1/dialogue", ping_interval=None, close_timeout=0.05, max_queue=dice.choice([1, 16])
            ) as socket:
                await _talk(socket, dice)
                await _end(proxy, socket, dice, end)


async def _talk(socket: Socket, dice: random.Random) -> None:
    """Say a few things, listen to a part of the answers."""
    audio = dice.choice([{"format": "opus"}, {"format": "mulaw"}, {"format": "pcm_s16le"}])
    messages: list[dict[str, object]] = [
        {"type": "session.start", "audio": audio, "sampling": GREEDY, "seed": dice.randrange(1000)}
    ]
    for i in range(dice.randrange(4)):
        kind, speaker = dice.choice(["turn.create", "turn.append", "script.append"]), f"S{dice.randint(1, 3)}"
        if kind == "script.append":
            messages.append({"type": kind, "text": f"[{speaker}] {SENTENCE} [S1] Yes."})
        else:
            messages.append({"type": kind, "turn": f"t{i}", "speaker": speaker, "text": SENTENCE})
        if dice.random() < 0.3:
            messages.append({"type": "turn.cancel", "played_ms": dice.randrange(600)})
    for message in messages:
        await socket.send(json.dumps(message))
    for _ in range(dice.randrange(8)):
        data = await asyncio.wait_for(socket.recv(), WAIT_S)
        if isinstance(data, str) and json.loads(data)["type"] in ("session.idle", "error"):
            return
        if len(messages) == 1:
            return


async def _end(proxy: CuttingProxy, socket: Socket, dice: random.Random, end: str) -> None:
    if end == "vanish":
        socket.transport.abort()
    elif end == "cut":
        proxy.cut()
    elif end.startswith("half close"):
        proxy.half_close("up" if end.endswith("up") else "down")
        await socket.send('{"type":"ping"}')
    elif end.startswith("stall") or end == "drop":
        if end == "drop":
            proxy.drop()
        else:
            proxy.stall("up" if end.endswith("up") else "down")
        for _ in range(dice.randrange(20)):
            await socket.send(json.dumps({"type": "ping", "id": "p"}))
        if dice.random() < 0.5:
            proxy.resume()


async def test_five_hundred_random_lives_leave_nothing_and_disturb_nobody() -> None:
    dice = random.Random(23)
    # Who breaks off may come back for a moment only.
    limits = replace(LIMITS, resume_grace_ms=1)
    ends: Counter[str] = Counter()
    async with running(limits, **SIZES) as server:
        await neighbours(server, asyncio.create_task(asyncio.sleep(0)))
        n_files = open_files()
        places = asyncio.Semaphore(AT_ONCE)

        async def one(seed: int) -> None:
            async with places:
                end = random.Random(seed).choice(ENDS)
                ends[end] += 1
                await live(server.port, random.Random(seed), end)

        async def crowd() -> None:
            await asyncio.gather(*(one(dice.randrange(10**9)) for _ in range(N_LIVES)))

        n_neighbours = await neighbours(server, asyncio.create_task(crowd()))
        assert ends.keys() == set(ENDS)
        assert n_neighbours > 1
        await assert_all_gone(server, n_files)
        await neighbours(server, asyncio.create_task(asyncio.sleep(0)))
