"""Drawing the next row of each sequence of a batch: heads, exclusions, delay mask, history, known codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from streamer.models.config import SamplingParams
from streamer.models.delay import DelayState
from streamer_kernels import sample_rows

if TYPE_CHECKING:
    from streamer.models.delay_model import DelayModel


@dataclass(slots=True)
class SequenceView:
    """What the sampler needs of a sequence: its slot, its delay state, and codes that are known beforehand.

    ``known_codes``: (rows, n_vq) int64 for the first rows to come, -1 where a code is to be drawn; or None.
    """

    slot: int
    state: DelayState
    known_codes: torch.Tensor | None = None


class RowSampler:
    """Per-slot sampling settings and repetition histories on the model's device, allocated once."""

    def __init__(self, model: DelayModel, n_slots: int) -> None:
        self._model = model
        c, device = model.config, model.device
        heads = 1 + c.n_vq
        self._seen = torch.zeros(n_slots, c.n_vq, c.audio_vocab_size + 1, dtype=torch.bool, device=device)
        # Which history of its slot each codebook reads and writes.
        self._history = torch.zeros(n_slots, c.n_vq, dtype=torch.int64, device=device)
        self._temperature = torch.zeros(n_slots, heads, device=device)
        self._top_p = torch.ones(n_slots, heads, device=device)
        self._top_k = torch.zeros(n_slots, heads, dtype=torch.int64, device=device)
        self._penalty = torch.ones(n_slots, device=device)
        self._seed = torch.zeros(n_slots, dtype=torch.int64, device=device)
        self._heads = torch.arange(heads, device=device)

    def open(self, slot: int, sampling: SamplingParams, seed: int, prompt_rows: torch.Tensor) -> None:
        """Give a slot to a new sequence; the prompt's codes (P, 1+n_vq) are the beginning of its history."""
        s, n_vq = sampling, self._model.config.n_vq
        for settings, text, audio in (
            (self._temperature, s.text_temperature, s.audio_temperature),
            (self._top_p, s.text_top_p, s.audio_top_p),
            (self._top_k, s.text_top_k, s.audio_top_k),
        ):
            settings[slot, 0] = text
            settings[slot, 1:] = audio
        self._penalty[slot] = s.audio_repetition_penalty
        self._seed[slot] = seed
        each = torch.arange(n_vq, device=self._history.device)
        self._history[slot] = each if s.per_codebook_history else each.clamp(max=1)
        self._seen[slot] = False
        self._seen[slot, self._history[slot].expand(len(prompt_rows), -1), prompt_rows[:, 1:]] = True

    @torch.inference_mode()
    def sample(self, hidden: torch.Tensor, sequences: Sequence[SequenceView]) -> torch.Tensor:
        """The next row of each of B sequences. hidden: (B, hidden). Returns (B, 1+n_vq) int64 on the device."""
        device = hidden.device
        slots = torch.tensor([s.slot for s in sequences], device=device)
        steps = torch.tensor([s.state.step for s in sequences], device=device)
        text_ids = self._sample_text(hidden, sequences, slots, steps)
        codes = self._sample_audio(hidden, sequences, slots, steps)
        self._seen[slots[:, None], self._history[slots], codes] = True
        return torch.cat((text_ids[:, None], codes), dim=1)

    def _sample_text(
        self,
        hidden: torch.Tensor,
        sequences: Sequence[SequenceView],
        slots: torch.Tensor,
        steps: torch.Tensor,
    ) -> torch.Tensor:
        forced = [s.state.forced_text_id for s in sequences]
        ids = torch.tensor([-1 if f is None else f for f in forced], device=hidden.device)
        inside = [i for i, s in enumerate(sequences) if forced[i] is None and s.state.is_audio]
        outside = [i for i, s in enumerate(sequences) if forced[i] is None and not s.state.is_audio]
        c = self._model.config
        if inside:
            pair = (c.audio_assistant_gen_slot_token_id, c.audio_assistant_delay_slot_token_id)
            choices = torch.tensor(pair, device=hidden.device)
            logits = self._model.text_logits(hidden[inside], choices)
            first = [n for n, i in enumerate(inside) if len(sequences[i].state.allowed_in_audio) == 1]
            logits[first, 1] = -torch.inf
            ids[inside] = choices[self._draw(logits, slots[inside], steps[inside])]
        if outside:
            logits = self._model.text_logits(hidden[outside])
            for n, i in enumerate(outside):
                logits[n, list(sequences[i].state.excluded_outside_audio)] = -torch.inf
            ids[outside] = self._draw(logits, slots[outside], steps[outside])
        return ids

    def _draw(self, logits: torch.Tensor, slots: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        return sample_rows(
            logits,
            self._temperature[slots, 0],
            self._top_k[slots, 0],
            self._top_p[slots, 0],
            self._penalty[slots],
            None,
            self._seed[slots],
            steps,
            torch.zeros_like(steps),
        )

    def _sample_audio(
        self,
        hidden: torch.Tensor,
        sequences: Sequence[SequenceView],
        slots: torch.Tensor,
        steps: torch.Tensor,
    ) -> torch.Tensor:
        c = self._model.config
        batch, pad = len(sequences), c.audio_pad_code
        logits = self._model.audio_logits(hidden)
        drawn = sample_rows(
            logits.view(batch * c.n_vq, -1),
            self._temperature[slots, 1:].flatten(),
            self._top_k[slots, 1:].flatten(),
            self._top_p[slots, 1:].flatten(),
            self._penalty[slots].repeat_interleave(c.n_vq),
            self._seen[slots[:, None], self._history[slots]].flatten(0, 1),
            self._seed[slots].repeat_interleave(c.n_vq),
            steps.repeat_interleave(c.n_vq),
            self._heads[1:].repeat(batch),
        ).view(batch, c.n_vq)
        active = torch.zeros(batch, c.n_vq, dtype=torch.bool)
        for i, sequence in enumerate(sequences):
            books = sequence.state.active_codebooks
            active[i, books.start : books.stop] = True
        codes = torch.where(active.to(drawn.device), drawn, pad)
        for i, sequence in enumerate(sequences):
            known = sequence.known_codes
            if known is not None and sequence.state.step < len(known):
                row = known[sequence.state.step].to(drawn.device)
                codes[i] = torch.where(row >= 0, row, codes[i])
        return codes
