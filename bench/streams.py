"""Real-time streams through an engine, without a server: who waits how long, and whether playback would stutter."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from streamer.codec import AudioCodec
from streamer.commands.bench import longest_underrun_ms
from streamer.engine import Engine, EngineConfig, EngineEvent, Finished, FrameReady, Generation, GenerationRequest
from streamer.models import BLOCK_ROWS, DelayModel

FRAME_MS = 80.0
# Streams begin at random moments of this many seconds.
_STARTS_S = 4.0
_WAIT_S = 240.0


@dataclass(slots=True, eq=False)
class Stream:
    """One stream as its listener saw it. ``arrivals``: (seconds since it was asked for, duration_ms) of each frame."""

    asked_s: float
    arrivals: list[tuple[float, float]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    reason: str = ""

    def take(self, event: EngineEvent) -> None:
        """The engine's sink."""
        if isinstance(event, FrameReady):
            self.arrivals.append((time.perf_counter() - self.asked_s, FRAME_MS))
        elif isinstance(event, Finished):
            self.reason = event.reason
            self.over.set()


def speak_in_real_time(
    model: DelayModel, codec: AudioCodec, prompt: torch.Tensor, count: int, seconds: float
) -> dict[str, Any]:
    """``count`` turns of ``seconds`` after the same prompt (P, 1+n_vq), which the first alone has to prefill."""
    n_rows = int(seconds * 1000 / FRAME_MS) + model.config.n_vq
    blocks = count * (-(-(len(prompt) + n_rows) // BLOCK_ROWS) + 1)
    config = EngineConfig(
        max_sessions=count,
        max_batch=count,
        max_waiting=count,
        kv_rows=max(blocks, 8) * BLOCK_ROWS,
        max_unsent_frames=n_rows,
    )
    engine = Engine(model, codec, config).start()
    handles = [engine.open_stream() for _ in range(count)]
    starts = np.sort(np.random.default_rng(0).uniform(0, _STARTS_S if count > 1 else 0.0, count))
    speaking: list[tuple[Stream, Generation]] = []
    began = time.perf_counter()
    try:
        for i, start in enumerate(starts):
            time.sleep(max(0.0, began + start - time.perf_counter()))
            stream = Stream(time.perf_counter())
            rows = prompt.clone()
            # Most of a prompt is known: voices and earlier turns. The rest is each stream's own.
            rows[-BLOCK_ROWS * 2 :, 1] = (rows[-BLOCK_ROWS * 2 :, 1] + i) % model.config.audio_vocab_size
            request = GenerationRequest(rows, replace(model.default_sampling), seed=i, max_rows=n_rows)
            speaking.append((stream, engine.submit(request, handles[i], stream.take)))
        late = [stream for stream, _ in speaking if not stream.over.wait(_WAIT_S)]
        took_s = time.perf_counter() - began
    finally:
        for handle in handles:
            engine.close_stream(handle)
        engine.stop()
    done = [stream for stream, _ in speaking]
    if late or any(stream.reason not in ("end", "max_length") for stream in done):
        raise RuntimeError(f"streams ended with {sorted({stream.reason for stream in done})}: {engine.failure}")
    ttfa_ms = [stream.arrivals[0][0] * 1000 for stream in done]
    underruns_ms = [longest_underrun_ms(stream.arrivals) for stream in done]
    return {
        "streams": count,
        "ttfa_p50_ms": float(np.percentile(ttfa_ms, 50)),
        "ttfa_p95_ms": float(np.percentile(ttfa_ms, 95)),
        **{f"c{limit}": float(np.mean([ms < limit for ms in underruns_ms])) for limit in (50, 100, 200)},
        "audio_s_per_s": sum(len(stream.arrivals) for stream in done) * FRAME_MS / 1000 / took_s,
    }
