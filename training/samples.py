"""Training samples: whole dialogues and continued ones, in the rows that the server's prompts have.

A sample is the prompt of :func:`streamer.build_prompt`, then the assistant's audio block. The continuation of earlier
turns, which is how the engine speaks turn by turn, is the same rows with the earlier audio given: it is not learned,
and some of its codes are replaced, as at run time they come from the model and not from a recording.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamer.models import DelayConfig
from streamer.text import Turn, build_prompt, format_script, merge_neighbours
from streamer.text.delay_pattern import delay_codes

_N_TURNS, _N_TURNS_WEIGHTS = (1, 2, 3, 4), (0.2, 0.35, 0.25, 0.2)
_N_SPEAKERS, _N_SPEAKERS_WEIGHTS = (1, 2, 3), (0.25, 0.6, 0.15)
_REFERENCE_FRAMES = (18, 36)
_P_REFERENCES, _P_ANY_TAGS, _P_TWO_UTTERANCES, _P_CONTINUED = 0.93, 0.3, 0.2, 0.25
_HIGHEST_NOISE = 0.12


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recording: its text and its codes (frames, n_vq) int64."""

    text: str
    codes: torch.Tensor


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows (L, 1 + n_vq) int64 and, for each cell, whether the model learns to predict it (L, 1 + n_vq) bool."""

    rows: torch.Tensor
    learned: torch.Tensor


class CodedCorpus:
    """All utterances under ``<corpus>/codes``, by voice."""

    def __init__(self, folder: Path, n_vq: int) -> None:
        """Read every shard; FileNotFoundError where there is none."""
        self._utterances: dict[str, list[tuple[str, np.ndarray]]] = {}
        for path in sorted((folder / "codes").glob("*/?????.npz")):
            with np.load(path) as shard:
                pieces = np.split(shard["codes"][:, :n_vq], np.cumsum(shard["lengths"])[:-1])
                self._utterances.setdefault(path.parent.name, []).extend(
                    zip(shard["texts"].tolist(), pieces, strict=True)
                )
        if not self._utterances:
            raise FileNotFoundError(f"{folder}: no codes; run python -m training.encode --corpus {folder} first")
        self.voices = tuple(self._utterances)

    @property
    def n_frames(self) -> int:
        """Frames of all utterances."""
        return sum(len(codes) for utterances in self._utterances.values() for _, codes in utterances)

    def draw(self, voice: str, rng: random.Random) -> Utterance:
        """A random utterance of a voice."""
        text, codes = rng.choice(self._utterances[voice])
        return Utterance(text, torch.from_numpy(codes.astype(np.int64)))


class SampleMaker:
    """Draws samples; everything random comes from the generator given."""

    def __init__(self, tokenizer: Any, config: DelayConfig, corpus: CodedCorpus) -> None:
        self._tokenizer, self._config, self._corpus = tokenizer, config, corpus

    def draw(self, rng: random.Random) -> Sample:
        """A dialogue of one to four turns, by one to three speakers, any tag with any voice."""
        n_turns = rng.choices(_N_TURNS, _N_TURNS_WEIGHTS)[0]
        n_speakers = rng.choices(_N_SPEAKERS, _N_SPEAKERS_WEIGHTS)[0]
        tags = rng.sample(range(1, 6), n_speakers) if rng.random() < _P_ANY_TAGS else list(range(1, n_speakers + 1))
        voices = dict(zip(tags, _different_first(self._corpus.voices, n_speakers, rng), strict=True))
        turns: list[Turn] = []
        audio: list[torch.Tensor] = []
        for _ in range(n_turns):
            last = turns[-1].speaker if turns else None
            speaker = rng.choice([tag for tag in tags if tag != last] or tags)
            said = [self._corpus.draw(voices[speaker], rng) for _ in range(1 + (rng.random() < _P_TWO_UTTERANCES))]
            turns.append(Turn(speaker, " ".join(u.text for u in said)))
            audio.append(torch.cat([u.codes for u in said]))
        n_given = rng.randint(1, n_turns - 1) if n_turns > 1 and rng.random() < _P_CONTINUED else 0
        references = self._references(turns, voices, rng) if rng.random() < _P_REFERENCES else None
        if n_given:
            noise = rng.uniform(0, _HIGHEST_NOISE)
            audio[:n_given] = [with_noise(a, noise, self._config.audio_vocab_size, rng) for a in audio[:n_given]]
        # With turns that the model is to continue, the text ends with the turn it is to speak.
        keep = n_given + 1 if n_given else n_turns
        return make_sample(self._tokenizer, self._config, turns[:keep], audio[:keep], references, n_given)

    def _references(
        self, turns: Sequence[Turn], voices: dict[int, str], rng: random.Random
    ) -> list[torch.Tensor | None]:
        """A stretch of another recording of everyone who speaks."""
        speakers = {turn.speaker for turn in turns}
        references: list[torch.Tensor | None] = [None] * max(speakers)
        for speaker in sorted(speakers):
            codes = self._corpus.draw(voices[speaker], rng).codes
            length = rng.randint(*_REFERENCE_FRAMES)
            begin = rng.randint(0, max(0, len(codes) - length))
            references[speaker - 1] = codes[begin : begin + length]
        return references


def make_sample(
    tokenizer: Any,
    config: DelayConfig,
    turns: Sequence[Turn],
    audio: Sequence[torch.Tensor],
    references: Sequence[torch.Tensor | None] | None,
    n_given: int = 0,
) -> Sample:
    """Rows of a dialogue whose first ``n_given`` turns were spoken already. ``audio``: codes (frames, n_vq) by turn."""
    prompt = build_prompt(tokenizer, config, format_script(merge_neighbours(turns)), references=references)
    block = torch.cat(list(audio))
    n_frames, n_given_frames = len(block), sum(len(codes) for codes in audio[:n_given])
    slots = torch.full((n_frames + config.n_vq - 1, 1), config.audio_assistant_gen_slot_token_id)
    slots[n_frames:] = config.audio_assistant_delay_slot_token_id
    spoken = torch.cat((slots, delay_codes(block, config.audio_pad_code)), dim=1)
    start, end = (_marker(config, t) for t in (config.audio_start_token_id, config.audio_end_token_id))
    rows = torch.cat((prompt, start, spoken, end, _marker(config, config.im_end_token_id)))

    first = len(prompt) + 1
    learned = torch.zeros(rows.shape, dtype=torch.bool)
    learned[first + n_given_frames if n_given else len(prompt) :, 0] = True
    for book in range(config.n_vq):
        learned[first + book + n_given_frames : first + book + n_frames, 1 + book] = True
    return Sample(rows, learned)


def with_noise(codes: torch.Tensor, share: float, n_codes: int, rng: random.Random) -> torch.Tensor:
    """The codes with about ``share`` of them replaced by random ones."""
    generator = torch.Generator().manual_seed(rng.getrandbits(62))
    replaced = torch.rand(codes.shape, generator=generator) < share
    return torch.where(replaced, torch.randint(n_codes, codes.shape, generator=generator), codes)


def _different_first(voices: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """``count`` voices, of which the first two differ where that is possible."""
    shuffled = rng.sample(voices, len(voices))
    return [shuffled[i] if i < min(2, len(voices)) else rng.choice(voices) for i in range(count)]


def _marker(config: DelayConfig, token: int) -> torch.Tensor:
    row = torch.full((1, 1 + config.n_vq), config.audio_pad_code)
    row[0, 0] = token
    return row
