"""Decoding a row for each of many sequences at once, with all their state on the device.

Every sequence has a slot; a step names slots and nothing else, so it is the same chain of operations on the same
tensors each time: no value goes back to the host within it, and it can be captured as a graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from streamer.models.alignment import AlignmentReader
from streamer.models.config import SamplingParams
from streamer.models.delay import DelayState
from streamer.models.delay_model import DelayModel
from streamer.models.qwen3 import KVPool
from streamer_kernels import DelaySlots, SamplingSlots, advance_delay, plan_rows, sample_codes, sample_text


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a step drew for B slots, on the device.

    rows: (B, 1+n_vq) int64; frames: (B, n_vq) int64, the frame that the row completes, else pad codes; flags:
    (B,) int64, as ``advance_delay`` gives them; sound: (B,) bool, False where the numbers had broken down (NaN or
    infinity) before the draw.
    """

    rows: torch.Tensor
    frames: torch.Tensor
    flags: torch.Tensor
    sound: torch.Tensor


class SlotDecoder:
    """``n_slots`` slots and one more, ``padding``, which fills up a batch: it may be named any number of times.

    max_rows: the longest sequence, prompt included. The pool's last block is the padding slot's own. One thread at a
    time.
    """

    def __init__(self, model: DelayModel, pool: KVPool, n_slots: int, max_rows: int) -> None:
        self.model = model
        self.pool = pool
        self.padding = n_slots
        c, device = model.config, model.device
        total, n_ids = n_slots + 1, c.audio_vocab_size + 1
        self._pair = torch.tensor((c.audio_assistant_gen_slot_token_id, c.audio_assistant_delay_slot_token_id))
        self._pair = self._pair.to(device)
        self._sampling = SamplingSlots.allocate(total, c.n_vq, n_ids, device)
        self._delay = DelaySlots.allocate(total, c.n_vq, device)
        self._hidden = torch.zeros(total, c.language.hidden_size, dtype=model.dtype, device=device)
        self._rows = torch.full((total, 1 + c.n_vq), c.audio_pad_code, device=device)
        self._rows[:, 0] = c.audio_assistant_gen_slot_token_id
        # Of the alignment heads, at the row from which the next is drawn.
        self._queries = model.new_queries(total)
        heads = c.alignment_heads
        self._reader = AlignmentReader(c.language, heads, pool, n_slots, model.dtype) if heads else None
        # The next row's number in its sequence.
        self._position = torch.zeros(total, dtype=torch.int64, device=device)
        # Codes that the first rows must hold, -1 where they are to be drawn.
        self._known = torch.full((total, c.n_vq, c.n_vq), -1, device=device)
        n_blocks = -(-max_rows // pool.block_rows)
        self._tables = torch.zeros(total, n_blocks, dtype=torch.int64, device=device)
        self._tables[self.padding] = pool.n_blocks - 1
        self._delay.audio_length[self.padding] = 1
        self._delay.delayed_length[self.padding] = -1
        self._delay.tail_at[self.padding] = torch.iinfo(torch.int64).max
        # Everything that belongs to a slot, for moving a sequence to another.
        self._state = [
            *(getattr(self._sampling, f.name) for f in fields(self._sampling)),
            *(getattr(self._delay, f.name) for f in fields(self._delay)),
            *(self._hidden, self._queries, self._rows, self._position, self._known, self._tables),
        ]

    @torch.inference_mode()
    def open(
        self,
        slot: int,
        prompt_rows: torch.Tensor,
        blocks: Sequence[int],
        hidden: torch.Tensor,
        sampling: SamplingParams,
        seed: int,
        *,
        max_rows: int,
        known_codes: torch.Tensor | None = None,
        query: torch.Tensor | None = None,
    ) -> None:
        """Give a slot to a sequence whose prompt (P, 1+n_vq) int64 was prefilled into ``blocks``.

        hidden: (hidden_size,), of the prompt's last row. ``max_rows`` bounds the new rows, the tail included.
        known_codes: (rows, n_vq) int64, rows <= n_vq, -1 where a code is to be drawn. The prompt must end inside audio.
        query: (heads, head_dim), the alignment heads' at the prompt's last row, for a slot that will be followed.
        """
        c = self.model.config
        state = DelayState.after_prompt(c, prompt_rows[:, 0].tolist())
        if not state.is_audio:
            raise ValueError("prompt_rows: the prompt must end in audio_start or in a generation slot")
        self._set_sampling(slot, sampling, seed, prompt_rows[:, 1:].to(self._rows.device))
        d = self._delay
        for tensor, value in (
            (d.audio_length, state.audio_length),
            (d.delayed_length, -1),
            (d.step, 0),
            # The tail takes n_vq rows.
            (d.tail_at, max_rows - c.n_vq),
            (self._position, len(prompt_rows)),
        ):
            tensor[slot] = value
        self._hidden[slot] = hidden
        if query is not None:
            self._queries[slot] = query
        self._known[slot] = -1
        if known_codes is not None:
            self._known[slot, : len(known_codes)] = known_codes.to(self._known.device)
        self._set_table(slot, blocks)

    def follow(self, slot: int, blocks: Sequence[int], text_rows: tuple[int, int]) -> None:
        """Let :meth:`text_offsets` say where in rows ``text_rows`` (begin, end) of its prompt a slot's voice is.

        For models that declare alignment heads. To be called again when the sequence has moved to another slot.
        """
        assert self._reader is not None
        self._reader.follow(slot, blocks, text_rows)

    @torch.inference_mode()
    def text_offsets(self, slots: Sequence[int]) -> torch.Tensor:
        """(A,) int64 on the device: which of its text rows, from 0, each followed slot's next row is about.

        To be called before :meth:`forward` runs that row, before or after it is drawn.
        """
        assert self._reader is not None
        return self._reader.read(slots, self._queries)

    @torch.inference_mode()
    def save(self, slot: int) -> list[torch.Tensor]:
        """A copy of all that a slot holds, so that another sequence can have it."""
        return [tensor[slot].clone() for tensor in self._state]

    @torch.inference_mode()
    def load(self, slot: int, saved: Sequence[torch.Tensor]) -> None:
        """Put a sequence that was saved into a slot, this or another."""
        for tensor, value in zip(self._state, saved, strict=True):
            tensor[slot] = value

    @torch.inference_mode()
    def draw(self, slots: torch.Tensor) -> Drawn:
        """Draw the next row of B slots (B,) int64, distinct but for ``padding``."""
        c, model = self.model.config, self.model
        delay_slot, audio_end = c.audio_assistant_delay_slot_token_id, c.audio_end_token_id
        hidden = self._hidden[slots]
        step = self._delay.step[slots]
        forced, first, end = plan_rows(slots, self._delay, c.n_vq, delay_slot, audio_end)
        text_ids = sample_text(hidden, model.pair_head, self._pair, slots, self._sampling, step, forced)
        known = self._known[slots, step.clamp(max=c.n_vq - 1)].masked_fill((step >= c.n_vq)[:, None], -1)
        codes = sample_codes(model.audio_logits(hidden), slots, self._sampling, step, first, end, known)
        rows = torch.cat((text_ids[:, None], codes), dim=1)
        frames, flags = advance_delay(rows, slots, self._delay, c.audio_pad_code, delay_slot, audio_end)
        self._rows[slots] = rows
        return Drawn(rows, frames, flags, torch.isfinite(hidden).all(-1))

    @torch.inference_mode()
    def forward(self, slots: torch.Tensor, n_blocks: int | None = None) -> None:
        """Run the newest row of B slots through the layers, so that the next can be drawn.

        ``n_blocks``: how many blocks of a table the longest of them needs, None for all.
        """
        position, rows, tables = self._position[slots], self._rows[slots], self._tables[slots, :n_blocks]
        queries = None if self._reader is None else self.model.new_queries(len(slots))
        self._hidden[slots] = self.model.decode(rows, self.pool, tables, position, queries)
        if queries is not None:
            self._queries[slots] = queries
        self._position[slots] = position + 1
        # The padding slot decodes its first row for ever.
        self._position[self.padding] = 0

    def _set_sampling(self, slot: int, sampling: SamplingParams, seed: int, codes: torch.Tensor) -> None:
        s = self._sampling
        for settings, text, audio in (
            (s.temperature, sampling.text_temperature, sampling.audio_temperature),
            (s.top_p, sampling.text_top_p, sampling.audio_top_p),
            (s.top_k, sampling.text_top_k, sampling.audio_top_k),
        ):
            settings[slot, 0] = text
            settings[slot, 1:] = audio
        s.penalty[slot] = sampling.audio_repetition_penalty
        s.seed[slot] = seed
        each = torch.arange(codes.shape[1], device=codes.device)
        s.history_of[slot] = each if sampling.per_codebook_history else each.clamp(max=1)
        s.history[slot] = False
        s.history[slot, s.history_of[slot].expand(len(codes), -1), codes] = True

    def _set_table(self, slot: int, blocks: Sequence[int]) -> None:
        # What is not read must be a valid block all the same.
        self._tables[slot] = self.pool.n_blocks - 1
        self._tables[slot, : len(blocks)] = torch.tensor(blocks, device=self._tables.device)
