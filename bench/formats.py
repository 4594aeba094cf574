"""What fewer bits do to the model: ``python -m bench.formats``.

Turns of the held-out dialogues, decoded once as they are; then the same rows read again with weights, or keys and
values, in another format: how often the likeliest code stays the same, and how far the distributions move.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.machine import describe_machine
from bench.reference import ASSETS, Parts
from streamer.evaluation import HELD_OUT, read_dialogues
from streamer.models import BLOCK_ROWS, DelayModel
from streamer.models.linear import WeightFormat
from streamer.text import build_prompt

_FP8 = torch.float8_e4m3fn


@dataclass(frozen=True, slots=True)
class Format:
    """Weights, and keys and values, in some number of bits."""

    name: str
    weights: WeightFormat
    kv: torch.dtype | None


FORMATS = (
    Format("bf16 weights", "bf16", None),
    Format("fp8 weights", "fp8", None),
    Format("fp8 keys and values", "native", _FP8),
    Format("fp8 weights, keys and values", "fp8", _FP8),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a format."""
    parser = argparse.ArgumentParser(prog="python -m bench.formats", description=__doc__)
    parser.add_argument("--turns", type=int, default=24, help="turns to decode (default: 24)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the report")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    parts = Parts.load(None, None, torch.device("cpu"), torch.float32)
    samples = list(_decoded(parts, options.turns))
    exact = [_log_probabilities(parts.model, rows, begin, None) for rows, begin in samples]
    n_rows, found_by_name = sum(len(x) for x in exact), {}
    print(f"{n_rows} rows of {len(samples)} turns")
    print(f"{'':30}{'same likeliest code':>24}{'all books':>12}{'KL, nats':>10}")
    for form in FORMATS:
        model = DelayModel.from_pretrained(ASSETS / "model", weights=form.weights)
        found = [_log_probabilities(model, rows, begin, form.kv) for rows, begin in samples]
        figures = compare(torch.cat(exact), torch.cat(found))
        found_by_name[form.name] = figures
        print(
            f"{form.name:30}{figures['same_code_0']:>24.3f}{figures['same_code_all']:>12.3f}{figures['kl_nats']:>10.4f}"
        )
    report = {"machine": describe_machine(), "turns": len(samples), "rows": n_rows, "formats": found_by_name}
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def compare(exact: torch.Tensor, found: torch.Tensor) -> dict[str, float]:
    """Log-probabilities (rows, n_vq, codes) against each other: equal likeliest codes, Kullback-Leibler divergence."""
    same = (exact.argmax(-1) == found.argmax(-1)).float()
    divergence = (exact.exp() * (exact - found)).sum(-1)
    return {
        "same_code_0": float(same[:, 0].mean()),
        "same_code_all": float(same.mean()),
        "kl_nats": float(divergence.mean()),
    }


def _decoded(parts: Parts, n_turns: int) -> Iterator[tuple[torch.Tensor, int]]:
    """Rows of a prompt and its turn, and where the turn begins."""
    turns = [turn for dialogue in read_dialogues(HELD_OUT, ["any"]) for turn in dialogue.turns]
    config = parts.model.config
    for number, turn in enumerate(turns[:n_turns]):
        reference = parts.references[number % len(parts.references)]
        prompt = build_prompt(parts.tokenizer, config, f"[S1] {turn.text}", references=[reference])
        start = prompt.new_full((1, prompt.shape[1]), config.audio_pad_code)
        start[0, 0] = config.audio_start_token_id
        prompt = torch.cat((prompt, start))
        rows = parts.model.generate(prompt, seed=number, max_rows=160)
        yield torch.cat((prompt, rows)), len(prompt)


def _log_probabilities(model: DelayModel, rows: torch.Tensor, begin: int, kv: torch.dtype | None) -> torch.Tensor:
    """(R, n_vq, codes) of the rows from ``begin`` on in which every codebook is drawn."""
    n_blocks = -(-len(rows) // BLOCK_ROWS)
    pool = model.new_pool(n_blocks, dtype=kv)
    hidden = model.prefill(rows, pool, torch.arange(n_blocks), 0)
    whole = (rows[begin:, 1:] != model.config.audio_pad_code).all(1)
    return model.audio_logits(hidden[begin - 1 : -1][whole])[..., :-1].log_softmax(-1)


if __name__ == "__main__":
    sys.exit(main())
