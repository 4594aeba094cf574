"""Training samples: dialogues of one to six turns, in the rows that the server's prompts have.

A sample is the prompt of :func:`streamer.build_prompt`, then the assistant's audio block, all of which is learned. The
engine speaks turn by turn: it asks for the last turn of a dialogue whose earlier audio is given, in rows of the same
form, and that audio comes from the model itself. So in many samples some of the codes that the model sees, never those
that it is to predict, are replaced by random ones.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamer.evaluation import ending_of
from streamer.models import DelayConfig
from streamer.text import MAX_SPEAKERS, Turn, build_prompt, format_script, merge_neighbours
from streamer.text.delay_pattern import delay_codes
from training.encode import LEAD_FRAMES, TAIL_FRAMES
from training.words import SoundTable, word_spans, words_of

_N_TURNS, _N_TURNS_WEIGHTS = (1, 2, 3, 4, 5, 6), (0.12, 0.22, 0.24, 0.20, 0.13, 0.09)
# Where two alternate, a voice can be had from the turn before last, and who is named need not be read.
_N_SPEAKERS, _N_SPEAKERS_WEIGHTS = (1, 2, 3, 4, 5), (0.07, 0.36, 0.26, 0.16, 0.15)
_REFERENCE_FRAMES = (18, 36)
_P_REFERENCES, _P_ANY_TAGS, _P_TWO_UTTERANCES, _P_NOISE = 0.95, 0.3, 0.2, 0.6
_HIGHEST_NOISE = 0.12
_SHARE_POWER = 0.3
# Speech begins and ends this far into the frames that hold it: the teachers leave 40 ms of silence.
_EDGE_FRAMES = 0.5
# Where one word gives way to the next is known to about this.
_BORDER_FRAMES = 1.5
# Rows in which another voice is taken up.
_BEGIN_ROWS = 8
# A question's last voiced frames rise; the first codebooks, which have the pitch, lag behind by so many rows.
_RISE_FRAMES, _RISE_LAG_ROWS = 8, 2


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recording: its text, its codes (frames, n_vq) int64, and the number of its voice, -1 where it has none."""

    text: str
    codes: torch.Tensor
    voice: int = -1


@dataclass(frozen=True, slots=True)
class Sample:
    """One document of L rows.

    rows: (L, 1 + n_vq) int64, what the model sees; targets: the same without noise; learned: (L, 1 + n_vq) bool, which
    targets the row before is to predict. heavy: (L,) bool, rows that count more: the first of another speaker, the last
    of a question for yes or no. sounds: (L,) int64, the row of the sound table at a word's last byte, else -1.
    speakers: (L,) int64, where there are references, whose they are, and who says the text of the script, 1 to 5;
    else 0. guide: (L, 2) int64, last bytes of the two words being said when the next row's frame begins, with
    guide_weights (L, 2), 0 where nothing is said.
    """

    rows: torch.Tensor
    targets: torch.Tensor
    learned: torch.Tensor
    heavy: torch.Tensor
    sounds: torch.Tensor
    speakers: torch.Tensor
    guide: torch.Tensor
    guide_weights: torch.Tensor


