"""How a turn ends: with a question that yes or no would answer, with another one, or with a statement."""

from __future__ import annotations

import re
from typing import Literal

Ending = Literal["yes_no_question", "other_question", "statement"]
_CUE = re.compile(r"\[[^\[\]]*\]")
_OPENS_YES_NO = frozenset(
    (
        "do", "does", "did", "is", "are", "was", "were", "have", "has", "had", "can", "could", "will", "would",
        "should", "shall", "may", "am",
    )
)  # fmt: skip
# All but three are such a word and "n't".
_SHORT_FORMS = {"can't": "can", "won't": "will", "shan't": "shall"}


def ending_of(text: str) -> Ending:
    """The kind of an English text's last sentence: a question is yes/no if it begins with a verb such as "did".

    Cues in brackets are not part of it. What asks nothing is a statement.
    """
    import sentencex

    spoken = _CUE.sub(" ", text.replace("’", "'"))
    sentences = [sentence for sentence in sentencex.segment("en", spoken) if re.search(r"\w", sentence)]
    last = sentences[-1] if sentences else ""
    if not re.search(r"\?\W*$", last):
        return "statement"
    first = re.search(r"[a-z']+", last.lower())
    word = first[0].strip("'") if first else ""
    verb = _SHORT_FORMS.get(word, word.removesuffix("n't"))
    return "yes_no_question" if verb in _OPENS_YES_NO else "other_question"
