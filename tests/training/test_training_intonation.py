"""Questions of the teachers rise at their ends, and nothing else of them changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamer.evaluation.signals import Samples
from training import raised
from training.codec_data import read_shard
from training.intonation import RISE_SEMITONES, intone, raise_end
from training.teachers import SAMPLE_RATE

VOICE_HZ = 125.0


def voice(seconds: float, octaves: float = 0.0) -> Samples:
    """A buzz of 125 Hz, which in the end is ``octaves`` higher, with a breath of silence on either side."""
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    hertz = VOICE_HZ * 2 ** (octaves * times / seconds)
    buzz = 0.6 * (np.cumsum(hertz) / SAMPLE_RATE % 1 - 0.5)
    return np.pad(buzz, 2400).astype(np.float32)


def pitch_hz(samples: Samples) -> float:
    """The pitch by the first peak of the autocorrelation between 80 and 400 Hz."""
    shortest, longest = SAMPLE_RATE // 400, SAMPLE_RATE // 80
    products = [float(np.dot(samples[lag:], samples[:-lag])) for lag in range(shortest, longest)]
    return SAMPLE_RATE / (shortest + int(np.argmax(products)))


@pytest.mark.parametrize("octaves", [0.0, -0.5])
def test_the_end_of_a_question_is_raised_and_what_comes_before_is_not(octaves: float) -> None:
    samples = voice(1.5, octaves)
    raised = raise_end(samples, SAMPLE_RATE)
    assert raised.shape == samples.shape and raised.dtype == np.float32
    middle = VOICE_HZ * 2 ** (octaves / 2)
    assert pitch_hz(raised[-4800:-2400]) == pytest.approx(middle * 2 ** (RISE_SEMITONES / 12), rel=0.03)
    for begin in (4800, 12_000, 20_000):
        assert pitch_hz(raised[begin : begin + 2400]) == pytest.approx(
            pitch_hz(samples[begin : begin + 2400]), rel=0.03
        )


def test_only_questions_for_yes_or_no_are_raised() -> None:
    samples = voice(1.0)
    assert intone(samples, SAMPLE_RATE, "Where did you leave the key?") is samples
    assert intone(samples, SAMPLE_RATE, "I left it at home.") is samples
    asked = intone(samples, SAMPLE_RATE, "Really? Did you find the key?")
    assert np.array_equal(asked, raise_end(samples, SAMPLE_RATE)) and not np.array_equal(asked, samples)


@pytest.mark.parametrize("seconds", [0.0, 0.05, 1.0])
def test_what_has_no_voice_stays_as_it_is(seconds: float) -> None:
    noise = np.random.default_rng(3).normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)
    assert np.array_equal(raise_end(noise, SAMPLE_RATE), noise)


def test_raised_ends_are_a_corpus_of_their_own_that_goes_on_from_its_shards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    utterances = [voice(3.0), voice(0.5)]
    for number in range(3):
        write_shard(tmp_path / "data" / "speech" / "joe" / f"{number:05}.npz", utterances)

    def run(out: str, hours: float) -> list[Path]:
        raised.main(["--corpus", str(tmp_path / "data"), "--out", str(tmp_path / out), "--hours", f"joe={hours}"])
        return sorted((tmp_path / out / "speech" / "joe_raised").iterdir())

    first = run("once", 0.0001)
    assert [path.name for path in first] == ["00000.npz"] and not capsys.readouterr().err
    recordings = read_shard(first[0])
    long, short = (np.divide(recording.read(), 32768, dtype=np.float32) for recording in recordings)
    assert len(long) == raised.KEPT_SECONDS * SAMPLE_RATE and len(short) < 0.7 * SAMPLE_RATE
    assert long[0] == short[0] == 0
    for end in (long, short):
        assert VOICE_HZ * 2 ** (3.5 / 12) < pitch_hz(end[-3840:-1440]) < VOICE_HZ * 2 ** (8.5 / 12)
    assert pitch_hz(long[4800:7200]) == pytest.approx(VOICE_HZ, rel=0.03)
    before = first[0].stat().st_mtime_ns
    assert len(run("once", 1.0)) == 3 and first[0].stat().st_mtime_ns == before
    assert "joe: 0.00 h is all that there is" in capsys.readouterr().err
    assert [path.read_bytes() for path in run("twice", 1.0)] == [path.read_bytes() for path in run("once", 1.0)]


def write_shard(path: Path, utterances: list[Samples]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = [(utterance * 32767).astype(np.int16) for utterance in utterances]
    lengths, texts = np.array(list(map(len, samples))), np.array(["I left it at home."] * len(samples))
    np.savez(path, samples=np.concatenate(samples), lengths=lengths, texts=texts)
