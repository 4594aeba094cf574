"""The held-out two-speaker dialogues that every evaluation speaks. Their sentences are kept out of the corpus."""

from __future__ import annotations

import re
from functools import lru_cache

HELD_OUT: tuple[str, ...] = (
    "[S1]Did the plumber come this morning?[S2]He did, but the tap still drips.",
    "[S1]I finally finished the puzzle.[S2]All of it? That took you three weeks!",
    "[S1]The train was late again.[S2]How long did you have to wait?[S1]Almost forty minutes.",
    "[S1]What should we cook for the guests tonight?[S2]Let's make soup and a big salad.",
    "[S1]My sister is moving to Boston.[S2]Really? I thought she loved the coast.",
    "[S1]Could you lower the music a little?[S2]Sorry, I didn't know you were working.",
    "[S1]There is a hole in my left shoe.[S2]You walk too much. Buy a better pair.",
    "[S1]Have you seen my reading glasses?[S2]They are on top of your head.",
    "[S1]We need twelve chairs for Saturday.[S2]I only have nine.[S1]Then three people will stand.",
    "[S1]This coffee tastes strange.[S2]I think the milk is old.",
    "[S1]The doctor told me to sleep more.[S2]That is good advice for both of us.",
    "[S1]Who left the window open?[S2]I did. It was too warm in here.",
    "[S1]Our flight leaves at six.[S2]Then we should get up at three.[S1]I will set two alarms.",
    "[S1]I planted tomatoes behind the garage.[S2]Do they get enough sun there?",
    "[S1]The new neighbor plays the violin.[S2]At night?[S1]Only until ten, thankfully.",
    "[S1]How was the job interview?[S2]It went well, I hope to hear from them soon.",
    "[S1]It is raining and I forgot my coat.[S2]Take mine, I am staying inside.",
    "[S1]Is this seat taken?[S2]No, please sit down.",
    "[S1]The museum closes in an hour.[S2]That is enough time to see the paintings.",
    "[S1]I can't open this jar.[S2]Hold it under hot water first.",
    "[S1]Happy birthday, Martin![S2]Thank you, you are the first to remember.",
    "[S1]Why is the dog so quiet today?[S2]He ran on the beach all afternoon.",
    "[S1]They want twenty dollars for a small pizza.[S2]Let's eat at home instead.",
    "[S1]Do you believe in luck?[S2]Not really, but I carry a coin just in case.",
)


@lru_cache(maxsize=1)
def held_out_sentences() -> frozenset[str]:
    """Every sentence of the held-out dialogues, lower case, words only."""
    turns = (turn for dialogue in HELD_OUT for turn in re.split(r"\[S\d\]", dialogue))
    sentences = (sentence for turn in turns for sentence in re.split(r"(?<=[.!?])\s+", turn))
    plain = (" ".join(re.findall(r"[a-z']+", sentence.lower())) for sentence in sentences)
    return frozenset(words for words in plain if words)
