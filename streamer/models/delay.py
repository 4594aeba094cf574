"""The delay pattern's state machine: which ids a row may hold, given the rows before it. No tensors here.

Codebook k runs k rows behind: row r holds code k of frame r-k. A sequence is in audio from ``audio_start`` to
``audio_end``; its end is announced by the first delay slot, after which the codebooks run dry one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from streamer.models.config import DelayConfig


@dataclass(slots=True)
class DelayState:
    """State of one sequence between rows. ``delayed_length`` is None while no delay slot was seen.

    ``tail_requested`` makes the next row in audio a delay slot: a sequence cut short still ends with whole frames.
    """

    config: DelayConfig
    audio_length: int = 0
    delayed_length: int | None = None
    is_audio: bool = False
    step: int = 0
    finished: bool = False
    tail_requested: bool = False

    @classmethod
    def after_prompt(cls, config: DelayConfig, text_ids: Sequence[int]) -> DelayState:
        """State after a prompt, of which ``text_ids`` is column 0; a prompt that ends in audio is continued."""
        in_audio = (config.audio_start_token_id, config.audio_assistant_gen_slot_token_id)
        if not text_ids or text_ids[-1] not in in_audio:
            return cls(config)
        for back, token in enumerate(reversed(text_ids), start=1):
            if token == config.audio_start_token_id:
                return cls(config, audio_length=back, is_audio=True)
        raise ValueError("prompt_rows: the prompt ends in a generation slot, but no audio_start comes before it")

    @property
    def forced_text_id(self) -> int | None:
        """The next row's text id where the pattern leaves no choice."""
        if self.delayed_length is None:
            ending = self.tail_requested and self.is_audio and self.step > 0
            return self.config.audio_assistant_delay_slot_token_id if ending else None
        if self.delayed_length == self.config.n_vq:
            return self.config.audio_end_token_id
        return self.config.audio_assistant_delay_slot_token_id

    @property
    def allowed_in_audio(self) -> tuple[int, ...]:
        """Text ids allowed inside audio: go on, or begin the tail (never as the very first row)."""
        gen = self.config.audio_assistant_gen_slot_token_id
        return (gen,) if self.step == 0 else (gen, self.config.audio_assistant_delay_slot_token_id)

    @property
    def excluded_outside_audio(self) -> tuple[int, ...]:
        """Text ids not allowed outside audio."""
        c = self.config
        excluded = (
            c.pad_token_id,
            c.audio_assistant_gen_slot_token_id,
            c.audio_assistant_delay_slot_token_id,
            c.audio_end_token_id,
        )
        return (*excluded, c.im_end_token_id) if self.step <= c.n_vq else excluded

    @property
    def active_codebooks(self) -> range:
        """Codebooks that the next row samples; all others hold the pad code."""
        return range(self.delayed_length or 0, min(self.audio_length, self.config.n_vq))

    def advance(self, text_id: int) -> None:
        """Take note of the row just decoded."""
        c = self.config
        if text_id == c.audio_end_token_id:
            self.is_audio = False
            self.audio_length = 0
        elif text_id == c.audio_start_token_id:
            self.is_audio = True
            self.audio_length += 1
        elif text_id in (c.audio_assistant_gen_slot_token_id, c.audio_assistant_delay_slot_token_id):
            self.audio_length += 1
        if self.delayed_length is None and text_id == c.audio_assistant_delay_slot_token_id:
            self.delayed_length = 0
        if self.delayed_length is not None:
            self.delayed_length += 1
            if self.delayed_length > c.n_vq:
                self.delayed_length = None
        self.finished = text_id == c.im_end_token_id
        self.step += 1

    @property
    def audio_complete(self) -> bool:
        """Whether the audio block's last code is known, so that only ``audio_end`` is left to come."""
        return self.delayed_length == self.config.n_vq


@dataclass(slots=True)
class FrameAssembler:
    """Undoes the delay row by row: a frame is complete n_vq-1 rows after the row that began it."""

    n_vq: int
    pad_code: int
    _rows: list[Sequence[int]] = field(default_factory=list)

    def push(self, codes: Sequence[int]) -> list[int] | None:
        """Add a row's n_vq codes; the frame that it completes, or None."""
        self._rows.append(codes)
        if len(self._rows) < self.n_vq:
            return None
        frame = [self._rows[k][k] for k in range(self.n_vq)]
        del self._rows[0]
        return None if self.pad_code in frame else frame
