"""Words, their sounds and their times; and the measurement of where the alignment head looks."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from streamer.models import DelayConfig
from training.alignment import border_errors, draw_dialogue, reference_share, turn_borders
from training.network import DelayNetwork, Forward
from training.samples import CodedCorpus
from training.train_lm import MODEL, load_network
from training.words import SOUNDS_PER_WORD, SoundTable, read_alone, word_spans, words_of


def test_words_end_at_bytes_of_the_utf8_text() -> None:
    text = "Café at 3:30, isn’t it?"
    words = words_of(text)
    assert [w.text for w in words] == ["Caf", "at", "3", "30", "isn’t", "it"]
    raw = text.encode()
    assert [raw[: w.last_byte + 1].decode().split()[-1][-1] for w in words] == ["f", "t", "3", "0", "t", "t"]
    assert [w.pause for w in words] == [0, 0, 4, 3, 0, 5]


def test_a_table_holds_what_its_alphabet_knows() -> None:
    table = SoundTable({"cat": "kæt", "long": "a" * 30}, ["k", "t", "a"])
    assert table.sounds[table.index("cat")].tolist() == [1, 2, *[0] * (SOUNDS_PER_WORD - 2)]
    assert table.sounds[table.index("long")].tolist() == [3] * (SOUNDS_PER_WORD - 1) + [0]
    assert table.sounds[table.index("cat", asked=True)].tolist() == [1, 2, *[0] * (SOUNDS_PER_WORD - 3), 1]
    assert table.index("dog", asked=True) == -1
    assert (table.index("dog"), table.length("long"), table.length("dog"), table.length("42")) == (-1, 30, 3, 8)


def test_digits_are_read_as_they_are_between_their_neighbours() -> None:
    read = {"7": "seven", "05": "oh five", "00": "o'clock", "000": "thousand", "250": "two hundred fifty"}
    read |= {"1938": "nineteen thirty eight", "21st": "twenty first", "cat": "cat", "isn't": "isn't"}
    assert {word: read_alone(word) for word in read} == read


def test_a_corpus_with_numbers_has_its_sounds_at_hand(tmp_path: Path) -> None:
    content = {"alphabet": ["k", "t", "a"], "pronunciations": {"cat": "kat", "20": "tat"}}
    (tmp_path / "sounds.json").write_text(json.dumps(content), encoding="utf-8")
    table = SoundTable.of_corpus(tmp_path, {"cat", "20"})
    assert table.sounds[table.index("20")].tolist() == [2, 3, 2, *[0] * (SOUNDS_PER_WORD - 3)]
    assert table.length("20") == 3


def test_spans_follow_phonemes_and_pauses() -> None:
    table = SoundTable({"a": "a", "long": "lonn"}, list("alon"))
    spans = word_spans(words_of("a, long a."), table)
    assert np.array(spans) == pytest.approx(np.array([(0, 1 / 9), (4 / 9, 8 / 9), (8 / 9, 1)]))


def test_borders_are_where_the_look_moves_on_for_good() -> None:
    looks = np.full((30, 3), 0.02)
    looks[:12, 0] = looks[12:20, 1] = looks[20:, 2] = 0.9
    looks[5] = (0.1, 0.8, 0.1)  # a glance ahead
    looks[25] = (0.8, 0.1, 0.1)  # and one back
    assert turn_borders(looks) == [12, 20]
    assert turn_borders(np.ones((4, 1))) == []


class LooksAt(DelayNetwork):
    """A network whose alignment head looks at a chosen turn's first letter in each audio row."""

    def __init__(self, config: DelayConfig, at: list[int]) -> None:
        super().__init__(config)
        self.at = at

    def forward(self, rows: torch.Tensor, positions: torch.Tensor, documents: torch.Tensor) -> Forward:
        scores = torch.zeros(1, rows.shape[1], rows.shape[1])
        tags = ((rows[0, :, 0] >= 264) & (rows[0, :, 0] <= 268)).nonzero().flatten()[-4:]
        first = int((rows[0, :, 0] == self.config.audio_start_token_id).nonzero()[-1])
        for frame, turn in enumerate(self.at):
            scores[0, first + frame, tags[turn] + 1] = 20.0
        return Forward(torch.zeros(0), torch.zeros(0), scores, torch.zeros(0))


def test_errors_are_counted_in_frames(
    tokenizer: Any, config: DelayConfig, corpus: CodedCorpus, table: SoundTable
) -> None:
    turns, said, references = draw_dialogue(corpus, random.Random(3))
    lengths = [len(utterance.codes) for utterance in said]
    exact = [turn for turn, length in enumerate(lengths) for _ in range(length)]
    late = [0, 0, 0, *exact[:-3]]
    for at, errors in ((exact, [0, 0, 0]), (late, [3, 3, 3])):
        assert border_errors(LooksAt(config, at), tokenizer, table, turns, said, references) == errors


def test_the_embedded_model_declares_its_alignment_head(config: DelayConfig) -> None:
    from training.network import ALIGNMENT_HEAD

    assert config.alignment_heads == (ALIGNMENT_HEAD,)
    assert load_network(MODEL).config.alignment_heads == (ALIGNMENT_HEAD,)


class LooksAtReference(DelayNetwork):
    """A network whose reference head looks at the whole reference of the speaker that the text of a row is of, or, with
    ``wrong``, at the one of another."""

    def __init__(self, config: DelayConfig, wrong: bool) -> None:
        super().__init__(config)
        self.wrong = wrong

    def forward(self, rows: torch.Tensor, positions: torch.Tensor, documents: torch.Tensor) -> Forward:
        ids = rows[0, :, 0]
        is_tag = (ids >= 264) & (ids <= 268)
        speaker = torch.zeros_like(ids)
        for row in is_tag.nonzero().flatten().tolist():
            speaker[row:] = ids[row] - 264
        seen = (speaker + self.wrong) % 5 == speaker[:, None]
        scores = torch.where(seen & (ids == self.config.audio_user_slot_token_id), 0.0, -torch.inf)
        return Forward(torch.zeros(0), torch.zeros(0), torch.zeros(0), scores[None])


@pytest.mark.parametrize(("wrong", "share"), [(False, 1.0), (True, 0.0)])
def test_the_share_of_attention_is_that_on_the_right_reference(
    tokenizer: Any, config: DelayConfig, corpus: CodedCorpus, table: SoundTable, wrong: bool, share: float
) -> None:
    network = LooksAtReference(config, wrong)
    assert reference_share(network, tokenizer, table, corpus, random.Random(3)) == pytest.approx(share)
