"""What the model is trained on is what the server gives it: rows, delay pattern, and what is to be learned."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import streamer
from streamer.dialogue import Dialogue, DialogueSettings
from streamer.models import DelayConfig, SamplingParams
from streamer.text import Turn
from streamer.text.delay_pattern import undelay_codes
from streamer.voices import Voice
from training.encode import TAIL_FRAMES
from training.samples import CodedCorpus, Sample, SampleMaker, Utterance, make_sample
from training.words import SoundTable

TURNS = [Turn(1, "Hello there."), Turn(2, "Hi. How are you?"), Turn(1, "Fine.")]


def codes_of(n_frames: int, seed: int) -> torch.Tensor:
    return torch.randint(1024, (n_frames, 8), generator=torch.Generator().manual_seed(seed))


AUDIO = [codes_of(9, 1), codes_of(12, 2), codes_of(10, 3)]
SAID = [Utterance(turn.text, codes) for turn, codes in zip(TURNS, AUDIO, strict=True)]
REFERENCES = [codes_of(20, 4), codes_of(25, 5)]


@pytest.fixture(scope="session")
def sample(tokenizer: Any, config: DelayConfig, table: SoundTable) -> Sample:
    return make_sample(tokenizer, config, table, TURNS, SAID, REFERENCES)


def written(sample: Sample, row: int) -> str:
    """The word that ends at a row."""
    begin = row
    while (before := int(sample.rows[begin - 1, 0])) < 128 and chr(before).isalnum():
        begin -= 1
    return bytes(sample.rows[begin : row + 1, 0].tolist()).decode()


def test_the_prompt_is_the_servers(tokenizer: Any, config: DelayConfig, sample: Sample) -> None:
    text = "[S1]Hello there.[S2]Hi. How are you?[S1]Fine."
    prompt = streamer.build_prompt(tokenizer, config, text, references=REFERENCES)
    assert torch.equal(sample.rows[: len(prompt)], prompt)
    assert sample.rows[len(prompt), 0] == config.audio_start_token_id


def test_a_turn_begins_with_the_engines_request(tokenizer: Any, config: DelayConfig, sample: Sample) -> None:
    voices = {n: Voice(f"v{n}", codes, "", "", "") for n, codes in enumerate(REFERENCES, start=1)}
    dialogue = Dialogue(config, tokenizer, DialogueSettings(voices, SamplingParams()))
    for index, (turn, audio) in enumerate(zip(TURNS[:2], AUDIO[:2], strict=True)):
        spoken = dialogue.begin(f"t{index}", index, [turn])
        spoken.frames, spoken.complete = list(audio.numpy()), True
    request = dialogue.request(dialogue.begin("t2", 2, TURNS[2:]))

    n_prompt = len(request.prompt_rows)
    # Codebooks that run behind hold codes of the earlier frames first, then those of the new turn.
    assert torch.equal(sample.rows[:n_prompt], request.prompt_rows)
    assert request.known_codes is not None
    tail = sample.rows[n_prompt : n_prompt + len(request.known_codes), 1:]
    known = request.known_codes >= 0
    assert torch.equal(tail[known], request.known_codes[known])


def test_rows_hold_all_codes_in_the_delay_pattern(config: DelayConfig, sample: Sample) -> None:
    slots = (config.audio_assistant_gen_slot_token_id, config.audio_assistant_delay_slot_token_id)
    spoken = sample.rows[(sample.rows[:, :1] == torch.tensor(slots)).any(1)]
    assert torch.equal(undelay_codes(spoken[:, 1:], config.audio_pad_code), torch.cat(AUDIO))
    text_ids = sample.rows[-(31 + 7 + 3) :, 0].tolist()
    ends = [config.audio_end_token_id, config.im_end_token_id]
    assert text_ids == [config.audio_start_token_id, *[slots[0]] * 31, *[slots[1]] * 7, *ends]


def test_every_code_is_learned_and_no_padding(config: DelayConfig, sample: Sample) -> None:
    for book in range(config.n_vq):
        learned = sample.targets[sample.learned[:, 1 + book], 1 + book]
        assert torch.equal(learned, torch.cat(AUDIO)[:, book])
    assert sample.learned[:, 0].sum() == 1 + 31 + (config.n_vq - 1) + 2


def test_noise_is_heard_and_never_learned(
    tokenizer: Any, config: DelayConfig, table: SoundTable, sample: Sample
) -> None:
    noisy = make_sample(tokenizer, config, table, TURNS, SAID, REFERENCES, noise=0.1, rng=random.Random(1))
    assert torch.equal(noisy.targets, sample.targets)
    changed = (noisy.rows != sample.rows).nonzero()
    assert 10 <= len(changed) <= 45  # a tenth of 248 codes, give or take
    assert sample.learned[changed[:, 0], changed[:, 1]].all()


def test_neighbouring_turns_of_one_speaker_share_a_tag(tokenizer: Any, config: DelayConfig, table: SoundTable) -> None:
    said = [Utterance("One.", AUDIO[0]), Utterance("Two.", AUDIO[1])]
    sample = make_sample(tokenizer, config, table, [Turn(2, "One."), Turn(2, "Two.")], said, None)
    prompt = streamer.build_prompt(tokenizer, config, "[S2]One. Two.")
    assert torch.equal(sample.rows[: len(prompt)], prompt)


def test_sounds_stand_at_the_last_bytes_of_known_words(sample: Sample, table: SoundTable) -> None:
    rows = (sample.sounds >= 0).nonzero().flatten().tolist()
    assert [written(sample, row) for row in rows] == ["Hello"]
    assert sample.sounds[rows[0]] == table.index("Hello")


def test_the_guide_goes_through_the_words_as_they_are_said(config: DelayConfig, sample: Sample) -> None:
    first = int((sample.rows[:, 0] == config.audio_start_token_id).nonzero()[-1])
    guided = sample.guide_weights.sum(1) > 0
    assert not guided[:first].any()
    assert torch.allclose(sample.guide_weights[guided].sum(1), torch.ones(int(guided.sum())))
    strongest = sample.guide[torch.arange(len(guided)), sample.guide_weights.argmax(1)]
    heard = [written(sample, row) for row in strongest[guided].tolist()]
    in_order = [word for i, word in enumerate(heard) if not i or word != heard[i - 1]]
    assert in_order == ["Hello", "there", "Hi", "How", "are", "you", "Fine"]
    # Turn 2 begins with frame 9; a word of it is looked at from there on, within the silence on either side.
    assert 9 - 3 <= heard.index("Hi") <= 9 + 1


def test_a_word_of_the_template_may_be_said(tokenizer: Any, config: DelayConfig) -> None:
    table = SoundTable({"user": "uzer"}, list("ezur"))
    sample = make_sample(
        tokenizer, config, table, [Turn(1, "A user is here.")], [Utterance("A user is here.", AUDIO[1])], None
    )
    assert (sample.sounds >= 0).sum() == 1


def test_recordings_that_are_not_of_the_turns_are_refused(
    tokenizer: Any, config: DelayConfig, table: SoundTable
) -> None:
    with pytest.raises(ValueError, match="7 words in the prompt, 3 in the recordings"):
        make_sample(tokenizer, config, table, TURNS, [SAID[0], SAID[2]], None)


def test_the_first_rows_of_another_speaker_are_marked(tokenizer: Any, config: DelayConfig, table: SoundTable) -> None:
    said = [replace(utterance, voice=voice) for utterance, voice in zip(SAID, (4, 4, 7), strict=True)]
    sample = make_sample(tokenizer, config, table, TURNS, said, REFERENCES)
    first = int((sample.rows[:, 0] == config.audio_start_token_id).nonzero()[-1]) + 1
    marked = sample.heavy.nonzero().flatten().tolist()
    assert marked == [*range(first, first + 8), *range(first + 9 + 12, first + 9 + 12 + 8)]


def test_a_question_for_yes_or_no_is_marked_in_its_words_and_at_its_end(tokenizer: Any, config: DelayConfig) -> None:
    texts = ("Is it high?", "How high is it?", "It is high.")
    table = SoundTable({"high": "hi"}, list("hi"))
    said = [Utterance(text, codes_of(20, i), 4) for i, text in enumerate(texts)]
    turns = [Turn(1 + i % 2, text) for i, text in enumerate(texts)]
    sample = make_sample(tokenizer, config, table, turns, said, None)
    sounds = table.sounds[sample.sounds[sample.sounds >= 0]]
    expected = [table.index("high", asked=asked) for asked in (True, False, False)]
    assert torch.equal(sounds, table.sounds[expected])
    first = int((sample.rows[:, 0] == config.audio_start_token_id).nonzero()[-1]) + 1
    silent = first + 20 - TAIL_FRAMES
    assert sample.heavy.nonzero().flatten().tolist() == [*range(first, first + 8), *range(silent - 8, silent + 2)]


def test_references_and_script_tell_who_speaks(
    tokenizer: Any, config: DelayConfig, table: SoundTable, sample: Sample
) -> None:
    ids = sample.rows[:, 0]
    slots = ids == config.audio_user_slot_token_id
    n_tail = config.n_vq - 1
    assert sample.speakers[slots].tolist() == [1] * (20 + n_tail) + [2] * (25 + n_tail)
    text = (sample.speakers > 0) & ~slots
    said = {n: tokenizer.decode(ids[text & (sample.speakers == n)].tolist()) for n in (1, 2)}
    assert said == {1: "[S1]Hello there.[S1]Fine.", 2: "[S2]Hi. How are you?"}
    assert (make_sample(tokenizer, config, table, TURNS, SAID, None).speakers == 0).all()


def test_drawn_samples_repeat_and_cover_tags_turns_and_noise(maker: SampleMaker, config: DelayConfig) -> None:
    drawn = [maker.draw(random.Random(seed)) for seed in range(60)]
    assert torch.equal(drawn[7].rows, maker.draw(random.Random(7)).rows)
    noisy = [not torch.equal(s.rows, s.targets) for s in drawn]
    assert any(noisy) and not all(noisy)
    tags = {tag for s in drawn for tag in range(264, 269) if (s.rows[:, 0] == tag).any()}
    assert tags == set(range(264, 269))
    per_sample = {len({tag for tag in range(264, 269) if (s.rows[:, 0] == tag).any()}) for s in drawn}
    assert {1, 2, 3, 4} <= per_sample


def test_some_have_the_references_of_who_says_nothing(maker: SampleMaker) -> None:
    """As the server's prompts have, when what a speaker said is too long ago."""
    silent = 0
    for seed in range(60):
        ids = maker.draw(random.Random(seed)).rows[:, 0].tolist()
        tags = [id_ for id_ in ids if 264 <= id_ <= 268]
        silent += any(tags.count(tag) == 1 for tag in tags)
    assert 10 < silent < 50


