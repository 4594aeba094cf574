"""Voices: files, registry, and making one from a recording."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from streamer.audio import AudioFileError, load_audio
from streamer.codec import AudioCodec
from streamer.voices import UnknownVoice, Voice, VoiceError, VoiceRegistry
from streamer.voices.build import main as build

ASSETS = Path(__file__).parents[2] / "streamer" / "assets"
RECORDINGS = Path(__file__).parents[1] / "data" / "voices"


@cache
def codec() -> AudioCodec:
    return AudioCodec.from_pretrained(ASSETS / "codec")


def voice_file(folder: Path, name: str = "ann", **changes: Any) -> Path:
    content = {"codes": [[1, 2], [3, 4]], "transcript": "Hi.", "origin": "me", "licence": "CC0-1.0"} | changes
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}), encoding="utf-8")
    return path


def test_the_embedded_voices() -> None:
    registry = VoiceRegistry.from_folders([ASSETS / "voices"], codec())
    assert [voice.id for voice in registry.list()] == ["heart", "heart_low", "joe", "nell"]
    assert {voice.licence for voice in registry.list()} == {"Apache-2.0", "CC0-1.0"}
    for voice in registry.list():
        assert voice.codes.shape == (33, 8)
        assert voice.transcript.endswith(("?", "."))
        assert voice.origin
        assert voice is registry.get(voice.id)


@pytest.mark.parametrize("name", ["heart", "joe", "heart_low", "nell"])
def test_the_embedded_voices_are_made_from_the_recordings(name: str) -> None:
    made = Voice.from_audio(name, RECORDINGS / f"{name}.wav", "x", codec())
    kept = Voice.from_file(ASSETS / "voices" / f"{name}.json")
    assert (made.codes == kept.codes).float().mean() > 0.98


def log_spectrum(samples: np.ndarray) -> np.ndarray:
    frames = np.lib.stride_tricks.sliding_window_view(samples, 1024)[: 60 * 480 : 480] * np.hanning(1024)
    return np.log(np.abs(np.fft.rfft(frames))[:, :256] + 1e-3).ravel()


@pytest.mark.parametrize("name", ["heart", "joe", "heart_low", "nell"])
def test_a_voice_decodes_to_its_own_recording(name: str) -> None:
    decoded = codec().decode(Voice.from_file(ASSETS / "voices" / f"{name}.json").codes).numpy()
    for other in ("heart", "joe", "heart_low", "nell"):
        recording = log_spectrum(load_audio(RECORDINGS / f"{other}.wav", 5))
        likeness = np.corrcoef(log_spectrum(decoded), recording)[0, 1]
        assert likeness > 0.75 if other == name else likeness < 0.5


def test_unknown_voice_lists_the_known_ones() -> None:
    registry = VoiceRegistry.from_folders([ASSETS / "voices"], codec())
    with pytest.raises(UnknownVoice) as caught:
        registry.get("nobody")
    assert str(caught.value) == "no voice 'nobody'; known voices: heart, heart_low, joe, nell"
    with pytest.raises(UnknownVoice, match="known voices: none"):
        VoiceRegistry().get("nobody")


def test_reference_is_cut_to_the_models_codebooks() -> None:
    heart = Voice.from_file(ASSETS / "voices" / "heart.json")
    assert torch.equal(heart.reference(4), heart.codes[:, :4])
    assert heart.reference(8).shape == (33, 8)
    with pytest.raises(VoiceError, match="made with 8 codebooks, the model needs 16"):
        heart.reference(16)


def test_a_saved_voice_comes_back(tmp_path: Path) -> None:
    codes = torch.randint(0, 1024, (40, 8), generator=torch.Generator().manual_seed(0))
    voice = Voice("e-1_x", codes, '„Grüß" \n Gott', "me", "CC0-1.0", "de", "laut", "0123456789abcdef")
    read = Voice.from_file(voice.save(tmp_path / "new"))
    assert torch.equal(read.codes, codes)
    for name in ("id", "transcript", "origin", "licence", "language", "description", "codec"):
        assert getattr(read, name) == getattr(voice, name)


@pytest.mark.parametrize("voice_id", ["", "Ann", "a b", "../x", "ä", "a" * 65, "a\n"])
def test_ids_are_safe_file_names(voice_id: str) -> None:
    with pytest.raises(VoiceError) as caught:
        Voice(voice_id, torch.zeros(1, 1, dtype=torch.int64), "", "", "")
    assert caught.value.code == "bad_voice_id"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"codes": None}, "'codes' is missing"),
        ({"licence": None}, "'licence' is missing"),
        ({"transcript": 5}, "'transcript' is not a string"),
        ({"licens": "x"}, r"unknown: \['licens'\]"),
        ({"codes": []}, "'codes' is not a list"),
        ({"codes": [[1, 2], [3]]}, "'codes' is not a list"),
        ({"codes": [[1, 2.5]]}, "'codes' is not a list"),
        ({"codes": [[1, True]]}, "'codes' is not a list"),
        ({"codes": [[1, 2**70]]}, "'codes' is not a list"),
        ({"codes": [[]]}, "codes are"),
        ({"codes": [[0, 1024]]}, "codes up to 1024"),
        ({"codes": [[0, -1]]}, "codes"),
        ({"codes": [[0] * 9]}, "9 codebooks"),
    ],
)
def test_a_bad_voice_file_is_named(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    voice_file(tmp_path, "bob", **changes)
    with pytest.raises(VoiceError, match=match) as caught:
        VoiceRegistry.from_folders([tmp_path], codec())
    assert "bob" in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", "null", "\ud800"])
def test_a_file_that_is_no_voice(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(VoiceError, match=r"x\.json"):
        VoiceRegistry.from_folders([tmp_path], codec())


def test_only_codes_of_the_same_codebooks_are_taken(tmp_path: Path) -> None:
    """A codec whose decoder alone was trained on shares them; one whose codebooks moved understands something else."""
    tensors = load_file(ASSETS / "codec" / "model.safetensors")
    changed = {
        "decoder": next(name for name in tensors if name.startswith("decoder.") and name.endswith(".weight")),
        "codebook": "quantizer.quantizers.7.codebook.weight",
    }
    for folder, name in changed.items():
        shutil.copytree(ASSETS / "codec", tmp_path / folder)
        save_file({**tensors, name: tensors[name] * 1.01}, tmp_path / folder / "model.safetensors")
    wide = {name: tensor.float() for name, tensor in tensors.items()}
    shutil.copytree(ASSETS / "codec", tmp_path / "wide")
    save_file(wide, tmp_path / "wide" / "model.safetensors")

    Voice.from_audio("joe", RECORDINGS / "joe.wav", "x", codec()).save(tmp_path / "voices")
    for folder in ("decoder", "wide"):
        VoiceRegistry.from_folders([tmp_path / "voices"], AudioCodec.from_pretrained(tmp_path / folder))
    other = AudioCodec.from_pretrained(tmp_path / "codebook")
    with pytest.raises(VoiceError, match="voice joe: made with another codec") as caught:
        VoiceRegistry.from_folders([tmp_path / "voices"], other)
    assert caught.value.code == "bad_voice_codes"
    voice_file(tmp_path / "unknown")
    VoiceRegistry.from_folders([tmp_path / "unknown"], other)


def test_folders_that_are_missing_or_repeat_an_id(tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="no such folder"):
        VoiceRegistry.from_folders([tmp_path / "none"], codec())
    voice_file(tmp_path / "a")
    voice_file(tmp_path / "b")
    with pytest.raises(VoiceError, match="two voices have this id"):
        VoiceRegistry.from_folders([tmp_path / "a", tmp_path / "b"], codec())


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.1, 0.1, int(24_000 * seconds)).astype(np.float32)


@pytest.mark.parametrize(("seconds", "code"), [(0.9, "too_short"), (30.1, "too_long")])
def test_recordings_last_1_to_30_seconds(tmp_path: Path, seconds: float, code: str) -> None:
    soundfile.write(tmp_path / "x.wav", noise(seconds), 24_000)
    with pytest.raises(AudioFileError) as caught:
        Voice.from_audio("x", tmp_path / "x.wav", "x", codec())
    assert caught.value.code == code


def test_loudness_does_not_change_the_codes(tmp_path: Path) -> None:
    speech = load_audio(RECORDINGS / "joe.wav", 5)
    quiet, loud = (speech * gain / np.sqrt(np.mean(speech**2)) for gain in (0.08, 0.12))
    codes = []
    for name, samples in (("quiet", quiet), ("loud", loud)):
        soundfile.write(tmp_path / f"{name}.wav", samples, 24_000, subtype="FLOAT")
        codes.append(Voice.from_audio(name, tmp_path / f"{name}.wav", "x", codec()).codes)
    assert (codes[0] == codes[1]).float().mean() > 0.98


def test_the_last_frame_is_filled_with_silence(tmp_path: Path) -> None:
    # 12.5 frames at the level that is aimed for, so that no gain changes.
    half = np.sign(noise(1.0)) * np.float32(0.1)
    soundfile.write(tmp_path / "half.wav", half, 24_000, subtype="FLOAT")
    voice = Voice.from_audio("half", tmp_path / "half.wav", "x", codec())
    expected = codec().encode(np.pad(half, (0, 960)))
    assert voice.codes.shape == (13, 8)
    assert (voice.codes == expected).float().mean() > 0.9


def test_build_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--transcript", "Hi.", "--out", str(tmp_path), "--codec", str(ASSETS / "codec")]
    assert build([str(RECORDINGS / "joe.wav"), "--id", "my-joe", "--licence", "CC0-1.0", *common]) == 0
    assert "33 frames of 8 codebooks" in capsys.readouterr().out
    assert Voice.from_file(tmp_path / "my-joe.json").licence == "CC0-1.0"
    for arguments in (["nothing.wav", "--id", "x"], [str(RECORDINGS / "joe.wav"), "--id", "X"]):
        assert build([*arguments, *common]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
