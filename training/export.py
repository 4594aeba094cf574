"""``python -m training.export --run DIR --out DIR``: the run's network as a checkpoint in the published format.

Half precision, the published tensor names; config, generation settings and tokenizer are those of the checkpoint that
the run started from. The result is loaded by the server's own strict loader before the command says it is done.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from streamer.models import DelayModel
from training.train_lm import MODEL, STATE

_SETTINGS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the checkpoint and check that it loads."""
    options = _parser().parse_args(arguments)
    state = torch.load(options.run / STATE, map_location="cpu", weights_only=True)
    export(state["network"], options.model, options.out)
    size_mb = (options.out / "model.safetensors").stat().st_size / 1e6
    print(f"{options.out}: step {state['step']}, {size_mb:.1f} MB")
    return 0


def export(network: Mapping[str, torch.Tensor], model: Path, out: Path) -> None:
    """Write the tensors with the settings of ``model``; CheckpointError where the server could not load them."""
    out.mkdir(parents=True, exist_ok=True)
    for name in _SETTINGS:
        if (model / name).resolve() != (out / name).resolve():
            shutil.copyfile(model / name, out / name)
    half = {name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in network.items()}
    save_file(half, out / "model.safetensors", metadata={"format": "pt"})
    DelayModel.from_pretrained(out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.export", description="Export a run as a checkpoint.")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder of training.train_lm")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoint folder to write")
    parser.add_argument("--model", type=Path, default=MODEL, help="checkpoint that the run started from")
    return parser


if __name__ == "__main__":
    sys.exit(main())
