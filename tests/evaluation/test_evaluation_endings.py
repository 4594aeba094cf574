"""How a turn's text ends."""

from __future__ import annotations

import pytest

from streamer.evaluation import ending_of

VERBS = "do does did is are was were have has had can could will would should shall may am"


@pytest.mark.parametrize("verb", VERBS.split())
def test_a_question_that_begins_with_such_a_verb_is_a_yes_no_question(verb: str) -> None:
    assert ending_of(f"{verb.capitalize()} we there?") == "yes_no_question"
    assert ending_of(f"{verb.capitalize()} we there.") == "statement"


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        ("I see. Did you?", "yes_no_question"),
        ("Did you? I see.", "statement"),
        ("What? Is it six?", "yes_no_question"),
        ("Is it six? How so?", "other_question"),
        ("He went home?", "other_question"),
        ("When did he go?", "other_question"),
        ("Isn't it 6:30?", "yes_no_question"),
        ("Can’t you see Mr. Smith?", "yes_no_question"),
        ("Won't it?! ", "yes_no_question"),
        ("“Did you?”", "yes_no_question"),
        ("Canny, is it?", "other_question"),
        ("[laugh] Are you sure? [sigh]", "yes_no_question"),
        ("Did you ask why? he said.", "statement"),
        ("That is all!", "statement"),
        ("Well, is that all …", "statement"),
        ("?", "statement"),
        ("", "statement"),
    ],
)
def test_the_last_sentence_decides(text: str, ending: str) -> None:
    assert ending_of(text) == ending
