"""An engine around the small random model, and a reader that keeps what it is given."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from support import load_codec, load_golden, load_model

from streamer import SamplingParams
from streamer.engine import (
    Engine,
    EngineConfig,
    EngineEvent,
    Finished,
    FrameReady,
    Generation,
    GenerationRequest,
    Holdings,
)

GREEDY = SamplingParams(audio_temperature=0, text_temperature=0)
AT_REST = Holdings(slots=0, blocks=0, waiting=0, streams=0, stream_places=0)
WAIT_S = 60.0


class Reader:
    """A sink that keeps what it is given; ``keeps_up`` False lets unread frames pile up."""

    def __init__(self, engine: Engine, keeps_up: bool = True) -> None:
        self.engine = engine
        self.keeps_up = keeps_up
        self.stream = engine.open_stream()
        self.events: list[EngineEvent] = []
        self.generation: Generation | None = None
        self._grew = threading.Condition()

    def submit(self, request: GenerationRequest) -> Reader:
        self.events.clear()
        self.generation = self.engine.submit(request, self.stream, self._take)
        return self

    def _take(self, event: EngineEvent) -> None:
        with self._grew:
            self.events.append(event)
            self._grew.notify_all()
        if isinstance(event, FrameReady) and self.keeps_up and self.generation is not None:
            self.engine.consumed(self.generation, 1)

    def wait_frames(self, n: int) -> None:
        with self._grew:
            assert self._grew.wait_for(lambda: len(self.frames) >= n or self.over, WAIT_S)

    def finish(self) -> Finished:
        with self._grew:
            assert self._grew.wait_for(lambda: self.over, WAIT_S)
        last = self.events[-1]
        assert isinstance(last, Finished)
        return last

    @property
    def over(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], Finished)

    @property
    def frames(self) -> list[FrameReady]:
        return [event for event in self.events if isinstance(event, FrameReady)]

    @property
    def audio(self) -> np.ndarray:
        return np.concatenate([frame.audio for frame in self.frames])


def request(
    mode: str = "continuation", sampling: SamplingParams = GREEDY, seed: int = 1, max_rows: int = 90
) -> GenerationRequest:
    return GenerationRequest(load_golden("delay-nvq4").arrays[f"prompt/{mode}"], sampling, seed, max_rows)


def new_engine(**sizes: Any) -> Engine:
    config = EngineConfig(**{"max_sessions": 8, "max_batch": 8, "kv_rows": 8192, **sizes})
    return Engine(load_model("delay-nvq4"), load_codec(), config).start()


def assert_at_rest(engine: Engine, readers: list[Reader]) -> None:
    for reader in readers:
        engine.close_stream(reader.stream)
    assert engine.wait_idle(WAIT_S)
    assert engine.holdings() == AT_REST
    assert engine.failure is None
