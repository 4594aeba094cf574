"""What fewer bits do to the model, measured."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from bench import formats


def test_distributions_are_compared_row_by_row() -> None:
    exact = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], [[0.9, 0.05, 0.05], [0.3, 0.4, 0.3]]]))
    assert formats.compare(exact, exact) == {"same_code_0": 1.0, "same_code_all": 1.0, "kl_nats": 0.0}
    other = exact.clone()
    other[0, 0] = torch.log(torch.tensor([0.25, 0.5, 0.25]))
    found = formats.compare(exact, other)
    assert found["same_code_0"] == 0.5
    assert found["same_code_all"] == 0.75
    # 0.5 ln 2 - 0.25 ln 2 in one of four.
    assert abs(found["kl_nats"] - 0.25 * 0.6931472 / 4) < 1e-6


def test_more_bits_move_less(tmp_path: Path) -> None:
    out = tmp_path / "formats.json"
    assert formats.main(["--turns", "2", "--json", str(out)]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))["formats"]
    assert found["bf16 weights"]["kl_nats"] < found["fp8 weights"]["kl_nats"] < 1
    assert found["fp8 keys and values"]["kl_nats"] > 0
    assert all(0 < figures["same_code_0"] <= 1 for figures in found.values())
