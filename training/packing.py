"""Batches: several samples side by side in each sequence, kept apart by the attention mask."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from typing import Protocol

import torch

from training.samples import Sample

_MISSES_TO_CLOSE = 12


class DrawsSamples(Protocol):
    """What a batch is filled from: :class:`training.samples.SampleMaker`."""

    def draw(self, rng: random.Random) -> Sample: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """B sequences of L rows. positions, documents: (B, L), documents 0 where nothing is; the rest as in
    :class:`~training.samples.Sample`, with a first dimension B and ``guide`` counted in the sequence's rows."""

    rows: torch.Tensor
    targets: torch.Tensor
    learned: torch.Tensor
    positions: torch.Tensor
    documents: torch.Tensor
    sounds: torch.Tensor
    guide: torch.Tensor
    guide_weights: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))

    @property
    def n_rows(self) -> int:
        """Rows that belong to a sample."""
        return int((self.documents > 0).sum())


def draw_batch(
    maker: DrawsSamples, rng: random.Random, n_sequences: int, n_rows: int, empty_row: torch.Tensor
) -> Batch:
    """Fill ``n_sequences`` of ``n_rows`` with samples; one that no longer fits is left out. empty_row: (1 + n_vq,)."""
    shape = (n_sequences, n_rows)
    rows = empty_row.repeat(*shape, 1)
    batch = Batch(
        rows=rows,
        targets=rows.clone(),
        learned=torch.zeros(rows.shape, dtype=torch.bool),
        positions=torch.zeros(shape, dtype=torch.int64),
        documents=torch.zeros(shape, dtype=torch.int64),
        sounds=torch.full(shape, -1),
        guide=torch.zeros(*shape, 2, dtype=torch.int64),
        guide_weights=torch.zeros(*shape, 2),
    )
    for sequence in range(n_sequences):
        begin = document = misses = 0
        while misses < _MISSES_TO_CLOSE:
            sample = maker.draw(rng)
            end = begin + len(sample.rows)
            if end > n_rows:
                misses += 1
                continue
            document += 1
            for name in ("rows", "targets", "learned", "sounds", "guide_weights"):
                getattr(batch, name)[sequence, begin:end] = getattr(sample, name)
            batch.guide[sequence, begin:end] = sample.guide + begin
            batch.positions[sequence, begin:end] = torch.arange(end - begin)
            batch.documents[sequence, begin:end] = document
            begin = end
    return batch
