"""Scripts in, turns out."""

from __future__ import annotations

import pytest

from streamer.text import ScriptError, Turn, format_script, parse_script


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("[S1] Hello. [S2] Hi.", [(1, "Hello."), (2, "Hi.")]),
        ("[1] Hello. [s2] Hi. [S5]Bye", [(1, "Hello."), (2, "Hi."), (5, "Bye")]),
        ("Hello. [S2] Hi.", [(1, "Hello."), (2, "Hi.")]),
        ("just text", [(1, "just text")]),
        ("[S1] One. [S1] Two. [S2] Three.", [(1, "One. Two."), (2, "Three.")]),
        ("Before [S1] after", [(1, "Before after")]),
        ("[S2] A [S1] ... [S2] B", [(2, "A B")]),
        ("[S1][S2] second", [(2, "second")]),
        ("[S1] 😀!! [S2] 42", [(2, "42")]),
        ("[S1] [laugh] [pause] well [x6]", [(1, "[laugh] [pause] well [x6]")]),
        ("[S1] as shown in [6] and [12]", [(1, "as shown in [6] and [12]")]),
        ("[S1]你好[S2]好", [(1, "你好"), (2, "好")]),
    ],
)
def test_turns(text: str, turns: list[tuple[int, str]]) -> None:
    assert parse_script(text) == [Turn(*turn) for turn in turns]


@pytest.mark.parametrize("tag", ["[S6]", "[s10]", "[S0]", "[S99999999999]"])
def test_too_many_speakers_names_the_tag(tag: str) -> None:
    with pytest.raises(ScriptError) as caught:
        parse_script(f"[S1] one {tag} six")
    assert (caught.value.code, caught.value.field) == ("too_many_speakers", "text")
    assert tag in str(caught.value)


def test_a_bare_sixth_tag_is_a_speaker_where_bare_tags_are_in_use() -> None:
    with pytest.raises(ScriptError, match=r"\[6\]"):
        parse_script("[1] a [2] b [3] c [4] d [5] e [6] f")


@pytest.mark.parametrize("text", ["", "  \n", "[S1][S2]", "[S1] ... [S2] 😀 !?", "—"])
def test_nothing_to_say(text: str) -> None:
    with pytest.raises(ScriptError) as caught:
        parse_script(text)
    assert (caught.value.code, caught.value.field) == ("no_speech", "text")


def test_format_is_the_inverse_of_parse() -> None:
    turns = [Turn(1, "Hello."), Turn(2, "[laugh] Hi."), Turn(1, "Bye")]
    assert format_script(turns) == "[S1]Hello.[S2][laugh] Hi.[S1]Bye"
    assert parse_script(format_script(turns)) == turns


@pytest.mark.parametrize("speaker", [0, 6, -1])
def test_a_turn_has_one_of_five_speakers(speaker: int) -> None:
    with pytest.raises(ValueError, match="speaker"):
        Turn(speaker, "x")


def test_a_megabyte_of_tiny_turns_is_joined_once() -> None:
    assert len(parse_script("[S1]a[S2]" * 110_000)[0].text) == 2 * 110_000 - 1