def test_a_voice_comes_from_another_recording_of_its_speaker(config: DelayConfig, corpus: CodedCorpus) -> None:
    utterances = {tuple(corpus.draw("high", random.Random(n)).codes[0].tolist()) for n in range(60)}
    assert len(utterances) == 6


def test_the_first_of_several_shards_is_held_out(tmp_path: Path) -> None:
    folder = tmp_path / "codes" / "high"
    folder.mkdir(parents=True)
    for shard in range(3):
        codes = np.full((8, 8), shard, np.int16)
        np.savez(folder / f"{shard:05}.npz", codes=codes, lengths=np.array([8]), texts=np.array([f"Shard {shard}."]))
    assert CodedCorpus(tmp_path, 8).words() == {"Shard", "1", "2"}
    assert CodedCorpus(tmp_path, 8, held_out=True).words() == {"Shard", "0"}


def test_questions_may_be_drawn_more_often(tmp_path: Path) -> None:
    folder = tmp_path / "codes" / "high"
    folder.mkdir(parents=True)
    texts = np.array(["Did you see it?", "Where is it?", "I saw it.", "It is here."])
    np.savez(folder / "00000.npz", codes=np.zeros((32, 8), np.int16), lengths=np.full(4, 8), texts=texts)
    plain, asking = CodedCorpus(tmp_path, 8), CodedCorpus(tmp_path, 8, questions=4)
    assert asking.n_frames == plain.n_frames == 32 and asking.shares == plain.shares

    def asked(corpus: CodedCorpus) -> float:
        rng = random.Random(3)
        return sum(corpus.draw("high", rng).text == "Did you see it?" for _ in range(700)) / 700

    assert 0.2 < asked(plain) < 0.3 and 0.5 < asked(asking) < 0.64
    with pytest.raises(ValueError, match="questions is 0, expected at least 1"):
        CodedCorpus(tmp_path, 8, questions=0)
