"""The device side of the engine: prefill, the batched decode step, and the codec. One thread calls it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from streamer.codec import AudioCodec, StreamPool
from streamer.engine.captured import CapturedStep
from streamer.engine.events import GenerationRequest, Sink
from streamer.engine.scheduler import ScheduledSequence
from streamer.models import DelayModel, DelayState, FrameAssembler, SlotDecoder


class CodecStreamHandle:
    """A session's codec stream. Its place in the pool is taken when its first frame comes."""

    __slots__ = ("place",)

    def __init__(self) -> None:
        self.place: int | None = None


@dataclass(slots=True, eq=False)
class Generation(ScheduledSequence):
    """A request with everything the engine keeps for it."""

    request: GenerationRequest = field(kw_only=True)
    sink: Sink = field(kw_only=True)
    stream: CodecStreamHandle = field(kw_only=True)
    state: DelayState = field(kw_only=True)
    assembler: FrameAssembler = field(kw_only=True)
    rows: list[list[int]] = field(default_factory=list)
    # Frames whose audio is not made yet.
    held_frames: list[list[int]] = field(default_factory=list)
    # Where in the text each frame is that was begun and is not turned to audio yet; empty where nobody asked.
    text_rows: deque[int] = field(default_factory=deque)
    queue_position: int = 0
    parked_state: list[torch.Tensor] | None = None

    @property
    def over(self) -> bool:
        """Whether its last row has been decoded."""
        return self.state.audio_complete or self.state.finished or len(self.rows) >= self.max_rows


@dataclass(frozen=True, slots=True, eq=False)
class StepResult:
    """A frame: its codes (n_vq,) and audio (1920,); ``last`` of its audio block; the prompt row that it is about."""

    generation: Generation
    codes: list[int]
    audio: np.ndarray
    last: bool
    text_row: int | None


