"""What goes into the engine and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from streamer.models import SamplingParams

FinishReason = Literal["end", "cancelled", "max_length", "error"]


@dataclass(frozen=True, slots=True, eq=False)
class GenerationRequest:
    """One audio block to generate after a prompt that ends inside audio or at audio_start.

    prompt_rows: (P, 1+n_vq) int64 on the CPU; known_codes: (rows, n_vq) int64 for the first new rows, -1 where a code
    is to be drawn, or None. ``max_rows`` bounds the new rows, the tail included. text_rows: (begin, end) of the prompt
    rows with the text that the frames are to be aligned to, or None; ValueError unless the prompt has them.
    """

    prompt_rows: torch.Tensor
    sampling: SamplingParams
    seed: int
    max_rows: int
    known_codes: torch.Tensor | None = None
    text_rows: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.text_rows is not None:
            begin, end = self.text_rows
            if not 0 <= begin < end <= len(self.prompt_rows):
                raise ValueError(f"text_rows: {self.text_rows}, expected rows of a prompt of {len(self.prompt_rows)}")


@dataclass(frozen=True, slots=True)
class Queued:
    """The request waits for a slot or for memory; ``position`` 1 is next."""

    position: int


@dataclass(frozen=True, slots=True)
class Started:
    """The request runs. ``shared_rows`` of its prompt were in the cache already."""

    shared_rows: int


@dataclass(frozen=True, slots=True, eq=False)
class FrameReady:
    """A frame is complete. codes: (n_vq,) int64; audio: (1920,) float32; ``last`` in its audio block.

    ``text_row``: the prompt row, one of the request's ``text_rows``, that the model's alignment heads look at most as
    the frame begins; None where the request names no rows or the model declares no such heads.
    """

    codes: np.ndarray
    audio: np.ndarray
    last: bool
    text_row: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """The request is over and holds nothing any more. rows: (R, 1+n_vq) int64, all new rows."""

    reason: FinishReason
    rows: np.ndarray
    error: str | None = None


EngineEvent = Queued | Started | FrameReady | Finished
Sink = Callable[[EngineEvent], None]
"""Called on the engine's thread; it must hand over at once and not raise."""
