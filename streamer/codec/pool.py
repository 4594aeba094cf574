"""Many decode streams in one batch: a call advances the named streams by one frame, each at its own position.

Positions are kept on the device: a call is the same chain of operations each time, and can be captured as a graph.

Every layer holds a ring of keys and values per slot. A frame is S steps of a stage, and its queries reach
back ``context_steps`` positions, so a ring needs context_steps + S - 1 of them; rounded up to whole frames,
so that a frame overwrites one aligned piece and what it may see depends only on where in its lap it is.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from streamer.codec.config import CodecConfig, PatchConfig
from streamer.codec.errors import CodecInputError, StreamPoolFull
from streamer.codec.inputs import check_codes
from streamer.codec.quantizer import Quantizer
from streamer.codec.transformer import finish_layer, inverse_frequencies, project_qkv, rotation, unfold_steps
from streamer.codec.weights import CodecWeights, StageWeights

# Which part of the batch reads which slots: a slice is a view, an index a copy.
Runs = list[tuple[slice, slice | torch.Tensor]]


class StreamPool:
    """A fixed number of streams, all state allocated at construction. One thread at a time.

    Slots are numbers below ``capacity``; :meth:`open` gives the lowest free one, so that those in use stay
    together: the state of neighbours is read in place. One more slot, ``padding``, fills up batches of fixed size.
    ``max_group_frames``: how many frames of a stream one call may take.
    """

    def __init__(
        self,
        config: CodecConfig,
        weights: CodecWeights,
        quantizer: Quantizer,
        capacity: int,
        max_group_frames: int = 1,
    ) -> None:
        if capacity < 1:
            raise CodecInputError("codec_pool_capacity", f"capacity is {capacity}, expected at least 1")
        self.capacity = self.padding = capacity
        self._max_group_frames = max_group_frames
        self.frame_samples = config.frame_samples
        self._config = config
        self._quantizer = quantizer
        self._device = quantizer.device
        self._dtype = weights.dtype
        self._stages = [
            stage if isinstance(stage, PatchConfig) else _RingStage(stage, capacity + 1, max_group_frames)
            for stage in weights.decoder
        ]
        self._rings = [stage for stage in self._stages if isinstance(stage, _RingStage)]
        self._turns = _FrameRotation(self._rings)
        # On an accelerator one gather beats several launches a layer; on a CPU copying the rings costs more.
        self._max_runs = capacity if self._device.type == "cpu" else 1
        self._free = list(range(capacity))
        self._is_open = [False] * capacity
        # How many frames each stream has had.
        self._frames = torch.zeros(capacity + 1, dtype=torch.int64, device=self._device)

    @property
    def held(self) -> int:
        """Number of open slots."""
        return self.capacity - len(self._free)

    @torch.inference_mode()
    def open(self) -> int:
        """A slot for a new stream; :class:`StreamPoolFull` when there is none."""
        if not self._free:
            raise StreamPoolFull(self.capacity)
        slot = heapq.heappop(self._free)
        for ring in self._rings:
            # A masked key weighs nothing, but 0 x NaN is NaN: no trace of the last owner may stay.
            ring.cache[:, slot].zero_()
        self._frames[slot] = 0
        self._is_open[slot] = True
        return slot

    def close(self, slot: int) -> None:
        """Gives the slot back; closing a slot that is not open is an error."""
        self._check_open(slot)
        self._is_open[slot] = False
        heapq.heappush(self._free, slot)

    @torch.inference_mode()
    def push(self, slots: Sequence[int], codes: torch.Tensor) -> torch.Tensor:
        """One frame for each named slot: codes (B, k) -> samples (B, frame_samples) float32.

        Or as many frames F of each, codes (B, F, k) -> (B, F * frame_samples), F up to ``max_group_frames``. B may be
        anything from 0 to the capacity, the slots are distinct, and 1 <= k <= n_codebooks. Nothing advances when
        :class:`CodecInputError` is raised. The values of codes that are already on an accelerator are trusted, because
        looking at them would make the host wait.
        """
        n_frames = codes.shape[1] if codes.ndim == 3 else 1
        if not 1 <= n_frames <= self._max_group_frames:
            raise CodecInputError(
                "codec_codes_shape", f"{n_frames} frames a stream, expected 1 to {self._max_group_frames}"
            )
        flat = check_codes(codes.flatten(0, -2) if codes.ndim == 3 else codes, self._config, self._device)
        self._check_slots(slots, len(codes))
        if not slots:
            return torch.empty(0, n_frames * self._config.frame_samples, device=self._device)
        codes = flat.view(len(slots), n_frames, -1)
        order = sorted(range(len(slots)), key=slots.__getitem__)
        runs = consecutive_runs([slots[i] for i in order])
        if order == list(range(len(slots))) or len(runs) > self._max_runs:
            places = torch.tensor(slots, device=self._device)
            return self._advance(places, codes, runs if len(runs) <= self._max_runs else None)
        samples = torch.empty(len(slots), n_frames * self._config.frame_samples, device=self._device)
        places = torch.tensor([slots[i] for i in order], device=self._device)
        samples[order] = self._advance(places, codes[order], runs)
        return samples

    @torch.inference_mode()
    def push_at(self, places: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """One frame each, without a look at the values: places (B,) int64 on the device, open slots or ``padding``.

        Open slots are distinct; ``padding`` may be named any number of times, with any codes that exist.
        """
        return self._advance(places, codes[:, None], None)

    def _advance(self, places: torch.Tensor, codes: torch.Tensor, runs: Runs | None) -> torch.Tensor:
        """The frames (B, F, k) of each stream. ``runs``: which slots lie side by side, None for not known."""
        n_streams, n_frames, _ = codes.shape
        frames = self._frames[places]
        self._frames[places] = frames + n_frames
        runs = [(slice(None), places)] if runs is None else runs
        if n_frames > 1:
            frames = (frames[:, None] + torch.arange(n_frames, device=self._device)).flatten()
            places = places.repeat_interleave(n_frames)
        turns = iter(self._turns.at(frames))
        x = self._quantizer.decode(codes.flatten(0, 1)).to(self._dtype)
        for stage in self._stages:
            if isinstance(stage, PatchConfig):
                x = unfold_steps(x, stage.size)
            else:
                x = stage.run(x, runs, stage.plan(places, frames), next(turns), n_streams)
        return x.view(n_streams, -1).float()

    def _check_slots(self, slots: Sequence[int], n_codes: int) -> None:
        if len(slots) != n_codes:
            raise CodecInputError("codec_codes_shape", f"{len(slots)} slots were named with codes for {n_codes}")
        if len(set(slots)) != len(slots):
            raise CodecInputError("codec_slot_repeated", f"a slot is named twice in {list(slots)}")
        for slot in slots:
            self._check_open(slot)

    def _check_open(self, slot: int) -> None:
        if not (0 <= slot < self.capacity and self._is_open[slot]):
            raise CodecInputError("codec_slot_not_open", f"slot {slot} is not open")


class _RingStage:
    """A transformer stage with the rings of all slots."""

    def __init__(self, weights: StageWeights, capacity: int, max_group_frames: int) -> None:
        config, sample = weights.config, weights.layers[0].norm1_weight
        self._weights = weights
        self.config = config
        self.device = sample.device
        steps = config.steps_per_frame
        # All frames of a group are written before the first of them looks back.
        self._lap_frames = -(-(config.context_steps + steps - 1) // steps) + max_group_frames - 1
        # (layers, slots, ring positions, key or value, heads, head_dim)
        shape = (config.n_layers, capacity, self._lap_frames * steps, 2, config.n_heads, config.head_dim)
        self.cache = sample.new_zeros(shape)
        # Views made once per layer because making them costs time: one to write, (slots * lap_frames, steps,
        # 2, heads, head_dim), and two to read keys and values, (slots, heads, positions, head_dim).
        pieces = self.cache.view(config.n_layers, capacity * self._lap_frames, steps, *shape[3:])
        keys, values = self.cache.transpose(2, 4).unbind(3)
        self._layers = list(zip(weights.layers, pieces, keys, values, strict=True))
        self._bias = ring_bias(steps, self._lap_frames, config.context_steps, sample)

    def plan(self, places: torch.Tensor, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For each frame (N,) the ring piece that it goes to, and the row of the bias table."""
        lap = self._lap_frames
        piece = frames % lap
        return places * lap + piece, torch.where(frames < lap, frames, lap + piece)

    def run(
        self,
        x: torch.Tensor,
        runs: Runs,
        plan: tuple[torch.Tensor, torch.Tensor],
        turn: torch.Tensor,
        n_streams: int,
    ) -> torch.Tensor:
        """(N * steps, input_dim) -> (N * steps, output_dim), the N frames those of one stream after another."""
        weights = self._weights
        piece_rows, bias_rows = plan
        bias = self._bias.index_select(0, bias_rows).view(n_streams, 1, -1, self._bias.shape[-1])
        x = x if weights.input_proj is None else torch.mm(x, weights.input_proj)
        for layer, pieces, keys, values in self._layers:
            qkv = project_qkv(layer, x, turn, self.config.n_heads)
            pieces.index_copy_(0, piece_rows, qkv[:, :, 1:])
            query = qkv[:, :, 0].reshape(n_streams, -1, *qkv.shape[3:]).transpose(1, 2)
            attended = [
                F.scaled_dot_product_attention(query[batch], keys[held], values[held], attn_mask=bias[batch])
                for batch, held in runs
            ]
            x = finish_layer(layer, x, attended[0] if len(attended) == 1 else torch.cat(attended))
        return x if weights.output_proj is None else torch.mm(x, weights.output_proj)


