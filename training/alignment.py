"""``python -m training.alignment --corpus DIR --model DIR``: do the taught heads look where they should?

Held-out dialogues of four turns, their audio given, go through the network. Which turn's text the alignment head looks
at says where one turn gives way to the next; the recordings say where it really does. Reports how far apart the two
are, and how much of the reference head's attention is on the voice of who speaks, one of five.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from streamer.models import load_tokenizer
from streamer.text import MAX_SPEAKERS, Turn, format_script
from training.network import DelayNetwork
from training.samples import CodedCorpus, Utterance, make_sample, word_rows
from training.train_lm import MODEL, load_network
from training.words import SoundTable, words_of

_N_TURNS, _REFERENCE_FRAMES = 4, 30
_MOST_REFERENCE_DIALOGUES = 20
_FRAME_MS = 80


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one JSON line: mean, median and 95th percentile of the error in ms, and the share within 250 ms; the mean
    share of the attention that is on the right reference."""
    options = _parser().parse_args(arguments)
    network = load_network(options.model)
    corpus = CodedCorpus(options.corpus, network.config.n_vq, held_out=True)
    table = SoundTable.of_corpus(options.corpus, corpus.words())
    tokenizer = load_tokenizer(options.model)
    rng = random.Random(options.seed)
    errors_ms = np.array(
        [
            error * _FRAME_MS
            for _ in range(options.dialogues)
            for error in border_errors(network, tokenizer, table, *draw_dialogue(corpus, rng))
        ]
    )
    n_dialogues = min(options.dialogues, _MOST_REFERENCE_DIALOGUES)
    shares = [reference_share(network, tokenizer, table, corpus, rng) for _ in range(n_dialogues)]
    report = {
        "borders": len(errors_ms),
        "mean_ms": round(float(errors_ms.mean()), 1),
        "median_ms": float(np.median(errors_ms)),
        "p95_ms": float(np.percentile(errors_ms, 95)),
        "within_250_ms": round(float((errors_ms <= 250).mean()), 4),
        "right_reference": round(sum(shares) / len(shares), 4),
    }
    print(json.dumps(report))
    return 0


def draw_dialogue(corpus: CodedCorpus, rng: random.Random) -> tuple[list[Turn], list[Utterance], list[torch.Tensor]]:
    """Two voices in turn: what they are to say, the recordings of it, and a reference of each."""
    voices = [rng.choice(corpus.voices) for _ in range(2)]
    said = [corpus.draw(voices[i % 2], rng) for i in range(_N_TURNS)]
    turns = [Turn(1 + i % 2, utterance.text) for i, utterance in enumerate(said)]
    return turns, said, [corpus.draw(voice, rng).codes[:_REFERENCE_FRAMES] for voice in voices]


@torch.no_grad()
def border_errors(
    network: DelayNetwork,
    tokenizer: Any,
    table: SoundTable,
    turns: Sequence[Turn],
    said: Sequence[Utterance],
    references: Sequence[torch.Tensor],
) -> list[int]:
    """By how many frames each border between turns is off. ``said``: one recording for each turn."""
    config = network.config
    sample = make_sample(tokenizer, config, table, turns, said, references)
    length = len(sample.rows)
    document = torch.ones(1, length, dtype=torch.int64)
    attention = network(sample.rows[None], torch.arange(length)[None], document).alignment_scores[0].float().softmax(-1)

    first = int((sample.rows[:, 0] == config.audio_start_token_id).nonzero()[-1])
    rows = word_rows(tokenizer, sample.rows[:first, 0].tolist(), tokenizer(format_script(turns))["input_ids"])
    last_words = np.cumsum([len(words_of(turn.text)) for turn in turns]) - 1
    ends = [row_of + 1 for row_of in (rows[i] for i in last_words)]
    begins = [rows[0] - words_of(turns[0].text)[0].last_byte, *ends[:-1]]
    n_frames = [len(utterance.codes) for utterance in said]
    heard = attention[first : first + sum(n_frames)]
    looks = torch.stack([heard[:, begin:end].sum(1) for begin, end in zip(begins, ends, strict=True)], 1)
    true_borders = np.cumsum(n_frames[:-1])
    return [
        int(abs(found - true)) for found, true in zip(turn_borders(looks.double().numpy()), true_borders, strict=True)
    ]


@torch.no_grad()
def reference_share(
    network: DelayNetwork, tokenizer: Any, table: SoundTable, corpus: CodedCorpus, rng: random.Random
) -> float:
    """How much of the reference head's attention, from the text of five speakers, is on the reference of who speaks."""
    said = [corpus.draw(rng.choice(corpus.voices), rng) for _ in range(MAX_SPEAKERS)]
    speakers = rng.sample(range(1, MAX_SPEAKERS + 1), MAX_SPEAKERS)
    turns = [Turn(speaker, utterance.text) for speaker, utterance in zip(speakers, said, strict=True)]
    references: list[torch.Tensor | None] = [None] * MAX_SPEAKERS
    for speaker, utterance in zip(speakers, said, strict=True):
        voice = corpus.voices[utterance.voice]
        references[speaker - 1] = corpus.draw(voice, rng).codes[:_REFERENCE_FRAMES]
    sample = make_sample(tokenizer, network.config, table, turns, said, references)
    length = len(sample.rows)
    document = torch.ones(1, length, dtype=torch.int64)
    scores = network(sample.rows[None], torch.arange(length)[None], document).reference_scores[0]
    is_reference = sample.rows[:, 0] == network.config.audio_user_slot_token_id
    asks = sample.speakers.gt(0) & ~is_reference
    right = is_reference & (sample.speakers == sample.speakers[asks][:, None])
    return (scores[asks].float().softmax(-1) * right).sum(1).mean().item()


def turn_borders(looks: npt.NDArray[np.float64]) -> list[int]:
    """First frame of every turn but the first, where turns follow one another. ``looks``: (frames, turns), how much
    of the attention each turn's text has."""
    n_frames, n_turns = looks.shape
    gain = np.log(looks + 1e-6)
    best = np.full((n_frames, n_turns), -np.inf)
    came = np.zeros((n_frames, n_turns), dtype=bool)
    best[0, 0] = gain[0, 0]
    for frame in range(1, n_frames):
        stay = best[frame - 1]
        step = np.concatenate(([-np.inf], best[frame - 1, :-1]))
        came[frame] = step > stay
        best[frame] = np.maximum(stay, step) + gain[frame]
    borders: list[int] = []
    turn = n_turns - 1
    for frame in range(n_frames - 1, 0, -1):
        if came[frame, turn]:
            borders.append(frame)
            turn -= 1
    return borders[::-1]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.alignment", description="Measure the taught heads.")
    parser.add_argument("--corpus", type=Path, required=True, metavar="DIR", help="folder with codes")
    parser.add_argument("--model", type=Path, default=MODEL, help="checkpoint (default: the embedded one)")
    parser.add_argument("--dialogues", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
