"""Recordings by their manifest, and the same through the codec."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from evaluation.stand_ins import RATE, tone
from support import load_codec

from streamer.evaluation import EvaluationError, read_recordings, through_codec

VOICES = ("ann", "bob", "cid")
GOOD = {"voice": "bob", "text": "Hello there.", "path": "a.flac"}


def write(folder: Path, *lines: object) -> Path:
    soundfile.write(folder / "a.flac", tone(300, 0.5), RATE)
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / "manifest.jsonl").write_text(text)
    return folder


def test_recordings_come_at_24_khz_with_who_reads_what(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "b.wav", np.stack([tone(300, 1.0)[::3]] * 2, axis=1), RATE // 3)
    place = {"cast": ["ann", "bob"], "dialogue": 3, "turn": 1}
    first, second = read_recordings(write(tmp_path, GOOD, {**GOOD, "path": "b.wav", **place}), VOICES)
    assert (first.source, first.voice, first.text, first.reason) == ("recordings", "bob", "Hello there.", "end")
    assert np.allclose(first.samples, tone(300, 0.5), atol=1e-4)
    assert first.cast == VOICES
    assert (second.cast, second.dialogue, second.turn) == (("ann", "bob"), 3, 1)
    assert len(second.samples) == RATE


@pytest.mark.parametrize(
    ("line", "code", "named"),
    [
        ("{", "bad_line", "line 2"),
        ({"voice": "bob", "text": "Hi."}, "bad_line", "`path`"),
        ({**GOOD, "speed": 3}, "bad_line", "`speed`"),
        ({**GOOD, "text": "?"}, "bad_line", "`text`"),
        ({**GOOD, "voice": "eve"}, "unknown_voice", "`voice`: no voice 'eve'; known voices: ann, bob, cid"),
        ({**GOOD, "cast": ["bob", "eve"]}, "unknown_voice", "`cast`: no voice 'eve'"),
        ({**GOOD, "cast": ["ann"]}, "bad_line", "`cast`: bob itself"),
        ({**GOOD, "path": "none.flac"}, "bad_recording", "none.flac"),
        ({**GOOD, "path": "manifest.jsonl"}, "bad_recording", "not a readable audio file"),
    ],
)
def test_a_bad_line_of_the_manifest_is_named_with_its_field(
    tmp_path: Path, line: object, code: str, named: str
) -> None:
    folder = write(tmp_path, GOOD, line)
    with pytest.raises(EvaluationError) as caught:
        read_recordings(folder, VOICES)
    assert caught.value.code == code
    assert f"{folder / 'manifest.jsonl'}, line 2" in str(caught.value) and named in str(caught.value)


def test_a_folder_without_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"manifest\.jsonl") as caught:
        read_recordings(tmp_path, VOICES)
    assert caught.value.code == "unreadable_file"


def test_through_the_codec_everything_but_the_sound_stays(tmp_path: Path) -> None:
    codec = load_codec()
    recorded = read_recordings(write(tmp_path, GOOD), VOICES)
    done: list[None] = []
    for n_vq in (2, None):
        (coded,) = through_codec(recorded, codec, n_vq, lambda: done.append(None))
        codes = codec.encode(recorded[0].samples, pad_tail=True)
        assert np.array_equal(coded.samples, codec.decode(codes[:, :n_vq]).numpy())
        assert (coded.source, coded.voice, coded.cast, coded.text) == ("codec", "bob", VOICES, "Hello there.")
    assert len(done) == 2
