"""``python -m training.average --models DIR DIR ... --out DIR``: the mean of checkpoints' weights, as a checkpoint.

Runs that went on from one checkpoint end so near each other that the mean of their weights is a good model, too, and
often a better one on what none of them was trained on ("model soups", Wortsman et al., 2022).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from streamer.checkpoint import CheckpointError
from training.export import export


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the mean with the settings of the first, and check that it loads."""
    parser = _parser()
    options = parser.parse_args(arguments)
    shares = options.shares or [1.0] * len(options.models)
    if len(shares) != len(options.models) or min(shares) <= 0:
        parser.error("--shares: one number above 0 for each of --models is expected")
    try:
        export(average(options.models, shares), options.models[0], options.out)
    except CheckpointError as error:
        print(f"average: {error}", file=sys.stderr)
        return 2
    return 0


def average(models: Sequence[Path], shares: Sequence[float]) -> dict[str, torch.Tensor]:
    """The float32 tensors of several checkpoints, weighed by ``shares``; CheckpointError where one has others."""
    first, *others = [_load(model) for model in models]
    for model, tensors in zip(models[1:], others, strict=True):
        for name in sorted(first.keys() | tensors.keys()):
            if name not in first or name not in tensors or first[name].shape != tensors[name].shape:
                raise CheckpointError(f"{model}: tensor {name!r} is not of the same shape in {models[0]}")
    parts = list(zip((first, *others), (share / sum(shares) for share in shares), strict=True))
    return {name: torch.stack([t[name].float() * share for t, share in parts]).sum(0) for name in first}


def _load(model: Path) -> dict[str, torch.Tensor]:
    path = model / "model.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    return load_file(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.average", description="Average checkpoints.")
    parser.add_argument("--models", type=Path, nargs="+", required=True, metavar="DIR", help="checkpoints to average")
    parser.add_argument("--shares", type=float, nargs="+", help="how much each counts (default: all alike)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoint folder to write")
    return parser


if __name__ == "__main__":
    sys.exit(main())
