"""Between threads and the event loop: nothing is lost or reordered, wake-ups and jobs are shared."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from serving import running, started

from streamer.audio import OpusEncoder, Packetizer
from streamer.bridge import LoopBridge, packetize

NOISE = np.random.default_rng(3).uniform(-0.5, 0.5, (20, 4, 1920)).astype(np.float32)


class CountingThreads(ThreadPoolExecutor):
    """Counts the jobs it is given."""

    jobs = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        self.jobs += 1
        return super().submit(fn, *args, **kwargs)


async def settled(bridge: LoopBridge) -> None:
    """Return when what was posted before is delivered."""
    done = asyncio.Event()
    bridge.post(lambda _: done.set(), None)
    await done.wait()


async def test_what_threads_post_arrives_whole_and_in_each_ones_order() -> None:
    with ThreadPoolExecutor(4) as threads:
        bridge = LoopBridge(asyncio.get_running_loop(), threads)
        got: list[tuple[int, int]] = []
        on_loop: set[int] = set()

        def take(item: tuple[int, int]) -> None:
            on_loop.add(threading.get_ident())
            got.append(item)

        def post(number: int) -> None:
            for i in range(2000):
                bridge.post(take, (number, i))

        await asyncio.gather(*(asyncio.to_thread(post, number) for number in range(4)))
        await settled(bridge)
    for number in range(4):
        assert [i for n, i in got if n == number] == list(range(2000))
    assert on_loop == {threading.get_ident()}


async def test_many_events_wake_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    wake, wakes = loop.call_soon_threadsafe, []

    def counted(callback: Callable[..., Any], *args: Any) -> asyncio.Handle:
        wakes.append(callback)
        return wake(callback, *args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    with ThreadPoolExecutor(1) as threads:
        bridge = LoopBridge(loop, threads)
        got: list[int] = []
        # While this test does not wait, the loop can't run: all of these find it asleep or woken already.
        for i in range(100):
            bridge.post(got.append, i)
        assert len(wakes) == 1
        await settled(bridge)
        assert got == list(range(100))
        bridge.post(got.append, 100)
        await settled(bridge)
        assert got[-1] == 100


async def test_frames_of_many_listeners_share_jobs_and_each_gets_its_own_packets() -> None:
    expected = []
    for frames in NOISE:
        alone = Packetizer("opus", frame_ms=60)
        expected.append([packetize(alone, frame, last=i == 3) for i, frame in enumerate(frames)])
    with CountingThreads(2) as threads:
        bridge = LoopBridge(asyncio.get_running_loop(), threads)

        async def listen(frames: np.ndarray) -> list[list[bytes]]:
            packetizer = Packetizer("opus", frame_ms=60)
            return [await bridge.encode(packetizer, frame, last=i == 3) for i, frame in enumerate(frames)]

        assert await asyncio.gather(*map(listen, NOISE)) == expected
        assert threads.jobs < NOISE.shape[0] * NOISE.shape[1] / 2


async def test_an_encoder_that_fails_fails_for_its_own_listener_only() -> None:
    with ThreadPoolExecutor(1) as threads:
        bridge = LoopBridge(asyncio.get_running_loop(), threads)
        closed, sound = Packetizer("opus"), Packetizer("opus")
        closed.close()
        frames = [bridge.encode(p, NOISE[0, 0], last=False) for p in (sound, closed, sound)]
        first, failure, third = await asyncio.gather(*frames, return_exceptions=True)
    assert isinstance(failure, RuntimeError)
    assert isinstance(first, list)
    assert isinstance(third, list)
    # Stopped threads encode nothing, and nobody waits for them for ever.
    with pytest.raises(RuntimeError, match="shutdown"):
        await bridge.encode(sound, NOISE[0, 0], last=False)


async def test_the_event_loop_encodes_no_opus(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = OpusEncoder.encode
    encoded_on: list[str] = []

    def noted(self: OpusEncoder, pcm: np.ndarray) -> bytes:
        encoded_on.append(threading.current_thread().name)
        return encode(self, pcm)

    monkeypatch.setattr(OpusEncoder, "encode", noted)
    async with running() as server, started(server, audio={"format": "opus"}) as client:
        await client.send("turn.create", turn="x", speaker="S1", text="Hello there.")
        await client.spoken("x")
    assert len(encoded_on) == len(client.frames)
    assert {name.partition("_")[0] for name in encoded_on} == {"encoder"}


def test_a_loop_that_is_gone_is_told_nothing_and_nobody_fails() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with ThreadPoolExecutor(1) as threads:
        bridge = LoopBridge(loop, threads)
        got: list[int] = []
        for i in range(3):
            bridge.post(got.append, i)
        assert got == []
        assert not bridge._arrived
