"""``python -m training.sizes --corpus DIR --work DIR``: what other sizes of language model would learn, and cost.

Each size starts from nothing and sees the same rows. Printed are its held-out losses, how fast it trains, and how fast
the engine speaks with it and the embedded codec, on as many threads as the command has. Short runs tell how quickly a
size learns, not where it would end.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from streamer.codec import AudioCodec
from streamer.engine import Engine, EngineConfig, EngineEvent, Finished, GenerationRequest
from streamer.models import DelayConfig, DelayModel, load_tokenizer
from training.codec_checkpoint import CODEC
from training.export import export
from training.network import ALIGNMENT_HEAD, DelayNetwork
from training.samples import CodedCorpus, SampleMaker
from training.train_lm import MODEL, TrainConfig, Trainer, run
from training.words import SoundTable

_HEAD_DIM, _FEEDFORWARD = 64, 2.75
_HELD_OUT_BATCHES = 4
_PROMPT_ROWS, _NEW_ROWS, _TURNS = 100, 200, 3
_FRAMES_PER_SECOND = 12.5


@dataclass(frozen=True, slots=True)
class Size:
    """Width and depth of a backbone whose heads have 64 dimensions."""

    width: int
    layers: int

    @classmethod
    def of(cls, text: str) -> Size:
        """``"256x6"``: width by layers. ArgumentTypeError for another form, or a size that can't be had."""
        form = re.fullmatch(r"(\d+)x(\d+)", text)
        if form is None or int(form[1]) % _HEAD_DIM or int(form[1]) == 0 or int(form[2]) <= ALIGNMENT_HEAD[0]:
            expected = f"a multiple of {_HEAD_DIM}, x, and more than {ALIGNMENT_HEAD[0]} layers"
            raise argparse.ArgumentTypeError(f"{text!r}, expected {expected}")
        return cls(int(form[1]), int(form[2]))

    def write(self, model: Path, folder: Path) -> None:
        """The settings of the checkpoint ``model``, but for the size, into ``folder``."""
        shutil.copytree(model, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors"))
        settings = json.loads((model / "config.json").read_text(encoding="utf-8"))
        heads = self.width // _HEAD_DIM
        settings["hidden_size"] = self.width
        settings["language_config"] |= {
            "hidden_size": self.width,
            "intermediate_size": int(_FEEDFORWARD * self.width),
            "num_hidden_layers": self.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": 1 if heads % 2 else 2,
            "head_dim": _HEAD_DIM,
        }
        (folder / "config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Learned:
    """``held_out``: nats of each codebook. ``times_real_time``: one turn, model and codec together."""

    parameters: int
    held_out: tuple[float, ...]
    rows_per_s: float
    times_real_time: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Try every size and print the table."""
    options = _parser().parse_args(arguments)
    table = Table("size", "parameters (M)", "codebook 0", "mean of all", "rows/s trained", "times real time")
    for size in options.sizes:
        learned = learn(size, options)
        table.add_row(
            f"{size.width} x {size.layers}",
            f"{learned.parameters / 1e6:.1f}",
            f"{learned.held_out[0]:.3f}",
            f"{sum(learned.held_out) / len(learned.held_out):.3f}",
            f"{learned.rows_per_s:.0f}",
            f"{learned.times_real_time:.1f}",
        )
    Console().print(table)
    return 0


def learn(size: Size, options: argparse.Namespace) -> Learned:
    """Train a fresh model of this size for ``options.steps`` steps and have the engine speak with it."""
    folder = options.work / f"{size.width}x{size.layers}"
    size.write(options.model, folder)
    config = DelayConfig.from_folder(folder)
    torch.manual_seed(options.seed)
    network = DelayNetwork(config)
    corpora = [CodedCorpus(options.corpus, config.n_vq, held_out=held_out) for held_out in (False, True)]
    sounds = SoundTable.of_corpus(options.corpus, corpora[0].words() | corpora[1].words())
    makers = [SampleMaker(load_tokenizer(folder), config, corpus, sounds) for corpus in corpora]
    train = TrainConfig(options.steps, options.learning_rate, options.sequences, options.rows, seed=options.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(network, train, sounds.n_sounds, device, compiled=options.compile)
    rows_per_s = run(trainer, makers[0], makers[1], sounds.sounds, folder, math.inf)
    unseen = [trainer.draw(makers[1], f"held out:{index}") for index in range(_HELD_OUT_BATCHES)]
    losses = trainer.measure(unseen, "held_out")
    export(network.state_dict(), folder, folder)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    held_out = tuple(losses[f"held_out{book}"] for book in range(config.n_vq))
    return Learned(parameters, held_out, rows_per_s, times_real_time(folder, options.codec))


def times_real_time(model_folder: Path, codec_folder: Path) -> float:
    """Seconds of audio that the engine makes in a second, of one turn at a time."""
    model, codec = DelayModel.from_pretrained(model_folder), AudioCodec.from_pretrained(codec_folder)
    config = EngineConfig(max_sessions=1, max_batch=1, max_unsent_frames=_NEW_ROWS, max_lead_s=None)
    engine = Engine(model, codec, config).start()
    stream = engine.open_stream()
    c = model.config
    prompt = torch.full((_PROMPT_ROWS, 1 + c.n_vq), c.audio_pad_code)
    prompt[:, 0] = c.audio_user_slot_token_id
    prompt[-1, 0] = c.audio_start_token_id
    over = threading.Event()
    n_rows = 0

    def take(event: EngineEvent) -> None:
        nonlocal n_rows
        if isinstance(event, Finished):
            n_rows += len(event.rows)
            over.set()

    try:
        began_s = 0.0
        for turn in range(1 + _TURNS):
            if turn == 1:
                n_rows, began_s = 0, time.perf_counter()
            over.clear()
            request = GenerationRequest(prompt, model.default_sampling, seed=turn, max_rows=_NEW_ROWS)
            engine.submit(request, stream, take)
            over.wait()
        return n_rows / _FRAMES_PER_SECOND / (time.perf_counter() - began_s)
    finally:
        engine.close_stream(stream)
        engine.stop()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.sizes", description="Compare sizes of language model.")
    parser.add_argument("--corpus", type=Path, required=True, metavar="DIR", help="folder with codes")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where the checkpoints go")
    sizes = [Size(128, 6), Size(192, 6), Size(256, 4), Size(256, 6), Size(256, 8), Size(384, 6)]
    parser.add_argument("--sizes", type=Size.of, nargs="+", default=sizes, metavar="WIDTHxLAYERS")
    parser.add_argument("--steps", type=int, default=250, help="of each size")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--sequences", type=int, default=5, help="sequences a step")
    parser.add_argument("--rows", type=int, default=1024, help="rows of a sequence")
    parser.add_argument("--model", type=Path, default=MODEL, help="checkpoint that all else is taken from")
    parser.add_argument("--codec", type=Path, default=CODEC)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="torch.compile")
    return parser


if __name__ == "__main__":
    sys.exit(main())
