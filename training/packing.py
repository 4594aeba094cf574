"""Batches: several samples side by side in each sequence, kept apart by the attention mask."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from typing import Protocol

import torch

from training.samples import Sample

_MOST_TOO_LONG = 100


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
    heavy: torch.Tensor
    positions: torch.Tensor
    documents: torch.Tensor
    sounds: torch.Tensor
    speakers: torch.Tensor
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
    """Samples for ``n_sequences`` of ``n_rows``: the longest go first, each into the first sequence that has room.

    What finds no room, mostly short ones, is left out; so are samples too long for any. empty_row: (1 + n_vq,).
    ValueError where all are.
    """
    shape = (n_sequences, n_rows)
    rows = empty_row.repeat(*shape, 1)
    batch = Batch(
        rows=rows,
        targets=rows.clone(),
        learned=torch.zeros(rows.shape, dtype=torch.bool),
        heavy=torch.zeros(shape, dtype=torch.bool),
        positions=torch.zeros(shape, dtype=torch.int64),
        documents=torch.zeros(shape, dtype=torch.int64),
        sounds=torch.full(shape, -1),
        speakers=torch.zeros(shape, dtype=torch.int64),
        guide=torch.zeros(*shape, 2, dtype=torch.int64),
        guide_weights=torch.zeros(*shape, 2),
    )
    samples: list[Sample] = []
    n_drawn = n_too_long = 0
    while n_drawn < n_sequences * n_rows:
        sample = maker.draw(rng)
        if len(sample.rows) <= n_rows:
            samples.append(sample)
            n_drawn += len(sample.rows)
        elif (n_too_long := n_too_long + 1) > _MOST_TOO_LONG and not samples:
            raise ValueError(f"rows is {n_rows}: {n_too_long} samples were drawn, and each of them is longer")
    ends, documents = [0] * n_sequences, [0] * n_sequences
    for sample in sorted(samples, key=lambda sample: -len(sample.rows)):
        length = len(sample.rows)
        sequence = next((i for i, end in enumerate(ends) if end + length <= n_rows), None)
        if sequence is None:
            continue
        begin = ends[sequence]
        end = ends[sequence] = begin + length
        documents[sequence] += 1
        for name in ("rows", "targets", "learned", "heavy", "sounds", "speakers", "guide_weights"):
            getattr(batch, name)[sequence, begin:end] = getattr(sample, name)
        batch.guide[sequence, begin:end] = sample.guide + begin
        batch.positions[sequence, begin:end] = torch.arange(length)
        batch.documents[sequence, begin:end] = documents[sequence]
    return batch
