"""Driving the engine without a server: turns of a fixed number of rows, with the times at which things happened."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from streamer.codec import AudioCodec, StreamPool
from streamer.engine import Engine, EngineEvent, Finished, FrameReady, Generation, GenerationRequest

_WAIT_S = 600.0


@dataclass(slots=True, eq=False)
class Heard:
    """One generation as its reader saw it; times in seconds since its batch was submitted.

    rows: (R, 1+n_vq) int64; codes and audio: the frames, each (n_vq,) int64 and (1920,) float32.
    """

    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    reason: str = ""
    codes: list[np.ndarray] = field(default_factory=list)
    audio: list[np.ndarray] = field(default_factory=list)
    frame_times_s: list[float] = field(default_factory=list)
    wall_s: float = 0.0


class Reader:
    """A session of one engine: a codec stream, and whoever takes its frames."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stream = engine.open_stream()
        self._generation: Generation | None = None
        self._over = threading.Event()
        self._began_s = 0.0
        self.heard = Heard()

    def submit(self, request: GenerationRequest, began_s: float) -> None:
        """Start a turn; ``began_s`` is the zero of its times."""
        self.heard, self._began_s, self._generation = Heard(), began_s, None
        self._over.clear()
        self._generation = self._engine.submit(request, self._stream, self._take)

    def wait(self) -> Heard:
        """The finished turn; RuntimeError for one that failed."""
        if not self._over.wait(_WAIT_S):
            raise RuntimeError(f"a turn was not over after {_WAIT_S:g} s")
        if self.heard.reason not in ("end", "max_length"):
            raise RuntimeError(f"a turn ended with {self.heard.reason!r}: {self._engine.failure}")
        return self.heard

    def close(self) -> None:
        """Give the codec stream back."""
        self._engine.close_stream(self._stream)

    def _take(self, event: EngineEvent) -> None:
        heard, now_s = self.heard, time.perf_counter() - self._began_s
        if isinstance(event, FrameReady):
            heard.frame_times_s.append(now_s)
            heard.codes.append(event.codes)
            heard.audio.append(event.audio)
            # The first frame can come before submit() has returned.
            if self._generation is not None:
                self._engine.consumed(self._generation, 1)
        elif isinstance(event, Finished):
            heard.rows, heard.reason, heard.wall_s = event.rows, event.reason, now_s
            self._over.set()


def speak_together(engine: Engine, requests: Sequence[GenerationRequest]) -> list[Heard]:
    """Generate all requests at once, each in a session of its own."""
    readers = [Reader(engine) for _ in requests]
    try:
        began_s = time.perf_counter()
        for reader, request in zip(readers, requests, strict=True):
            reader.submit(request, began_s)
        return [reader.wait() for reader in readers]
    finally:
        for reader in readers:
            reader.close()


class SilentCodec(AudioCodec):
    """The same codec, giving silence at once: what is left is the language model's time."""

    def stream_pool(self, capacity: int, *, max_group_frames: int = 1, bf16_matrices: bool = False) -> StreamPool:
        return _SilentPool(self.config, self.weights, self._quantizer, capacity)


class _SilentPool(StreamPool):
    @torch.inference_mode()
    def push(self, slots: Sequence[int], codes: torch.Tensor) -> torch.Tensor:
        n_frames = codes.shape[1] if codes.ndim == 3 else 1
        return torch.zeros(len(slots), n_frames * self._config.frame_samples, device=self._device)
