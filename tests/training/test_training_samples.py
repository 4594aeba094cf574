"""What the model is trained on is what the server gives it: rows, delay pattern, and what is to be learned."""

from __future__ import annotations

import random
from typing import Any

import torch

import streamer
from streamer.dialogue import Dialogue, DialogueSettings
from streamer.models import DelayConfig, SamplingParams
from streamer.text import Turn
from streamer.text.delay_pattern import undelay_codes
from streamer.voices import Voice
from training.samples import CodedCorpus, SampleMaker, make_sample

TURNS = [Turn(1, "Hello there."), Turn(2, "Hi. How are you?"), Turn(1, "Fine.")]


def codes_of(n_frames: int, seed: int) -> torch.Tensor:
    return torch.randint(1024, (n_frames, 8), generator=torch.Generator().manual_seed(seed))


AUDIO = [codes_of(9, 1), codes_of(12, 2), codes_of(10, 3)]
REFERENCES = [codes_of(20, 4), codes_of(25, 5)]


def test_the_prompt_is_the_servers(tokenizer: Any, config: DelayConfig) -> None:
    sample = make_sample(tokenizer, config, TURNS, AUDIO, REFERENCES)
    text = "[S1]Hello there.[S2]Hi. How are you?[S1]Fine."
    prompt = streamer.build_prompt(tokenizer, config, text, references=REFERENCES)
    assert torch.equal(sample.rows[: len(prompt)], prompt)
    assert sample.rows[len(prompt), 0] == config.audio_start_token_id


def test_a_continued_turn_begins_with_the_engines_request(tokenizer: Any, config: DelayConfig) -> None:
    voices = {n: Voice(f"v{n}", codes, "", "", "") for n, codes in enumerate(REFERENCES, start=1)}
    dialogue = Dialogue(config, tokenizer, DialogueSettings(voices, SamplingParams()))
    for index, (turn, audio) in enumerate(zip(TURNS[:2], AUDIO[:2], strict=True)):
        spoken = dialogue.begin(f"t{index}", index, [turn])
        spoken.frames, spoken.complete = list(audio.numpy()), True
    request = dialogue.request(dialogue.begin("t2", 2, TURNS[2:]))

    sample = make_sample(tokenizer, config, TURNS, AUDIO, REFERENCES, n_given=2)
    n_prompt = len(request.prompt_rows)
    # Codebooks that run behind hold codes of the given frames first, then those of the new turn.
    assert torch.equal(sample.rows[:n_prompt], request.prompt_rows)
    assert not sample.learned[:n_prompt].any()
    assert request.known_codes is not None
    tail = sample.rows[n_prompt : n_prompt + len(request.known_codes), 1:]
    known = request.known_codes >= 0
    assert torch.equal(tail[known], request.known_codes[known])
    assert torch.equal(sample.learned[n_prompt : n_prompt + len(known), 1:], ~known)


def test_rows_hold_all_codes_in_the_delay_pattern(tokenizer: Any, config: DelayConfig) -> None:
    sample = make_sample(tokenizer, config, TURNS, AUDIO, None)
    slots = (config.audio_assistant_gen_slot_token_id, config.audio_assistant_delay_slot_token_id)
    spoken = sample.rows[(sample.rows[:, :1] == torch.tensor(slots)).any(1)]
    assert torch.equal(undelay_codes(spoken[:, 1:], config.audio_pad_code), torch.cat(AUDIO))
    text_ids = sample.rows[-(31 + 7 + 3) :, 0].tolist()
    ends = [config.audio_end_token_id, config.im_end_token_id]
    assert text_ids == [config.audio_start_token_id, *[slots[0]] * 31, *[slots[1]] * 7, *ends]


def test_every_code_of_the_new_turn_is_learned_and_no_padding(tokenizer: Any, config: DelayConfig) -> None:
    whole = make_sample(tokenizer, config, TURNS, AUDIO, REFERENCES)
    assert whole.learned[:, 1:].sum() == 31 * config.n_vq
    assert whole.learned[:, 0].sum() == 1 + 31 + (config.n_vq - 1) + 2
    last = make_sample(tokenizer, config, TURNS, AUDIO, REFERENCES, n_given=2)
    for book in range(config.n_vq):
        learned = last.rows[last.learned[:, 1 + book], 1 + book]
        assert torch.equal(learned, AUDIO[2][:, book])
    assert last.learned[:, 0].sum() == 10 + (config.n_vq - 1) + 2


def test_neighbouring_turns_of_one_speaker_share_a_tag(tokenizer: Any, config: DelayConfig) -> None:
    turns = [Turn(2, "One."), Turn(2, "Two.")]
    sample = make_sample(tokenizer, config, turns, AUDIO[:2], None)
    prompt = streamer.build_prompt(tokenizer, config, "[S2]One. Two.")
    assert torch.equal(sample.rows[: len(prompt)], prompt)


def test_drawn_samples_repeat_and_cover_tags_and_continuation(maker: SampleMaker) -> None:
    drawn = [maker.draw(random.Random(seed)) for seed in range(40)]
    again = maker.draw(random.Random(7))
    assert torch.equal(drawn[7].rows, again.rows)
    # A continued sample learns nothing at its first audio row; a whole dialogue learns to begin it.
    begins = [bool(s.learned[(s.rows[:, 0] == 259).nonzero()[-1], 0]) for s in drawn]
    assert any(begins) and not all(begins)
    tags = {tag for s in drawn for tag in range(264, 269) if (s.rows[:, 0] == tag).any()}
    assert tags == set(range(264, 269))


def test_a_voice_comes_from_another_recording_of_its_speaker(config: DelayConfig, corpus: CodedCorpus) -> None:
    utterances = {tuple(corpus.draw("high", random.Random(n)).codes[0].tolist()) for n in range(60)}
    assert len(utterances) == 6