class Runner:
    """Owns the KV pool, the slots' tensors and the codec's stream pool; all allocated once.

    ``group_frames``: how many frames of a session may be turned to audio at once, where its listener can wait: the
    codec's weights are then read once for all of them. ``captured``: a step runs as one chain of operations of fixed
    sizes, on a GPU as graphs; else it does no more than the batch at hand needs, which on a CPU is less.
    """

    def __init__(
        self,
        model: DelayModel,
        codec: AudioCodec,
        *,
        n_blocks: int,
        n_slots: int,
        n_streams: int,
        max_sequence_rows: int,
        kv_dtype: torch.dtype,
        bf16_codec: bool,
        group_frames: int,
        captured: bool,
    ) -> None:
        if codec.config.n_codebooks < model.config.n_vq:
            raise ValueError(f"the codec has {codec.config.n_codebooks} codebooks, the model needs {model.config.n_vq}")
        self.model = model
        self.codec = codec
        # One block more than there is to give away: the decoder's own.
        self.pool = model.new_pool(n_blocks + 1, dtype=kv_dtype)
        self.streams: StreamPool = codec.stream_pool(n_streams, max_group_frames=group_frames, bf16_matrices=bf16_codec)
        max_rows = min(max_sequence_rows, n_blocks * self.pool.block_rows)
        self.decoder = SlotDecoder(model, self.pool, n_slots, max_rows)
        self._captured = CapturedStep(self.decoder, self.streams, n_slots) if captured else None
        self._group_frames = group_frames
        self._n_steps = 0
        # Audio of the step at hand, where the step has made it already.
        self._audio: dict[Generation, np.ndarray] = {}

    @torch.inference_mode()
    def prefill(self, g: Generation, n_rows: int) -> bool:
        """The next ``n_rows`` prompt rows, after the last of which a row can be drawn. False if numbers broke down."""
        device, start, request = self.model.device, g.n_prefilled_rows, g.request
        table = torch.tensor(g.lease.blocks, device=device)
        rows = request.prompt_rows[start : start + n_rows].to(device)
        last = start + n_rows == g.n_prompt_rows
        queries = self.model.new_queries(n_rows) if last and self._is_followed(g) else None
        hidden = self.model.prefill(rows, self.pool, table, start, queries)
        if last:
            self.decoder.open(
                g.slot,
                request.prompt_rows,
                g.lease.blocks,
                hidden[-1],
                request.sampling,
                request.seed,
                max_rows=request.max_rows,
                known_codes=request.known_codes,
                query=None if queries is None else queries[-1],
            )
            self._follow(g)
        return bool(torch.isfinite(hidden).all())

    def park(self, g: Generation) -> None:
        """Save what a generation keeps in its slot, which is about to be another's."""
        g.parked_state = self.decoder.save(g.slot)

    def resume(self, g: Generation) -> None:
        """Set up a parked generation's new slot as its old one was."""
        assert g.parked_state is not None
        self.decoder.load(g.slot, g.parked_state)
        g.parked_state = None
        self._follow(g)

    @torch.inference_mode()
    def sample(self, batch: Sequence[Generation]) -> tuple[list[Generation], list[Generation]]:
        """Draw the next row of each generation; returns those that got one, and those whose numbers broke down."""
        slots = [g.slot for g in batch]
        followed = [g for g in batch if self._is_followed(g)]
        followed_slots = [g.slot for g in followed]
        if self._captured is None:
            drawn = self.decoder.draw(torch.tensor(slots, device=self.model.device))
            rows, sound = drawn.rows.tolist(), drawn.sound.tolist()
            offsets = self.decoder.text_offsets(followed_slots).tolist() if followed else []
        else:
            step = self._captured.run(slots, [self._place(g.stream) for g in batch], followed_slots)
            rows, sound, offsets = step.rows.tolist(), step.sound.tolist(), step.text_offsets.tolist()
            self._audio = dict(zip(batch, step.audio, strict=True))
        for g, offset in zip(followed, offsets, strict=True):
            assert g.request.text_rows is not None
            g.text_rows.append(g.request.text_rows[0] + offset)
        for g, row, ok in zip(batch, rows, sound, strict=True):
            if ok:
                g.rows.append(row)
                g.state.advance(row[0])
        sampled = [g for g, ok in zip(batch, sound, strict=True) if ok]
        return sampled, [g for g, ok in zip(batch, sound, strict=True) if not ok]

    @torch.inference_mode()
    def frames(self, batch: Sequence[Generation], can_wait: Callable[[Generation], bool]) -> list[StepResult]:
        """The frames that the newest rows complete, as audio; those of listeners who can wait, a few at a time."""
        self._n_steps += 1
        # All who wait are served in the same step, so that they share a call.
        is_group_step = self._n_steps % self._group_frames == 0
        by_count: dict[int, list[Generation]] = {}
        for g in batch:
            frame = g.assembler.push(g.rows[-1][1:])
            if frame is not None:
                g.held_frames.append(frame)
            count = len(g.held_frames)
            if count and (is_group_step or count == self._group_frames or g.over or not can_wait(g)):
                by_count.setdefault(count, []).append(g)
        return [result for group in by_count.values() for result in self._to_audio(group)]

    def _to_audio(self, batch: Sequence[Generation]) -> list[StepResult]:
        """The held frames of sessions that hold equally many."""
        if self._captured is None:
            codes = torch.tensor([g.held_frames for g in batch], device=self.model.device)
            samples = self.streams.push([self._place(g.stream) for g in batch], codes).cpu().numpy()
        else:
            samples = np.stack([self._audio.pop(g) for g in batch])
        results = []
        for g, audio in zip(batch, samples.reshape(len(batch), -1, self.streams.frame_samples), strict=True):
            held, g.held_frames = g.held_frames, []
            for i, (frame, each) in enumerate(zip(held, audio, strict=True)):
                last = g.state.audio_complete and i == len(held) - 1
                # Frame f began in row f, so both come in the same order.
                results.append(StepResult(g, frame, each, last, g.text_rows.popleft() if g.text_rows else None))
        return results

    @torch.inference_mode()
    def forward(self, batch: Sequence[Generation]) -> None:
        """Run the newest row of each generation through the model, so that the next can be drawn."""
        if self._captured is not None:
            return  # under way since the rows were drawn
        longest = max(g.n_prompt_rows + len(g.rows) for g in batch)
        slots = torch.tensor([g.slot for g in batch], device=self.model.device)
        # On a GPU the order of sums hangs on the tables' width, which must not hang on the company.
        n_blocks = -(-longest // self.pool.block_rows) if self.model.device.type == "cpu" else None
        self.decoder.forward(slots, n_blocks)

    def close_stream(self, stream: CodecStreamHandle) -> None:
        """Give the stream's place back, if it ever took one."""
        if stream.place is not None:
            self.streams.close(stream.place)
            stream.place = None

    def _is_followed(self, g: Generation) -> bool:
        return g.request.text_rows is not None and bool(self.model.config.alignment_heads)

    def _follow(self, g: Generation) -> None:
        if g.request.text_rows is not None and self._is_followed(g):
            self.decoder.follow(g.slot, g.lease.blocks, g.request.text_rows)

    def _place(self, stream: CodecStreamHandle) -> int:
        if stream.place is None:
            stream.place = self.streams.open()
        return stream.place
