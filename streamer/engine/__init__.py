"""Continuous batching of generations over one model, one paged KV pool and one codec."""

from streamer.engine.config import EngineConfig, Holdings
from streamer.engine.counters import Counters
from streamer.engine.engine import Engine
from streamer.engine.events import (
    EngineEvent,
    Finished,
    FinishReason,
    FrameReady,
    GenerationRequest,
    Queued,
    Sink,
    Started,
)
from streamer.engine.runner import CodecStreamHandle, Generation
from streamer.engine.scheduler import Refused

__all__ = [
    "CodecStreamHandle",
    "Counters",
    "Engine",
    "EngineConfig",
    "EngineEvent",
    "FinishReason",
    "Finished",
    "FrameReady",
    "Generation",
    "GenerationRequest",
    "Holdings",
    "Queued",
    "Refused",
    "Sink",
    "Started",
]
