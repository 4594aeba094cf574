"""A source of frames that costs next to nothing: for measuring everything around the engine, and nothing of it.

Each turn is handed out at the pace of a clock: ``burst_frames`` at once, then a frame every 80 ms. What is heard is a
recording, over and over, so that encoders have speech to work on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.engine import (
    Counters,
    EngineConfig,
    EngineEvent,
    Finished,
    FinishReason,
    FrameReady,
    GenerationRequest,
    Holdings,
    Refused,
    Sink,
    Started,
)

_log = logging.getLogger(__name__)
FRAME_S = 0.08


@dataclass(frozen=True, slots=True)
class NullConfig:
    """``burst_frames`` come at once when a turn starts. ``n_steps`` a frame: the clock ticks this often in 80 ms."""

    burst_frames: int = 1
    n_steps: int = 8

    def __post_init__(self) -> None:
        if self.burst_frames < 1 or self.n_steps < 1:
            raise ValueError(f"burst_frames is {self.burst_frames}, n_steps {self.n_steps}, expected at least 1")


@dataclass(slots=True, eq=False)
class NullGeneration:
    """A turn being handed out. ``made`` belongs to the engine's thread, ``taken`` to the reader's."""

    sink: Sink
    stream: object
    n_frames: int
    made: int = 0
    taken: int = 0


class NullEngine:
    """Keeps the contract of :class:`streamer.engine.Engine` towards its callers, without a model.

    A turn lasts as long as its request allows: ``max_rows`` less the tail. One whose reader is ``max_unsent_frames``
    behind misses its frames' times until the reader has caught up. codes: (F, n_vq) int64; audio: (F, 1920) float32.
    """

    def __init__(
        self,
        codes: npt.NDArray[np.int64],
        audio: npt.NDArray[np.float32],
        config: EngineConfig,
        null: NullConfig | None = None,
    ) -> None:
        if not len(codes) or len(codes) != len(audio):
            raise ValueError(f"{len(codes)} frames of codes, {len(audio)} of audio; expected as many of both, and some")
        self.config = config
        self.failure: str | None = None
        self._null = null or NullConfig()
        self._n_vq = codes.shape[1]
        self._frames = [FrameReady(c, a, last=False) for c, a in zip(codes, audio, strict=True)]
        self._last_frames = [FrameReady(c, a, last=True) for c, a in zip(codes, audio, strict=True)]
        # Generations by the tick at which their frames are due: each tick looks at its own alone.
        self._wheel: list[dict[NullGeneration, None]] = [{} for _ in range(self._null.n_steps)]
        self._places: dict[NullGeneration, int] = {}
        self._streams: set[object] = set()
        self._arrived: deque[NullGeneration] = deque()
        self._ending: deque[NullGeneration] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._n_frames = 0
        self._thread = threading.Thread(target=self._run, name="null engine", daemon=True)

    def start(self) -> NullEngine:
        """Start the thread."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End every generation as cancelled, then the thread; returns when it has ended."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def open_stream(self) -> object:
        """A place for a new session; raises :class:`Refused` when all are taken."""
        with self._wake:
            self._refuse_when_stopping()
            if len(self._streams) >= self.config.max_sessions:
                raise Refused("overloaded", f"all {self.config.max_sessions} sessions are taken", 1000)
            stream = object()
            self._streams.add(stream)
            return stream

    def close_stream(self, stream: object) -> None:
        """Give a place back, ending any generation that still feeds it; twice does no harm."""
        with self._wake:
            self._streams.discard(stream)
            self._end(g for g in (*self._places, *self._arrived) if g.stream is stream)

    def submit(self, request: GenerationRequest, stream: object, sink: Sink) -> NullGeneration:
        """Start a turn at the next tick; its events go to ``sink``, ending with one :class:`Finished`."""
        generation = NullGeneration(sink, stream, max(request.max_rows - self._n_vq, 1))
        with self._wake:
            self._refuse_when_stopping()
            if stream not in self._streams:
                raise Refused("internal", "the session's stream is closed")
            self._arrived.append(generation)
            self._wake.notify_all()
        return generation

    def cancel(self, generation: NullGeneration) -> None:
        """Stop a generation; harmless when it is over already."""
        with self._wake:
            self._end([generation])

    def played(self, stream: object, played_ms: float) -> None:
        """A recording is played at real time whatever its listener has heard."""

    def flushed(self, stream: object) -> None:
        """A recording is played at real time whatever its listener threw away."""

    def consumed(self, generation: NullGeneration, n_frames: int) -> None:
        """The reader took ``n_frames``."""
        generation.taken += n_frames

    def counters(self) -> Counters:
        """Frames handed out, and the turns of now; there are no steps, rows or blocks."""
        with self._wake:
            return Counters(
                frames=self._n_frames,
                batch=len(self._places),
                running=len(self._places),
                waiting=len(self._arrived),
            )

    def holdings(self) -> Holdings:
        """What is held now: a slot for each running turn, a stream for each session."""
        with self._wake:
            n_waiting = len(self._arrived)
            return Holdings(
                slots=len(self._places), blocks=0, waiting=n_waiting, streams=len(self._streams), stream_places=0
            )

    def wait_idle(self, timeout_s: float | None = None) -> bool:
        """Wait until no turn runs or waits; False if that took longer than ``timeout_s``."""
        with self._wake:
            return self._wake.wait_for(lambda: not (self._places or self._arrived or self._ending), timeout_s)

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise Refused("shutting_down", "the engine is stopping")

    def _end(self, generations: Iterable[NullGeneration]) -> None:
        self._ending.extend(generations)
        self._wake.notify_all()

    # What follows runs on the engine's thread.

    def _run(self) -> None:
        tick_s = FRAME_S / self._null.n_steps
        began_s = time.monotonic()
        tick = 0
        while self._wait_until(began_s + tick * tick_s):
            self._admit(tick % self._null.n_steps)
            for generation in list(self._wheel[tick % self._null.n_steps]):
                self._hand_out(generation, 1)
            tick += 1
            if not self._places:
                # Nobody waits for the ticks of a pause.
                tick = max(tick, int((time.monotonic() - began_s) / tick_s))
        for generation in (*self._places, *self._arrived):
            self._finish(generation, "cancelled")

    def _wait_until(self, due_s: float) -> bool:
        """Sleep until a tick is due and there is work, and end what is to end; False when it is time to stop."""
        while True:
            with self._wake:
                if not (self._stopping or self._ending):
                    left_s = due_s - time.monotonic()
                    idle = not (self._places or self._arrived)
                    if left_s <= 0 and not idle:
                        return True
                    self._wake.wait(None if idle else left_s)
                if self._stopping:
                    return False
                ending, self._ending = self._ending, deque()
            for generation in ending:
                self._finish(generation, "cancelled")

    def _admit(self, place: int) -> None:
        """Start the turns that have arrived: their first frames now, the others whenever this tick comes round."""
        with self._wake:
            arrived, self._arrived = self._arrived, deque()
            self._places.update(dict.fromkeys(arrived, place))
        for generation in arrived:
            self._tell(generation, Started(0))
            self._hand_out(generation, self._null.burst_frames - 1)
            if generation in self._places:
                self._wheel[place][generation] = None

    def _hand_out(self, generation: NullGeneration, n_frames: int) -> None:
        for _ in range(n_frames):
            behind = generation.made - generation.taken >= self.config.max_unsent_frames
            if behind or generation not in self._places:
                return
            i = generation.made % len(self._frames)
            generation.made += 1
            self._n_frames += 1
            last = generation.made == generation.n_frames
            self._tell(generation, self._last_frames[i] if last else self._frames[i])
            if last:
                self._finish(generation, "end")
                return

    def _finish(self, generation: NullGeneration, reason: FinishReason) -> None:
        with self._wake:
            place = self._places.pop(generation, None)
            if place is not None:
                self._wheel[place].pop(generation, None)
            elif generation in self._arrived:
                self._arrived.remove(generation)
            else:
                return
            self._wake.notify_all()
        self._tell(generation, Finished(reason, np.empty((0, 1 + self._n_vq), np.int64)))

    def _tell(self, generation: NullGeneration, event: EngineEvent) -> None:
        try:
            generation.sink(event)
        except Exception:
            _log.exception("a sink raised; its generation is ended")
            self._finish(generation, "cancelled")
