"""Texts, shards of speech, codes: what is read aloud, what is kept, and what goes on after a stop."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest

import streamer
from streamer.evaluation import held_out_sentences
from streamer.evaluation.signals import Samples
from training import corpus as corpus_command
from training import texts as texts_module
from training.encode import CODEC, LEAD_FRAMES, TAIL_FRAMES, encode_shard
from training.grammar import make_sentence
from training.teachers import SAMPLE_RATE, VOICES, condition
from training.texts import Texts, is_speakable_sentence

TEXTS = Texts(("Doubt is not a pleasant condition.", "Tell me about the weather."), ("abacus", "zephyr", "quill"))


def hum(text: str, seed: int) -> Samples:
    """A teacher for tests: a tone as long as the text."""
    n_samples = len(text) * 600
    return (0.3 * np.sin(np.arange(n_samples) * (0.05 + seed % 7 / 100))).astype(np.float32)


def test_sentences_are_whole_and_digits_are_only_written() -> None:
    rng = random.Random(11)
    sentences = [make_sentence(rng, TEXTS.rare_words if n % 4 == 0 else ()) for n in range(2000)]
    for sentence in sentences:
        assert sentence.written[-1] in ".?!"
        assert sentence.written[0].isupper() or sentence.written[0].isdigit()
        assert "{" not in sentence.written and not any(map(str.isdigit, sentence.spoken))
    together = " ".join(s.written for s in sentences)
    for form in (
        r"\$\d",
        r"\$\d+\.\d\d",
        r"\d%",
        r"\d,\d{3}",
        r"\d\.\d ",
        r"[a-z] \d+(st|nd|rd|th)\b",
        r"\d:\d\d",
        r"Mrs\. [A-Z]",
    ):
        assert re.search(form, together), form
    assert sum(s.written.endswith("?") for s in sentences) > 300


def test_held_out_sentences_stay_out_of_the_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "almost forty minutes" in held_out_sentences()
    packaged = ["Almost forty minutes!", "Almost fifty minutes."]
    lexicon = frozenset({"almost", "forty", "fifty", "minute", "zebra"})
    monkeypatch.setattr(texts_module, "_packaged_sentences", lambda: packaged)
    monkeypatch.setattr(texts_module, "_lexicon", lambda: lexicon)
    loaded = Texts.load()
    assert loaded.packaged == ("Almost fifty minutes.",)
    assert loaded.rare_words == ("almost", "fifty", "forty", "minute", "zebra")


def test_sentences_with_unknown_or_unfit_words_are_left_out() -> None:
    lexicon = frozenset({"the", "dog", "walk", "a", "dead"})
    assert is_speakable_sentence("The dog's walking.", lexicon)
    assert not is_speakable_sentence("The xqzt dog.", lexicon)
    assert not is_speakable_sentence("A dead dog.", lexicon)
    assert not is_speakable_sentence("The DOG walks.", lexicon)
    assert not is_speakable_sentence("the dog walks.", lexicon)


def test_conditioned_speech_is_trimmed_and_even() -> None:
    speech = np.concatenate((np.zeros(9000), 0.01 * np.sin(np.arange(24_000) / 9), np.zeros(9000))).astype(np.float32)
    conditioned = condition(speech)
    assert len(conditioned) == pytest.approx(24_000 + 2 * 960, abs=100)
    assert 20 * np.log10(np.sqrt(np.mean(conditioned**2))) == pytest.approx(-21, abs=0.1)
    assert len(condition(np.zeros(100, np.float32))) == 0


def test_a_shard_depends_on_seed_voice_and_number_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_command, "SHARD_UTTERANCES", 5)
    paths = [tmp_path / name / "00003.npz" for name in ("a", "b")]
    hours = [corpus_command.write_shard(path, hum, TEXTS, "joe", 3, seed=1) for path in paths]
    first, second = (dict(np.load(path)) for path in paths)
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert hours[0] == corpus_command.shard_hours(paths[0]) == first["lengths"].sum() / SAMPLE_RATE / 3600
    assert len(first["samples"]) == first["lengths"].sum()
    other = tmp_path / "other.npz"
    corpus_command.write_shard(other, hum, TEXTS, "joe", 4, seed=1)
    assert list(np.load(other)["texts"]) != list(first["texts"])


def test_the_command_stops_at_its_hours_and_goes_on_from_its_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_command, "SHARD_UTTERANCES", 5)
    monkeypatch.setattr(corpus_command, "load_teacher", lambda voice: hum)
    monkeypatch.setattr(Texts, "load", classmethod(lambda cls, seed: TEXTS))
    corpus_command.main(["--out", str(tmp_path), "--hours", "heart=0.001,joe=0.002"])
    shards = {v: corpus_command.shard_paths(tmp_path, v) for v in VOICES}
    assert shards["heart"] and len(shards["joe"]) > len(shards["heart"]) and not shards["heart_low"]
    assert 0.002 <= sum(map(corpus_command.shard_hours, shards["joe"])) < 0.006
    before = {path: path.read_bytes() for path in shards["joe"]}
    corpus_command.main(["--out", str(tmp_path), "--hours", "joe=0.006"])
    assert all(path.read_bytes() == data for path, data in before.items())
    assert len(corpus_command.shard_paths(tmp_path, "joe")) > len(before)


@pytest.mark.parametrize("text", ["nobody=3", "heart", "heart=1,,joe=2"])
def test_hours_of_a_wrong_form_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="voice=hours"):
        corpus_command.parse_hours(text)


def test_codes_of_a_shard_are_the_codecs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_command, "SHARD_UTTERANCES", 2)
    speech = tmp_path / "speech" / "heart" / "00000.npz"
    corpus_command.write_shard(speech, hum, TEXTS, "heart", 0, seed=0)
    codec = streamer.AudioCodec.from_pretrained(CODEC)
    encode_shard(codec, speech, tmp_path / "codes.npz")
    shard, codes = np.load(speech), np.load(tmp_path / "codes.npz")
    assert list(codes["texts"]) == list(shard["texts"])
    begin = 0
    for n_frames, n_samples in zip(codes["lengths"], shard["lengths"], strict=True):
        assert n_frames == LEAD_FRAMES + TAIL_FRAMES + -(-n_samples // 1920)
        begin += n_frames
    assert begin == len(codes["codes"])
    last = shard["samples"][shard["lengths"][0] :].astype(np.float32) / 32768
    expected = codec.encode(np.pad(last, (1920, 3840)), pad_tail=True)
    assert np.array_equal(codes["codes"][codes["lengths"][0] :], expected.numpy())
