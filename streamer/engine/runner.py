"""The device side of the engine: prefill, the batched decode step, and the codec. One thread calls it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from streamer.codec import AudioCodec, StreamPool
from streamer.engine.events import GenerationRequest, Sink
from streamer.engine.scheduler import ScheduledSequence
from streamer.models import DelayModel, DelayState, FrameAssembler, RowSampler, SequenceView


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
    queue_position: int = 0
    parked_hidden: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class StepResult:
    """What one decoded row brought a generation: a frame's codes (n_vq,) and audio (1920,), or nothing."""

    generation: Generation
    codes: list[int] | None
    audio: np.ndarray | None


class Runner:
    """Owns the KV pool, the slots' tensors and the codec's stream pool; all allocated once."""

    def __init__(self, model: DelayModel, codec: AudioCodec, *, n_blocks: int, n_slots: int, n_streams: int) -> None:
        if codec.config.n_codebooks < model.config.n_vq:
            raise ValueError(f"the codec has {codec.config.n_codebooks} codebooks, the model needs {model.config.n_vq}")
        self.model = model
        self.codec = codec
        self.pool = model.new_pool(n_blocks)
        self.streams: StreamPool = codec.stream_pool(n_streams)
        self._sampler = RowSampler(model, n_slots)
        hidden_size = model.config.language.hidden_size
        self._hidden = torch.zeros(n_slots, hidden_size, dtype=model.dtype, device=model.device)

    @torch.inference_mode()
    def prefill(self, g: Generation, n_rows: int) -> bool:
        """The next ``n_rows`` prompt rows, after the last of which a row can be drawn. False if numbers broke down."""
        device, start = self.model.device, g.n_prefilled_rows
        table = torch.tensor(g.lease.blocks, device=device)
        rows = g.request.prompt_rows[start : start + n_rows].to(device)
        hidden = self.model.prefill(rows, self.pool, table, start)
        if start + n_rows == g.n_prompt_rows:
            self._hidden[g.slot] = hidden[-1]
            self._sampler.open(g.slot, g.request.sampling, g.request.seed, g.request.prompt_rows.to(device))
        return bool(torch.isfinite(hidden).all())

    @torch.inference_mode()
    def park(self, g: Generation) -> None:
        """Save what a generation keeps in its slot, which is about to be another's."""
        g.parked_hidden = self._hidden[g.slot].clone()

    @torch.inference_mode()
    def resume(self, g: Generation) -> None:
        """Set up a parked generation's new slot as its old one was."""
        assert g.parked_hidden is not None
        self._hidden[g.slot] = g.parked_hidden
        g.parked_hidden = None
        rows = torch.cat((g.request.prompt_rows, torch.tensor(g.rows))).to(self.model.device)
        self._sampler.open(g.slot, g.request.sampling, g.request.seed, rows)

    @torch.inference_mode()
    def sample(self, batch: Sequence[Generation]) -> tuple[list[Generation], list[Generation]]:
        """Draw the next row of each generation; returns those that got one, and those whose numbers broke down."""
        hidden = self._hidden[[g.slot for g in batch]]
        sound = torch.isfinite(hidden).all(-1).tolist()
        broken = [g for g, ok in zip(batch, sound, strict=True) if not ok]
        if broken:
            batch = [g for g, ok in zip(batch, sound, strict=True) if ok]
            hidden = self._hidden[[g.slot for g in batch]]
        if batch:
            views = [SequenceView(g.slot, g.state, g.request.known_codes) for g in batch]
            for g, row in zip(batch, self._sampler.sample(hidden, views).tolist(), strict=True):
                g.rows.append(row)
                g.state.advance(row[0])
        return list(batch), broken

    @torch.inference_mode()
    def frames(self, batch: Sequence[Generation]) -> list[StepResult]:
        """The frames that the newest rows complete, decoded to audio in one call for all sessions."""
        codes = [g.assembler.push(g.rows[-1][1:]) for g in batch]
        ready = [i for i, frame in enumerate(codes) if frame is not None]
        audio: dict[int, np.ndarray] = {}
        if ready:
            places = [self._place(batch[i].stream) for i in ready]
            frames = torch.tensor([codes[i] for i in ready], device=self.model.device)
            audio = dict(zip(ready, self.streams.push(places, frames).float().cpu().numpy(), strict=True))
        return [StepResult(g, codes[i], audio.get(i)) for i, g in enumerate(batch)]

    @torch.inference_mode()
    def forward(self, batch: Sequence[Generation]) -> None:
        """Run the newest row of each generation through the model, so that the next can be drawn."""
        device = self.model.device
        newest = [g.n_prompt_rows + len(g.rows) - 1 for g in batch]
        n_blocks = max(newest) // self.pool.block_rows + 1
        # Padded with a block of its own: a masked row weighs nothing, but 0 x NaN of a stranger's block is NaN.
        leases = [g.lease.blocks for g in batch]
        tables = torch.tensor([(own + own[:1] * n_blocks)[:n_blocks] for own in leases], device=device)
        positions = torch.tensor(newest, device=device)
        rows = torch.tensor([g.rows[-1] for g in batch], device=device)
        self._hidden[[g.slot for g in batch]] = self.model.decode(rows, self.pool, tables, positions)

    def close_stream(self, stream: CodecStreamHandle) -> None:
        """Give the stream's place back, if it ever took one."""
        if stream.place is not None:
            self.streams.close(stream.place)
            stream.place = None

    def _place(self, stream: CodecStreamHandle) -> int:
        if stream.place is None:
            stream.place = self.streams.open()
        return stream.place
