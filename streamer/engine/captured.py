"""The decode step as graphs: captured once for each batch size, replayed with new slot numbers.

A step is three pieces: draw the next rows; decode the frames that they complete; run the rows through the model. The
host reads rows and audio by one copy, while the model's piece is still running. Batches are filled up to the next size
with the padding slot, so that there are few sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from streamer.codec import StreamPool
from streamer.models import SlotDecoder
from streamer_kernels import FRAME

_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_WARM_UPS = 2


@dataclass(frozen=True, slots=True, eq=False)
class HostStep:
    """What a step brought B sequences, on the host.

    rows: (B, 1+n_vq) int32; sound: (B,) bool, False where the numbers had broken down; audio: (B, samples) float32, to
    be read only where a row completed a frame; text_offsets: (A,) int64 for those that were ``followed``, as
    :meth:`SlotDecoder.text_offsets` has them.
    """

    rows: np.ndarray
    sound: np.ndarray
    audio: np.ndarray
    text_offsets: np.ndarray


@dataclass(slots=True, eq=False)
class _Batch:
    """The buffers of one batch size, and its pieces. Addresses never change: the graphs hold on to them."""

    slots: torch.Tensor
    places: torch.Tensor
    rows: torch.Tensor
    frames: torch.Tensor
    frame_places: torch.Tensor
    sound: torch.Tensor
    out: torch.Tensor
    host: torch.Tensor
    draw: Callable[[], None] = lambda: None
    codec: Callable[[], None] = lambda: None
    forward: Callable[[], None] = lambda: None


class CapturedStep:
    """Steps over a :class:`SlotDecoder` and a codec pool. On a CPU the same pieces run without graphs.

    ``overlap``: the codec runs beside the model, on a stream of its own. ``sizes``: the batch sizes to prepare,
    ascending, the last one ``max_batch``. One thread at a time.
    """

    def __init__(
        self,
        decoder: SlotDecoder,
        streams: StreamPool,
        max_batch: int,
        *,
        overlap: bool = True,
        sizes: Sequence[int] | None = None,
    ) -> None:
        self._decoder = decoder
        self._streams = streams
        self._device = decoder.model.device
        self._n_codes = decoder.model.config.audio_vocab_size
        self._on_cuda = self._device.type == "cuda"
        self._codec_stream = torch.cuda.Stream(self._device) if self._on_cuda and overlap else None
        self._memory = torch.cuda.graph_pool_handle() if self._on_cuda else None
        self._text_offsets = torch.zeros(max_batch, dtype=torch.int64, pin_memory=self._on_cuda)
        sizes = sizes or [size for size in _SIZES if size < max_batch] + [max_batch]
        # Largest first, so that the smaller ones find the memory of the larger.
        self._batches = {size: self._prepare(size) for size in reversed(sizes)}
        self._sizes = sizes

    @torch.inference_mode()
    def run(self, slots: Sequence[int], places: Sequence[int], followed: Sequence[int] = ()) -> HostStep:
        """One step: slot and codec place of each of B sequences. Returns before the model's piece is done.

        ``followed``: those of the slots whose place in their text is asked for.
        """
        count = len(slots)
        batch = self._batches[next(size for size in self._sizes if size >= count)]
        missing = len(batch.slots) - count
        names = torch.tensor(
            [[*slots, *[self._decoder.padding] * missing], [*places, *[self._streams.padding] * missing]]
        )
        batch.slots.copy_(names[0], non_blocking=True)
        batch.places.copy_(names[1], non_blocking=True)
        done = self._launch(batch, followed)
        if done is not None:
            done.synchronize()
        width = batch.rows.shape[1]
        host = batch.host[:count].numpy()
        ints = host[:, : width + 1].view(np.int32)
        offsets = self._text_offsets[: len(followed)].numpy().copy()
        return HostStep(ints[:, :width].copy(), ints[:, width].astype(bool), host[:, width + 1 :].copy(), offsets)

    def addresses(self) -> list[int]:
        """Where all buffers lie, which must stay the same for as long as the graphs live."""
        names = ("slots", "places", "rows", "frames", "frame_places", "sound", "out", "host")
        return [getattr(batch, name).data_ptr() for batch in self._batches.values() for name in names]

    def _launch(self, batch: _Batch, followed: Sequence[int]) -> torch.cuda.Event | None:
        """Put a step's work in order on the device; the event after which ``batch.host`` may be read."""
        if not self._on_cuda:
            batch.draw()
            self._read_text(followed)
            batch.codec()
            batch.host.copy_(batch.out)
            batch.forward()
            return None
        main = torch.cuda.current_stream(self._device)
        side = self._codec_stream or main
        batch.draw()
        self._read_text(followed)
        drawn, done = torch.cuda.Event(), torch.cuda.Event(blocking=True)
        drawn.record(main)
        with torch.cuda.stream(side):
            side.wait_event(drawn)
            batch.codec()
            batch.host.copy_(batch.out, non_blocking=True)
            done.record(side)
        batch.forward()
        # The next step writes what the codec reads.
        main.wait_event(done)
        return done

    @torch.inference_mode()
    def _prepare(self, size: int) -> _Batch:
        c, device = self._decoder.model.config, self._device
        width = 1 + c.n_vq
        out = torch.zeros(size, width + 1 + self._streams.frame_samples, device=device)
        batch = _Batch(
            slots=torch.full((size,), self._decoder.padding, device=device),
            places=torch.full((size,), self._streams.padding, device=device),
            rows=torch.zeros(size, width, dtype=torch.int64, device=device),
            frames=torch.zeros(size, c.n_vq, dtype=torch.int64, device=device),
            frame_places=torch.full((size,), self._streams.padding, device=device),
            sound=torch.zeros(size, dtype=torch.bool, device=device),
            out=out,
            host=torch.zeros(out.shape, pin_memory=self._on_cuda),
        )
        batch.draw = self._capture(lambda: self._draw(batch))
        batch.codec = self._capture(lambda: self._decode_frames(batch))
        batch.forward = self._capture(lambda: self._decoder.forward(batch.slots))
        return batch

    def _draw(self, batch: _Batch) -> None:
        drawn = self._decoder.draw(batch.slots)
        complete = (drawn.flags & FRAME) != 0
        batch.rows.copy_(drawn.rows)
        batch.sound.copy_(drawn.sound)
        batch.frame_places.copy_(torch.where(complete, batch.places, self._streams.padding))
        # Where there is no frame yet, the padding place decodes any code that exists.
        batch.frames.copy_(drawn.frames.clamp(max=self._n_codes - 1))

    def _read_text(self, followed: Sequence[int]) -> None:
        # Not part of a graph: what is not asked for costs nothing, and texts have any length.
        if followed:
            offsets = self._decoder.text_offsets(followed)
            self._text_offsets[: len(followed)].copy_(offsets, non_blocking=True)

    def _decode_frames(self, batch: _Batch) -> None:
        width = batch.rows.shape[1]
        # One copy to the host: the integers travel among the samples, bit for bit.
        ints = torch.cat((batch.rows, batch.sound[:, None]), 1).to(torch.int32)
        batch.out[:, : width + 1] = ints.view(torch.float32)
        batch.out[:, width + 1 :] = self._streams.push_at(batch.frame_places, batch.frames)

    def _capture(self, piece: Callable[[], None]) -> Callable[[], None]:
        """The piece as a graph; what it allocates while it is captured is the graph's own from then on."""
        if not self._on_cuda:
            return piece
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            # Kernels are compiled and libraries set up before, which a capture would not survive.
            for _ in range(_WARM_UPS):
                piece()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory):
            piece()
        return graph.replay
