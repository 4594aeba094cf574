"""Dialogues through a real server around the small random model: which audio comes back, from whom, and what fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from serving import recorded, running

from streamer.evaluation import CastDialogue, EvaluationError, SpeakingSettings, read_dialogues, speak_dialogues
from streamer_client import HandshakeError, Sampling
from streamer_protocol import Limits

GREEDY = Sampling(audio_temperature=0, text_temperature=0)
TEXTS = ("[S1]One two.[S2]Three.", "[S1]Four.[S2]Five six.[S1]Seven.", "[S2]Eight.")


@pytest.fixture
def dialogues(tmp_path: Path) -> list[CastDialogue]:
    path = tmp_path / "dialogues.jsonl"
    path.write_text("".join(f'{{"text": "{text}"}}\n' for text in TEXTS))
    return read_dialogues(path, ("one", "two"))


async def test_every_turn_comes_back_whole_and_in_order(dialogues: list[CastDialogue]) -> None:
    done: list[None] = []
    async with running() as server:
        settings = SpeakingSettings(seed=3, clients=2, sampling=GREEDY)
        model, turns = await speak_dialogues(server.url, dialogues, settings, lambda: done.append(None))
        name = server.state.speech.model.name
    assert model == name
    assert len(done) == 3
    assert [(turn.dialogue, turn.turn, turn.voice, turn.text) for turn in turns] == [
        (0, 0, "one", "One two."),
        (0, 1, "two", "Three."),
        (1, 0, "two", "Four."),
        (1, 1, "one", "Five six."),
        (1, 2, "two", "Seven."),
        (2, 0, "one", "Eight."),
    ]
    assert [turn.cast for turn in turns] == [("one", "two")] * 2 + [("two", "one")] * 3 + [("one",)]
    for turn in turns:
        assert turn.source == "model" and turn.reason in ("end", "max_length")
        assert len(turn.samples) > 0 and len(turn.samples) % 1920 == 0
        assert turn.ttfa_ms is not None and turn.ttfa_ms > 0
        # 16 bits without loss, as the codec made them.
        assert np.array_equal(turn.samples * 32768, np.round(turn.samples * 32768))


async def test_the_seed_counts_on_from_dialogue_to_dialogue(dialogues: list[CastDialogue]) -> None:
    """A dialogue has the same seeds, whatever is spoken beside it."""

    async def seeds_of(chosen: list[CastDialogue], seed: int) -> list[int]:
        recorded(server).requests.clear()
        await speak_dialogues(server.url, chosen, SpeakingSettings(seed=seed, clients=1, sampling=GREEDY))
        return [request.seed for request in recorded(server).requests]

    async with running() as server:
        together = await seeds_of(dialogues, 5)
        assert len(set(together)) == 6
        assert await seeds_of(dialogues[1:2], 5) == together[2:5]
        assert not {*await seeds_of(dialogues[1:2], 7)} & {*together}


async def test_a_script_in_one_pass_is_one_turn_of_nobodys(dialogues: list[CastDialogue]) -> None:
    async with running() as server:
        _, turns = await speak_dialogues(server.url, dialogues, SpeakingSettings(mode="script", sampling=GREEDY))
    assert [(turn.voice, turn.text) for turn in turns] == [
        (None, "One two. Three."),
        (None, "Four. Five six. Seven."),
        (None, "Eight."),
    ]
    assert all(len(turn.samples) > 0 for turn in turns)


async def test_a_turn_that_is_cut_short_says_so(dialogues: list[CastDialogue]) -> None:
    async with running(limits=Limits(max_turn_audio_ms=160)) as server:
        _, turns = await speak_dialogues(server.url, dialogues[:1], SpeakingSettings(sampling=GREEDY))
    assert [turn.reason for turn in turns] == ["max_length"] * 2


async def test_a_refused_script_is_an_error_that_names_the_dialogue(dialogues: list[CastDialogue]) -> None:
    async with running(limits=Limits(max_text_chars=25)) as server:
        with pytest.raises(EvaluationError, match=r"^dialogue 2: .*text") as caught:
            await speak_dialogues(server.url, dialogues, SpeakingSettings(clients=1, sampling=GREEDY))
    assert caught.value.code == "turn_failed"


async def test_no_server_is_the_clients_own_error(dialogues: list[CastDialogue]) -> None:
    with pytest.raises(HandshakeError, match="streamer serve"):
        await speak_dialogues("ws://127.0.0.1:9", dialogues, SpeakingSettings())
