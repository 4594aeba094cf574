"""Between an event loop and the threads that work for it: one wake-up for many events, one job for many frames."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from streamer.audio import Packetizer

_T = TypeVar("_T")
# A job this long (about 3 ms of Opus) hides the cost of handing it over, and holds back its first frame no longer.
_FRAMES_A_JOB = 8


@dataclass(frozen=True, slots=True, eq=False)
class _Encoding:
    packetizer: Packetizer
    audio: npt.NDArray[np.float32]
    last: bool
    payloads: asyncio.Future[list[bytes]]


class LoopBridge:
    """Serves one event loop. Waking a loop costs more than what most events bring, so many share a wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop, encoders: Executor) -> None:
        self.loop = loop
        self._encoders = encoders
        self._arrived: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._woken = False
        self._unencoded: list[_Encoding] = []

    def post(self, deliver: Callable[[_T], None], item: _T) -> None:
        """Have the loop call ``deliver(item)``, after what was posted before. From any thread; must not raise there."""
        self._arrived.append((deliver, item))
        if not self._woken:
            self._woken = True
            try:
                self.loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                # A loop that was closed has nobody left to tell.
                self._woken = False
                self._arrived.clear()

    def encode(
        self, packetizer: Packetizer, audio: npt.NDArray[np.float32], *, last: bool
    ) -> asyncio.Future[list[bytes]]:
        """The payloads that ``audio`` (n,) completes, with ``last`` those that end a turn, made by an encoder thread.

        On the loop only. A packetizer's next frame may be given when the future is done. Raises what the encoder
        raised.
        """
        payloads: asyncio.Future[list[bytes]] = self.loop.create_future()
        if not self._unencoded:
            # By then everyone whom the same event has woken has brought a frame.
            self.loop.call_soon(self._hand_over)
        self._unencoded.append(_Encoding(packetizer, audio, last, payloads))
        return payloads

    def _deliver(self) -> None:
        # Lowered first: what is posted from now on wakes the loop again or is still found here.
        self._woken = False
        for _ in range(len(self._arrived)):
            deliver, item = self._arrived.popleft()
            deliver(item)

    def _hand_over(self) -> None:
        waiting, self._unencoded = self._unencoded, []
        for i in range(0, len(waiting), _FRAMES_A_JOB):
            job = waiting[i : i + _FRAMES_A_JOB]
            try:
                self._encoders.submit(self._encode, job)
            except RuntimeError as error:
                # The threads were stopped; nobody is to wait for them.
                _resolve([(frame.payloads, error) for frame in job])

    def _encode(self, job: list[_Encoding]) -> None:
        """On an encoder thread."""
        done: list[tuple[asyncio.Future[list[bytes]], list[bytes] | Exception]] = []
        for frame in job:
            try:
                done.append((frame.payloads, packetize(frame.packetizer, frame.audio, last=frame.last)))
            except Exception as error:
                done.append((frame.payloads, error))
        self.post(_resolve, done)


def packetize(packetizer: Packetizer, audio: npt.NDArray[np.float32], *, last: bool) -> list[bytes]:
    """The payloads that ``audio`` completes; ``last`` adds those that end a turn."""
    payloads = packetizer.push(audio)
    return payloads + packetizer.flush() if last else payloads


def _resolve(done: list[tuple[asyncio.Future[list[bytes]], list[bytes] | Exception]]) -> None:
    for future, result in done:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
