"""Files of dialogues, the ones that ship, who is cast, and what is said of a bad line."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from streamer.evaluation import (
    HELD_OUT,
    SHIPPED,
    EvaluationError,
    cast_voices,
    ending_of,
    held_out_sentences,
    read_dialogues,
)
from streamer.evaluation.spelling import say_number, say_ordinal, spell_numbers
from streamer.evaluation.words import plain_words

VOICES = ("ann", "bob", "cid", "dee")


def write(folder: Path, *lines: str) -> Path:
    path = folder / "dialogues.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_forty_dialogues_of_two_speakers_ship() -> None:
    dialogues = read_dialogues(HELD_OUT, VOICES)
    assert len({dialogue.text for dialogue in dialogues}) == len(dialogues) == 40
    assert all({turn.speaker for turn in dialogue.turns} == {1, 2} for dialogue in dialogues)
    n_turns = Counter(len(dialogue.turns) for dialogue in dialogues)
    assert n_turns.keys() == {2, 3, 4, 5, 6}
    assert "Did the plumber come this morning?" in dialogues[0].text
    assert "Do you believe in luck?" in dialogues[23].text


def test_long_dialogues_of_three_to_five_speakers_ship() -> None:
    dialogues = read_dialogues(SHIPPED / "long.jsonl", VOICES)
    assert len(dialogues) == 4
    assert {len({turn.speaker for turn in dialogue.turns}) for dialogue in dialogues} == {3, 4, 5}
    assert all(6 <= len(dialogue.turns) <= 10 for dialogue in dialogues)


def turns_of(name: str) -> list[str]:
    dialogues = read_dialogues(SHIPPED / f"{name}.jsonl", VOICES)
    assert len({dialogue.text for dialogue in dialogues}) == len(dialogues) == 20
    assert all({turn.speaker for turn in dialogue.turns} == {1, 2} for dialogue in dialogues)
    assert all(2 <= len(dialogue.turns) <= 3 for dialogue in dialogues)
    return [turn.text for dialogue in dialogues for turn in dialogue.turns]


def test_every_dialogue_of_questions_asks_and_states() -> None:
    dialogues = read_dialogues(SHIPPED / "questions.jsonl", VOICES)
    for dialogue in dialogues:
        assert {ending_of(turn.text) for turn in dialogue.turns} == {"yes_no_question", "statement"}, dialogue.text
    assert Counter(map(ending_of, turns_of("questions"))) == {"yes_no_question": 24, "statement": 24}


def test_every_turn_of_numbers_has_a_number_that_is_spelled_out_whole() -> None:
    named = {word for n in range(1, 100) for word in f"{say_number(n)} {say_ordinal(n)}".split()}
    for text in turns_of("numbers"):
        assert named & {*plain_words(text)}, text
        assert re.fullmatch(r"[A-Za-z ,.?']+", spell_numbers(text)), text
        assert not re.search(r"\d\.\d|\d-\d", text), text


def test_every_turn_of_names_has_a_name() -> None:
    """A capital inside a sentence: no other words have one."""
    for text in turns_of("names"):
        assert re.search(r"(?<![.?]) (?!I\b|August)[A-Z][a-z]+", text), text


def test_shipped_sentences_are_in_one_set_only() -> None:
    sets = [
        {sentence for line in path.read_text().splitlines() for sentence in sentences_of(json.loads(line)["text"])}
        for path in sorted(SHIPPED.glob("*.jsonl"))
    ]
    assert len(sets) == 5
    assert all(first.isdisjoint(second) for first, second in itertools.combinations(sets, 2))


def sentences_of(script: str) -> list[str]:
    return [sentence for sentence in re.split(r"\[S\d\]|(?<=[.!?])\s+", script.lower()) if sentence]


def test_held_out_sentences_are_those_of_every_shipped_dialogue() -> None:
    sentences = held_out_sentences()
    assert {"almost forty minutes", "check the pocket of your green jacket", "it smells like fish"} <= sentences
    assert {"does she always choose the warmest spot", "ask william he is driving to her house tonight"} <= sentences
    # Corpora are compared by what is read aloud.
    assert {"it was sixty dollars last week", "it is already six thirty in the morning over there"} <= sentences
    assert "" not in sentences and not any("s1" in sentence.split() for sentence in sentences)


@pytest.mark.parametrize("n_voices", [2, 3, 4])
def test_each_voice_comes_equally_often_in_each_place_with_every_partner(n_voices: int) -> None:
    voices = VOICES[:n_voices]
    n = n_voices * (n_voices - 1) * 2
    casts = [cast_voices(voices, number, {1, 2}) for number in range(n)]
    pairs = Counter((cast[1], cast[2]) for cast in casts)
    assert set(pairs.values()) == {2}
    assert len(pairs) == n_voices * (n_voices - 1)
    assert all(one != two for one, two in pairs)


def test_the_forty_dialogues_are_cast_about_equally() -> None:
    dialogues = read_dialogues(HELD_OUT, VOICES)
    for speaker in (1, 2):
        counts = Counter(dialogue.voices[speaker] for dialogue in dialogues)
        assert set(counts.values()) == {10}


def test_speakers_share_voices_only_where_there_are_too_few() -> None:
    assert cast_voices(VOICES, 1, {1, 3, 5}) == {1: "bob", 3: "cid", 5: "dee"}
    assert cast_voices(("ann", "bob"), 0, {1, 2, 3}) == {1: "ann", 2: "bob", 3: "ann"}
    assert cast_voices(("ann",), 7, {1, 2}) == {1: "ann", 2: "ann"}


def test_a_line_may_name_voices_and_the_others_get_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path, '{"text": "[S1]One.[S2]Two.[S1]So.", "voices": {"S2": "ann"}}', "", '{"text": "Alone."}')
    first, second = read_dialogues(path, VOICES)
    assert [(turn.speaker, turn.text) for turn in first.turns] == [(1, "One."), (2, "Two."), (1, "So.")]
    assert first.voices == {1: "bob", 2: "ann"} and first.cast == ("bob", "ann")
    assert second.voices == {1: "bob"} and second.number == 1
    assert [dialogue.number for dialogue in read_dialogues(path, VOICES, limit=1)] == [0]


@pytest.mark.parametrize(
    ("line", "code", "named"),
    [
        ("{", "bad_line", "line 2"),
        ('["x"]', "bad_line", "object"),
        ('{"txt": "Hi."}', "bad_line", "`txt`"),
        ('{"voices": {}}', "bad_line", "`text`"),
        ('{"text": 3}', "bad_line", "$.text"),
        ('{"text": "[S6]Hi."}', "bad_line", "[S6]"),
        ('{"text": "..."}', "bad_line", "`text`"),
        ('{"text": "[S1]Hi.[S2]你好"}', "bad_line", "你好"),
        ('{"text": "Hi.", "voices": {"S2": "ann"}}', "bad_line", "'S2'"),
        ('{"text": "Hi.", "voices": {"Bob": "ann"}}', "bad_line", "'Bob'"),
        (
            '{"text": "Hi.", "voices": {"S1": "eve"}}',
            "unknown_voice",
            "`voices.S1`: no voice 'eve'; known voices: ann,",
        ),
    ],
)
def test_a_bad_line_is_named_with_its_field(tmp_path: Path, line: str, code: str, named: str) -> None:
    path = write(tmp_path, '{"text": "Fine."}', line)
    with pytest.raises(EvaluationError) as caught:
        read_dialogues(path, VOICES)
    assert caught.value.code == code
    message = str(caught.value)
    assert f"{path}, line 2" in message and named in message and "\n" not in message


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    binary, empty = tmp_path / "binary", tmp_path / "empty"
    binary.write_bytes(b"\xff\xfe\x00")
    empty.write_text("\n\n")
    for path in (tmp_path / "none.jsonl", tmp_path, binary, empty):
        with pytest.raises(EvaluationError, match="(?s)^" + str(path)) as caught:
            read_dialogues(path, VOICES)
        assert caught.value.code == "unreadable_file"
