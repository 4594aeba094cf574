"""Batches: several samples side by side in each sequence, kept apart by the attention mask."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

import torch

from training.samples import Sample

_MISSES_TO_CLOSE = 3


class DrawsSamples(Protocol):
    """What a batch is filled from: :class:`training.samples.SampleMaker`."""

    def draw(self, rng: random.Random) -> Sample: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """B sequences of L rows. rows: (B, L, 1 + n_vq); positions, documents: (B, L), documents 0 where nothing is;
    learned: (B, L, 1 + n_vq) bool, as in :class:`~training.samples.Sample`."""

    rows: torch.Tensor
    positions: torch.Tensor
    documents: torch.Tensor
    learned: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(*(t.to(device) for t in (self.rows, self.positions, self.documents, self.learned)))

    @property
    def n_rows(self) -> int:
        """Rows that belong to a sample."""
        return int((self.documents > 0).sum())


def draw_batch(
    maker: DrawsSamples, rng: random.Random, n_sequences: int, n_rows: int, empty_row: torch.Tensor
) -> Batch:
    """Fill ``n_sequences`` of ``n_rows`` with samples; one that no longer fits is left out. empty_row: (1 + n_vq,)."""
    rows = empty_row.repeat(n_sequences, n_rows, 1)
    positions = torch.zeros(n_sequences, n_rows, dtype=torch.int64)
    documents = torch.zeros(n_sequences, n_rows, dtype=torch.int64)
    learned = torch.zeros(rows.shape, dtype=torch.bool)
    for sequence in range(n_sequences):
        begin = document = misses = 0
        while misses < _MISSES_TO_CLOSE:
            sample = maker.draw(rng)
            end = begin + len(sample.rows)
            if end > n_rows:
                misses += 1
                continue
            document += 1
            rows[sequence, begin:end] = sample.rows
            learned[sequence, begin:end] = sample.learned
            positions[sequence, begin:end] = torch.arange(end - begin)
            documents[sequence, begin:end] = document
            begin = end
    return Batch(rows, positions, documents, learned)
