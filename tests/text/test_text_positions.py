"""Finding a script's text in the rows of its prompt, for a tokenizer of words and two of bytes."""

from __future__ import annotations

import json
import unicodedata
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from streamer.models import load_tokenizer
from streamer.text import PromptConfig, build_prompt
from streamer.text.positions import script_rows

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
FOLDERS = {
    "qwen3": GOLDEN / "prompts-qwen3" / "tokenizer",
    "nvq4": GOLDEN / "delay-nvq4" / "model",
    "embedded": Path(__file__).parents[2] / "streamer" / "assets" / "model",
}
PUBLISHED = SimpleNamespace(
    n_vq=16,
    audio_vocab_size=1024,
    audio_pad_code=1024,
    pad_token_id=151643,
    im_start_token_id=151644,
    im_end_token_id=151645,
    audio_start_token_id=151652,
    audio_end_token_id=151653,
    audio_user_slot_token_id=151654,
    audio_assistant_gen_slot_token_id=151656,
    audio_assistant_delay_slot_token_id=151662,
)
SCRIPTS = [
    "[S1]Hello there, how are you?[S2]Fine.",
    "[S1]x",
    "[S1]Caf\u00e9 na\u00efve 你好，世界。[S2]\U0001f600 ok",
    "[S1]An accent cafe\u0301 apart.",
    "[S1]<|im_end|> is plain text here <|im_start|>[S2]\n- Text:\nand so is this\n</user_inst>",
    "no tag at all ",
    " \n [S1] spaces around \n",
]


@cache
def parts_of(name: str) -> tuple[Any, PromptConfig]:
    folder = FOLDERS[name]
    config = PUBLISHED if name == "qwen3" else SimpleNamespace(**json.loads((folder / "config.json").read_text()))
    return load_tokenizer(folder), config


def codes(n_frames: int, config: PromptConfig) -> torch.Tensor:
    return torch.arange(n_frames * config.n_vq).view(n_frames, -1) % config.audio_vocab_size


def composed(text: str) -> str:
    """As the published tokenizer spells it, whose offsets are those of the text as written all the same."""
    return unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("name", FOLDERS)
def test_rows_decode_to_the_characters_that_they_are_said_to_hold(name: str, script: str) -> None:
    tokenizer, config = parts_of(name)
    prompts = [
        build_prompt(tokenizer, config, script),
        build_prompt(tokenizer, config, script, references=[codes(9, config), None, codes(4, config)], language="en\n"),
        build_prompt(tokenizer, config, script, instruction=script, prompt_audio=codes(11, config)),
    ]
    for prompt in prompts:
        found = script_rows(tokenizer, config, prompt, script)
        ids = prompt[found.start : found.end, 0].tolist()
        assert len(found.spans) == len(ids)
        # First and last rows may hold a character of the template, too.
        assert composed(script.strip()) in composed(tokenizer.decode(ids))
        assert found.spans[0][0] == 0
        assert found.spans[-1][1] == len(script)
        later = [*(begin for begin, _ in found.spans[1:]), len(script)]
        for row, (begin, end), until, token in zip(range(found.start, found.end), found.spans, later, ids, strict=True):
            assert begin <= found.character(row) < end
            # The next row goes on where this one ends, or has more bytes of the same character; an accent that the
            # tokenizer joins to its letter has no place of its own.
            assert until == begin or all(map(unicodedata.combining, script[end:until]))
            piece = tokenizer.decode([token])
            if "\ufffd" not in piece and begin > 0 and end < len(script):
                assert composed(piece) == composed(script[begin:until])


@pytest.mark.parametrize("name", FOLDERS)
def test_a_turn_has_the_rows_that_hold_its_characters(name: str) -> None:
    tokenizer, config = parts_of(name)
    script = SCRIPTS[0]
    found = script_rows(tokenizer, config, build_prompt(tokenizer, config, script), script)
    turn = script.index("Fine"), len(script)
    begin, end = found.rows_of(*turn)
    assert end == found.end
    assert found.spans[begin - found.start][0] <= turn[0] < found.spans[begin - found.start][1]
    assert found.rows_of(0, len(script)) == (found.start, found.end)
    with pytest.raises(ValueError, match="characters"):
        found.rows_of(len(script), len(script) + 5)
    for row in (found.start - 1, found.end):
        with pytest.raises(IndexError):
            found.character(row)


def test_a_token_with_the_space_before_a_word_stands_for_the_word() -> None:
    tokenizer, config = parts_of("qwen3")
    found = script_rows(tokenizer, config, build_prompt(tokenizer, config, SCRIPTS[0]), SCRIPTS[0])
    spaced = [row for row, (begin, _) in enumerate(found.spans, found.start) if SCRIPTS[0][begin] == " "]
    assert spaced
    assert all(SCRIPTS[0][found.character(row)].isalpha() for row in spaced)


@pytest.mark.parametrize("text", ["[S1]Hello there, how are you?[S2]Fin", "", "[S1]" + "another " * 400])
def test_a_prompt_of_another_text_is_refused(text: str) -> None:
    tokenizer, config = parts_of("embedded")
    with pytest.raises(ValueError, match="the prompt is not one of this text"):
        script_rows(tokenizer, config, build_prompt(tokenizer, config, SCRIPTS[0]), text)
