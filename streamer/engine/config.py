"""What an engine is made with, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streamer.engine.deadlines import Deadlines, Pacing
from streamer.engine.policies import FirstCome, Policy
from streamer.engine.step_times import StepTimes

KVFormat = Literal["native", "fp8"]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Sizes of everything the engine allocates, once, at start.

    ``max_unsent_frames``: a generation whose reader is this many frames behind pauses until it catches up.
    ``max_lead_s``: one whose listener has this much audio in hand pauses until less is left, and turns are scheduled by
    when their listeners run dry; None makes files as fast as possible, first come, first served.
    ``first_audio_goal_s``: by when a new turn is to be heard; ``max_wait_s``: the first turn of a session that would
    wait longer than that in the queue is refused.
    ``bf16_codec``: the codec's products are made in bfloat16, whatever its weights are.
    ``max_sequence_rows``: the longest prompt with all that is decoded after it. ``kv_format`` fp8 keeps keys and values
    in 8 bits, in half the memory of bfloat16.
    ``group_frames``: a session whose listener can wait gets its audio so many frames at a time; not in captured steps.
    ``captured``: decode steps run as graphs of fixed sizes; None where the model is on a GPU.
    """

    max_sessions: int = 32
    max_batch: int = 16
    max_waiting: int = 64
    kv_rows: int = 32_768
    max_sequence_rows: int = 8192
    prefill_chunk_rows: int = 128
    max_unsent_frames: int = 125
    max_lead_s: float | None = 10.0
    first_audio_goal_s: float = 0.15
    max_wait_s: float = 5.0
    kv_format: KVFormat = "native"
    bf16_codec: bool = False
    group_frames: int = 4
    captured: bool | None = None


@dataclass(frozen=True, slots=True)
class Holdings:
    """What is held at one moment; all zero but ``streams`` in an engine at rest."""

    slots: int
    blocks: int
    waiting: int
    streams: int
    stream_places: int


def policy_for(config: EngineConfig, n_vq: int, frame_s: float, times: StepTimes) -> Policy:
    """The configured way to schedule, for a model of ``n_vq`` codebooks and frames of ``frame_s``."""
    if config.max_lead_s is None:
        return FirstCome()
    pacing = Pacing(
        frame_s=frame_s,
        first_frame_rows=n_vq,
        max_lead_s=config.max_lead_s,
        first_audio_goal_s=config.first_audio_goal_s,
        max_wait_s=config.max_wait_s,
    )
    return Deadlines(pacing, times, config.max_batch)