class CodedCorpus:
    """All utterances under ``<corpus>/codes``, by voice."""

    def __init__(self, folder: Path, n_vq: int, *, held_out: bool = False, questions: int = 1) -> None:
        """Read every shard; FileNotFoundError where there is none.

        The first shard of a voice that has several is held out: with ``held_out`` it alone is read. ``questions``, at
        least 1: how much more often yes/no questions are drawn than other sentences.
        """
        if questions < 1:
            raise ValueError(f"questions is {questions}, expected at least 1")
        self._utterances: dict[str, list[tuple[str, np.ndarray]]] = {}
        for voice in sorted(folder.glob("codes/*/")):
            shards = sorted(voice.glob("?????.npz"))
            chosen = shards[:1] if held_out else shards[1:] or shards
            self._utterances[voice.name] = [utterance for shard in chosen for utterance in _read(shard, n_vq)]
        if not any(self._utterances.values()):
            raise FileNotFoundError(f"{folder}: no codes; run python -m training.encode --corpus {folder} first")
        self.voices = tuple(self._utterances)
        # Between equal shares, with which a small one would be learned by heart, and shares by hours.
        self.shares = {voice: len(utterances) ** _SHARE_POWER for voice, utterances in self._utterances.items()}
        self.n_frames = sum(len(codes) for utterances in self._utterances.values() for _, codes in utterances)
        if questions > 1:
            for utterances in self._utterances.values():
                asked = [utterance for utterance in utterances if ending_of(utterance[0]) == "yes_no_question"]
                utterances.extend(asked * (questions - 1))

    def words(self) -> set[str]:
        """Every word that is said."""
        texts = {text for utterances in self._utterances.values() for text, _ in utterances}
        return {word.text for text in texts for word in words_of(text)}

    def draw(self, voice: str, rng: random.Random) -> Utterance:
        """A random utterance of a voice."""
        text, codes = rng.choice(self._utterances[voice])
        return Utterance(text, torch.from_numpy(codes.astype(np.int64)), self.voices.index(voice))


class SampleMaker:
    """Draws samples; everything random comes from the generator given."""

    def __init__(self, tokenizer: Any, config: DelayConfig, corpus: CodedCorpus, table: SoundTable) -> None:
        self._tokenizer, self._config, self._corpus, self._table = tokenizer, config, corpus, table

    def draw(self, rng: random.Random) -> Sample:
        """A dialogue of one to six turns, by one to five speakers, any tag with any voice."""
        n_turns = rng.choices(_N_TURNS, _N_TURNS_WEIGHTS)[0]
        n_speakers = rng.choices(_N_SPEAKERS, _N_SPEAKERS_WEIGHTS)[0]
        tags = rng.sample(range(1, 6), n_speakers) if rng.random() < _P_ANY_TAGS else list(range(1, n_speakers + 1))
        voices = dict(zip(tags, _draw_voices(self._corpus.shares, n_speakers, rng), strict=True))
        turns: list[Turn] = []
        said: list[Utterance] = []
        for _ in range(n_turns):
            last = turns[-1].speaker if turns else None
            speaker = rng.choice([tag for tag in tags if tag != last] or tags)
            spoken = [self._corpus.draw(voices[speaker], rng) for _ in range(1 + (rng.random() < _P_TWO_UTTERANCES))]
            turns.append(Turn(speaker, " ".join(u.text for u in spoken)))
            said.extend(spoken)
        references = self._references(voices, rng) if rng.random() < _P_REFERENCES else None
        noise = rng.uniform(0, _HIGHEST_NOISE) if rng.random() < _P_NOISE else 0.0
        return make_sample(self._tokenizer, self._config, self._table, turns, said, references, noise, rng)

    def _references(self, voices: Mapping[int, str], rng: random.Random) -> list[torch.Tensor | None]:
        """A stretch of another recording of everyone, also of who says nothing: the server's prompts have the voices
        of all who ever spoke, and the turns of the last seconds."""
        references: list[torch.Tensor | None] = [None] * max(voices)
        for speaker in sorted(voices):
            codes = self._corpus.draw(voices[speaker], rng).codes
            length = rng.randint(*_REFERENCE_FRAMES)
            begin = rng.randint(0, max(0, len(codes) - length))
            references[speaker - 1] = codes[begin : begin + length]
        return references


