"""What a batch is made of does not depend on how long a sample is."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
import torch

from training.packing import Batch, draw_batch
from training.samples import Sample

EMPTY_ROW = torch.tensor([256, *[1024] * 8])


@dataclass
class Lengths:
    """Samples of given lengths, over and over; all their cells hold the number of the sample's turn."""

    lengths: list[int]
    n_drawn: int = 0

    def draw(self, rng: random.Random) -> Sample:
        length = self.lengths[self.n_drawn % len(self.lengths)]
        self.n_drawn += 1
        rows = torch.full((length, 9), self.n_drawn)
        flags, ids = torch.ones(length, dtype=torch.bool), torch.full((length,), self.n_drawn)
        guide = torch.stack((torch.arange(length), torch.zeros(length, dtype=torch.int64)), 1)
        return Sample(rows, rows, rows > 0, flags, ids, ids, guide, torch.ones(length, 2))


def lengths_of(batch: Batch) -> list[int]:
    return sorted(int(n) for row in batch.documents for n in row.bincount()[1:])


def test_long_samples_have_their_share() -> None:
    # A sequence that is filled with whatever fits would hold nearly all of the short ones and few of the long ones.
    batch = draw_batch(Lengths([500, 60]), random.Random(0), 4, 640, EMPTY_ROW)
    assert lengths_of(batch) == [60] * 4 + [500] * 4


def test_a_sample_lies_whole_in_its_place() -> None:
    batch = draw_batch(Lengths([300, 200, 90]), random.Random(0), 2, 600, EMPTY_ROW)
    for sequence in range(2):
        for document in range(1, int(batch.documents[sequence].max()) + 1):
            inside = batch.documents[sequence] == document
            at = inside.nonzero().flatten()
            n = batch.sounds[sequence, at[0]]
            assert at.tolist() == list(range(int(at[0]), int(at[-1]) + 1))
            assert batch.positions[sequence, inside].tolist() == list(range(len(at)))
            assert torch.equal(batch.guide[sequence, inside, 0], at)
            for name in ("rows", "targets"):
                assert (getattr(batch, name)[sequence, inside] == n).all()
            assert (batch.speakers[sequence, inside] == n).all()
            assert batch.heavy[sequence, inside].all()
    nothing = batch.documents == 0
    assert torch.equal(batch.rows[nothing], EMPTY_ROW.expand(int(nothing.sum()), 9))
    assert not batch.learned[nothing].any()
    assert (batch.sounds[nothing] == -1).all()
    assert (batch.speakers[nothing] == 0).all()


def test_samples_too_long_for_any_sequence_are_left_out() -> None:
    assert set(lengths_of(draw_batch(Lengths([700, 100]), random.Random(0), 2, 300, EMPTY_ROW))) == {100}
    with pytest.raises(ValueError, match="rows is 300: 101 samples were drawn, and each of them is longer"):
        draw_batch(Lengths([301]), random.Random(0), 2, 300, EMPTY_ROW)
