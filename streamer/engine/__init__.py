"""Continuous batching of generations over one model, one paged KV pool and one codec."""

from streamer.engine.engine import Engine, EngineConfig, Holdings
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