def make_sample(
    tokenizer: Any,
    config: DelayConfig,
    table: SoundTable,
    turns: Sequence[Turn],
    said: Sequence[Utterance],
    references: Sequence[torch.Tensor | None] | None,
    noise: float = 0.0,
    rng: random.Random | None = None,
) -> Sample:
    """Rows of a dialogue. ``said``: the recordings whose texts, one after another, are those of the turns.

    A share ``noise`` of the codes that the model sees is random, drawn with ``rng``.
    """
    script = format_script(merge_neighbours(turns))
    prompt = build_prompt(tokenizer, config, script, references=references)
    block = torch.cat([utterance.codes for utterance in said])
    n_frames, n_rows = len(block), len(block) + config.n_vq - 1
    slots = torch.full((n_rows, 1), config.audio_assistant_gen_slot_token_id)
    slots[n_frames:] = config.audio_assistant_delay_slot_token_id
    start, end = (_marker(config, t) for t in (config.audio_start_token_id, config.audio_end_token_id))

    def whole(codes: torch.Tensor) -> torch.Tensor:
        spoken = torch.cat((slots, delay_codes(codes, config.audio_pad_code)), dim=1)
        return torch.cat((prompt, start, spoken, end, _marker(config, config.im_end_token_id)))

    targets = whole(block)
    first = len(prompt) + 1
    learned = torch.zeros(targets.shape, dtype=torch.bool)
    learned[first - 1 :, 0] = True
    for book in range(config.n_vq):
        learned[first + book : first + book + n_frames, 1 + book] = True
    heard = with_noise(block, noise, config.audio_vocab_size, rng) if noise and rng else block

    asked = [ending_of(utterance.text) == "yes_no_question" for utterance in said]
    heavy = torch.zeros(len(targets), dtype=torch.bool)
    at = first
    for before, utterance, rises in zip((None, *said), said, asked, strict=False):
        if before is None or before.voice != utterance.voice:
            heavy[at : at + _BEGIN_ROWS] = True
        at += len(utterance.codes)
        if rises:
            silent = at - TAIL_FRAMES
            heavy[silent - _RISE_FRAMES : silent + _RISE_LAG_ROWS] = True

    sounds = torch.full((len(targets),), -1)
    speakers = torch.zeros(len(targets), dtype=torch.int64)
    guide = torch.zeros(len(targets), 2, dtype=torch.int64)
    guide_weights = torch.zeros(len(targets), 2)
    rows_of_words = word_rows(tokenizer, prompt[:, 0].tolist(), tokenizer(script)["input_ids"])
    words = [(word, rises) for utterance, rises in zip(said, asked, strict=True) for word in words_of(utterance.text)]
    if len(words) != len(rows_of_words):
        raise ValueError(f"{script!r}: {len(rows_of_words)} words in the prompt, {len(words)} in the recordings")
    for (word, rises), row in zip(words, rows_of_words, strict=True):
        sounds[row] = table.index(word.text, asked=rises)
    if references is not None:
        speakers[: len(prompt)] = _speakers(tokenizer, prompt[:, 0], script, config.audio_user_slot_token_id)
    borders = torch.tensor(_word_times(said, table))  # (words, 2): begin and end, in frames of the block
    _guide(guide, guide_weights, torch.tensor(rows_of_words), borders, first)
    return Sample(whole(heard), targets, learned, heavy, sounds, speakers, guide, guide_weights)


def with_noise(codes: torch.Tensor, share: float, n_codes: int, rng: random.Random) -> torch.Tensor:
    """The codes with about ``share`` of them replaced by random ones."""
    generator = torch.Generator().manual_seed(rng.getrandbits(62))
    replaced = torch.rand(codes.shape, generator=generator) < share
    return torch.where(replaced, torch.randint(n_codes, codes.shape, generator=generator), codes)


def word_rows(tokenizer: Any, prompt_ids: list[int], script_ids: list[int]) -> list[int]:
    """The prompt's rows with the last bytes of the script's words."""
    begin = _script_row(prompt_ids, script_ids)
    text, row_of_byte = b"", []
    for row, token in enumerate(script_ids, start=begin):
        # Bytes have their own values as ids; what has an id of its own is a speaker tag, or a word of the template.
        piece = bytes([token]) if token < 256 else tokenizer.decode([token]).encode()
        piece = b"\n" if piece.startswith(b"[S") else piece
        text += piece
        row_of_byte.extend([row] * len(piece))
    return [row_of_byte[word.last_byte] for word in words_of(text.decode())]


