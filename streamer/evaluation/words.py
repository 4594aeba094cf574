"""Word errors between what was to be said and what was heard."""

from __future__ import annotations

import re
from collections.abc import Sequence

from streamer.evaluation.spelling import spell_numbers


def plain_words(text: str) -> list[str]:
    """Lower-case English words without punctuation, numbers spelled out: one writes ``40``, another ``forty``."""
    text = spell_numbers(text.lower().replace("’", "'"))
    return [word.replace("'", "") for word in re.sub(r"[^a-z' ]", " ", text).split() if word.strip("'")]


def word_errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Edit distance between two lists of words; at most twice the words said, lest one hallucination outweigh all."""
    previous = list(range(len(heard) + 1))
    for i, word in enumerate(said, start=1):
        current = [i]
        for j, other in enumerate(heard, start=1):
            current.append(min(previous[j] + 1, current[-1] + 1, previous[j - 1] + (word != other)))
        previous = current
    return min(previous[-1], 2 * len(said))
