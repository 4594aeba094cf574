"""Where the text of a script is in the rows of its prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from streamer.text.prompt import PromptConfig, text_tokens


@dataclass(frozen=True, slots=True)
class ScriptRows:
    """Prompt rows ``start`` up to ``end`` hold a script; row ``start + i`` its characters ``spans[i]`` (begin, end).

    Where a character takes several rows each of them has it; a row may begin or end with characters of the template,
    which are left out.
    """

    start: int
    end: int
    spans: tuple[tuple[int, int], ...]

    def character(self, row: int) -> int:
        """The last character of what a prompt row holds: of a token with the space before a word, one of the word.

        IndexError for a row without any text.
        """
        if not self.start <= row < self.end:
            raise IndexError(f"row {row}, the script is in rows {self.start} to {self.end}")
        begin, end = self.spans[row - self.start]
        return max(end - 1, begin)

    def rows_of(self, begin: int, end: int) -> tuple[int, int]:
        """Prompt rows (begin, end) with the script's characters ``begin`` up to ``end``; ValueError if none are."""
        rows = [i for i, (first, until) in enumerate(self.spans, self.start) if first < end and begin < until]
        if not rows:
            raise ValueError(f"characters {begin} to {end}: no row of the script holds any of them")
        return rows[0], rows[-1] + 1


def script_rows(tokenizer: Any, config: PromptConfig, prompt_rows: torch.Tensor, text: str) -> ScriptRows:
    """Find the text in rows (P, 1+n_vq) that :func:`streamer.build_prompt` made of it, with or without audio after it.

    ValueError where the prompt is not of this text.
    """
    slots = (config.audio_start_token_id, config.audio_assistant_gen_slot_token_id)
    prompt_ids = prompt_rows[:, 0].tolist()
    end = len(prompt_ids)
    while end and prompt_ids[end - 1] in slots:
        end -= 1
    ids, spans = text_tokens(tokenizer, config, text)
    inside = [i for i, (first, until) in enumerate(spans) if first < len(text) and until > 0]
    # Before the text a token may have grown together with what stands there in this prompt.
    n_rows = len(ids) - inside[0] if inside else 0
    if not inside or prompt_ids[max(end - n_rows, 0) : end] != ids[inside[0] :]:
        raise ValueError("text: the prompt is not one of this text")
    clipped = tuple((max(first, 0), min(until, len(text))) for first, until in spans[inside[0] : inside[-1] + 1])
    start = end - n_rows
    return ScriptRows(start, start + len(clipped), clipped)