def _speakers(tokenizer: Any, prompt_ids: torch.Tensor, script: str, reference_id: int) -> torch.Tensor:
    """(rows,): the number of the last tag, in the references and in the script; elsewhere 0."""
    numbers = {tokenizer(f"[S{number}]")["input_ids"][0]: number for number in range(1, MAX_SPEAKERS + 1)}
    script_ids = tokenizer(script)["input_ids"]
    begin = _script_row(prompt_ids.tolist(), script_ids)
    speakers = torch.zeros(len(prompt_ids), dtype=torch.int64)
    last = 0
    for row, token in enumerate(prompt_ids[: begin + len(script_ids)].tolist()):
        last = numbers.get(token, last)
        if row >= begin or token == reference_id:
            speakers[row] = last
    return speakers


def _script_row(prompt_ids: list[int], script_ids: list[int]) -> int:
    length = len(script_ids)
    return next(i for i in range(len(prompt_ids) - length, -1, -1) if prompt_ids[i : i + length] == script_ids)


def _word_times(said: Sequence[Utterance], table: SoundTable) -> list[tuple[float, float]]:
    times: list[tuple[float, float]] = []
    at = 0
    for utterance in said:
        n_frames = len(utterance.codes)
        first = at + LEAD_FRAMES + _EDGE_FRAMES
        speech = max(1.0, n_frames - LEAD_FRAMES - TAIL_FRAMES - 2 * _EDGE_FRAMES)
        spans = word_spans(words_of(utterance.text), table)
        times.extend((first + begin * speech, first + end * speech) for begin, end in spans)
        at += n_frames
    return times


def _guide(
    guide: torch.Tensor, weights: torch.Tensor, rows_of_words: torch.Tensor, borders: torch.Tensor, first: int
) -> None:
    """Fill in, at the row before each frame, the word that its middle lies in and the nearest other one."""
    if len(borders) == 0:
        return
    frames = torch.arange(int(borders[-1, 1]) + 1) + 0.5
    word = torch.searchsorted(borders[:, 0].contiguous(), frames, right=True).sub(1).clamp_min(0)
    to_next = frames - borders[word, 1]
    to_previous = borders[word, 0] - frames
    later = to_next > to_previous
    other = (word + torch.where(later, 1, -1)).clamp(0, len(borders) - 1)
    share = 0.5 * torch.exp(torch.where(later, to_next, to_previous).clamp_max(0) / _BORDER_FRAMES)
    share[other == word] = 0.0
    at = first - 1 + torch.arange(len(frames))
    guide[at] = torch.stack((rows_of_words[word], rows_of_words[other]), 1)
    weights[at] = torch.stack((1 - share, share), 1)


def _read(shard: Path, n_vq: int) -> list[tuple[str, np.ndarray]]:
    with np.load(shard) as arrays:
        pieces = np.split(arrays["codes"][:, :n_vq], np.cumsum(arrays["lengths"])[:-1])
        return list(zip(arrays["texts"].tolist(), pieces, strict=True))


def _draw_voices(shares: Mapping[str, float], count: int, rng: random.Random) -> list[str]:
    """``count`` voices, different ones as far as there are; larger shares more often."""
    drawn: list[str] = []
    for _ in range(count):
        left = {voice: share for voice, share in shares.items() if voice not in drawn} or shares
        drawn.extend(rng.choices(list(left), list(left.values())))
    return drawn


def _marker(config: DelayConfig, token: int) -> torch.Tensor:
    row = torch.full((1, 1 + config.n_vq), config.audio_pad_code)
    row[0, 0] = token
    return row