class _FrameRotation:
    """RoPE of one frame for all stages in one go, instead of a handful of tiny operations for each."""

    def __init__(self, rings: Sequence[_RingStage]) -> None:
        configs = [ring.config for ring in rings]
        self._steps = [config.steps_per_frame for config in configs]
        self._pairs = [config.head_dim // 2 for config in configs]
        rows = []
        for ring, config in zip(rings, configs, strict=True):
            frequencies = inverse_frequencies(config.head_dim, config.max_period, ring.device)
            padded = F.pad(frequencies, (0, max(self._pairs) - len(frequencies)))
            rows.append(padded.expand(config.steps_per_frame, -1))
        self._frequencies = torch.cat(rows)
        device = self._frequencies.device
        self._stride = torch.cat([torch.full((steps,), steps, device=device) for steps in self._steps])
        self._offset = torch.cat([torch.arange(steps, device=device) for steps in self._steps])

    def at(self, frames: torch.Tensor) -> list[torch.Tensor]:
        """Frame numbers (B,) -> for each stage (B, steps, 1, 1, head_dim / 2) complex64."""
        positions = frames[:, None] * self._stride + self._offset
        turns = rotation(positions, self._frequencies).split(self._steps, dim=1)
        return [turn[..., :pairs] for turn, pairs in zip(turns, self._pairs, strict=True)]


def consecutive_runs(slots: Sequence[int]) -> Runs:
    """Ascending slots as runs without a gap."""
    starts = [i for i, slot in enumerate(slots) if i == 0 or slot != slots[i - 1] + 1]
    ends = [*starts[1:], len(slots)]
    return [(slice(a, b), slice(slots[a], slots[a] + b - a)) for a, b in zip(starts, ends, strict=True)]


def ring_bias(steps: int, lap_frames: int, context: int, like: torch.Tensor) -> torch.Tensor:
    """(2 * lap_frames, steps, lap_frames * steps): 0 where a query may look in its ring, else minus infinity.

    Row f < lap_frames is for frame f of a young stream, part of whose ring is unwritten; row lap_frames + f
    for any later frame that is f frames into its lap.
    """
    size = lap_frames * steps
    first = torch.arange(2 * lap_frames, device=like.device)[:, None, None] * steps
    query = first + torch.arange(steps, device=like.device)[:, None]
    last = first + steps - 1
    held = last - (last - torch.arange(size, device=like.device)) % size
    hidden = (held < 0) | (held > query) | (held <= query - context)
    return torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, float("-inf"))
