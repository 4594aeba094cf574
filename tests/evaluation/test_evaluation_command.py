"""``streamer eval`` as a user meets it: the embedded model over real sockets, stand-ins for the packaged judges."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from evaluation import stand_ins
from evaluation.stand_ins import RATE

from streamer.audio import load_audio
from streamer.cli import main
from streamer.commands import evaluate
from streamer.evaluation import Judges
from streamer.server import DialogueServer, ServerConfig
from streamer.speech import Speech, SpeechConfig

ROOT = Path(__file__).parents[2]
LINE = '{"text": "[S1]Good morning to you.[S2]Hello, how are you?", "voices": {"S1": "heart", "S2": "joe"}}\n'


def judges(*texts: str) -> Judges:
    """Hearing ``texts``, and telling the embedded voices by their pitch."""
    return stand_ins.judges(*texts, encoder=stand_ins.PitchEncoder())


@pytest.fixture
def dialogues(tmp_path: Path) -> Path:
    path = tmp_path / "two.jsonl"
    path.write_text(LINE)
    return path


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server with the embedded model, in a thread of its own."""
    speech = Speech.load(SpeechConfig())
    speech.engine.start()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = DialogueServer(speech, ServerConfig(port=0, drain_s=0))
    try:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(20)
        yield server.url
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        speech.close()


def parsed(*arguments: str | Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    evaluate.add_parser(parser.add_subparsers())
    return parser.parse_args(["eval", *map(str, arguments)])


def rows_of(output: str) -> dict[tuple[str, str], list[str]]:
    """The table's figures by source and voice."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if line.startswith("│")]
    return {(row[0], row[1]): row[2:] for row in rows}


def test_a_dialogue_is_spoken_by_a_server_of_its_own_and_judged(
    dialogues: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = load_audio(ROOT / "tests/data/voices/joe.wav", 60.0)[: 3 * RATE]
    soundfile.write(tmp_path / "joe.flac", recording, RATE)
    entry = {"voice": "joe", "text": "Some words.", "path": "joe.flac"}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(entry))
    out = tmp_path / "result.json"
    arguments = parsed("--dialogues", dialogues, "--recordings", tmp_path, "--json", out, "--seed", "1")
    heard = ("good morning to you", "hello how are they", "some words", "sum words")
    assert evaluate.evaluate(arguments, lambda: judges(*heard)) == 0

    report = json.loads(out.read_text())
    assert report["model"] == "model"
    assert report["settings"]["seed"] == 1 and report["settings"]["n_dialogues"] == 1
    assert report["settings"]["sampling"]["audio_temperature"] > 0
    assert [(t["source"], t["voice"], t["n_words"], t["n_errors"]) for t in report["turns"]] == [
        ("model", "heart", 4, 0),
        ("model", "joe", 4, 1),
        ("recordings", "joe", 2, 0),
        ("codec", "joe", 2, 1),
    ]
    for turn in report["turns"]:
        assert turn["right_in_dialogue"] and turn["similarity"] > 0.5, turn
        assert 0.4 < turn["seconds"] < 6 and turn["runaway"] is None
        assert turn["n_borders"] > 3 and 0.1 < turn["click_ratio"] < 20
    assert [turn["ttfa_ms"] is None for turn in report["turns"]] == [False, False, True, True]
    rows = rows_of(capsys.readouterr().out)
    assert list(rows) == [
        ("model", "heart"),
        ("model", "joe"),
        ("model", "all"),
        ("recordings", "joe"),
        ("recordings", "all"),
        ("codec", "joe"),
        ("codec", "all"),
    ]
    assert rows["model", "all"][:3] == ["2", "0.125", "1.000"]
    assert rows["codec", "all"][1] == "0.500"


def test_limits_that_are_not_kept_give_exit_code_1(
    url: str, dialogues: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--url", url, "--dialogues", dialogues, "--json", tmp_path / "r.json", "--clients", "1", "--seed", "1")
    heard = ("good morning", "hello how are you")
    kept = parsed(*given, "--max-wer", "0.25", "--min-acc", "0.95", "--max-runaway", "0.01")
    assert evaluate.evaluate(kept, lambda: judges(*heard)) == 0
    assert capsys.readouterr().err == ""
    missed = parsed(*given, "--max-wer", "0.2", "--min-acc", "0.95", "--sampling", "audio_top_k=5")
    assert evaluate.evaluate(missed, lambda: judges(*heard)) == 1
    assert capsys.readouterr().err == "streamer eval: --max-wer 0.2: the word error rate is 0.2500\n"
    settings = json.loads((tmp_path / "r.json").read_text())["settings"]
    assert settings["sampling"] == {"audio_top_k": 5} and settings["max_wer"] == 0.2 and settings["url"] == url


def test_the_set_of_questions_says_how_much_they_rise(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "questions.json"
    arguments = parsed("--url", url, "--dialogues", "questions", "--limit", "1", "--json", out)
    assert evaluate.evaluate(arguments, lambda: judges("", "")) == 0
    report = json.loads(out.read_text())
    asked, stated = report["turns"]
    assert (asked["ending"], stated["ending"]) == ("yes_no_question", "statement")
    rise = asked["final_pitch_semitones"] - stated["final_pitch_semitones"]
    summary = report["summary"]["model"]
    assert summary["all"]["question_rise_semitones"] == pytest.approx(rise)
    assert summary[asked["voice"]]["question_rise_semitones"] is None
    rows = rows_of(capsys.readouterr().out)
    assert rows["model", "all"][-2] == f"{rise:.1f}" and rows["model", asked["voice"]][-2] == "–"


def test_a_script_in_one_pass_has_one_line_without_voices(
    url: str, dialogues: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = parsed("--url", url, "--dialogues", dialogues, "--mode", "script")
    assert evaluate.evaluate(arguments, lambda: judges("good morning to you hello how are you")) == 0
    rows = rows_of(capsys.readouterr().out)
    assert list(rows) == [("model", "all")]
    assert rows["model", "all"][:5] == ["1", "0.000", "–", "–", "–"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--clients", "0"], "--clients"),
        (["--limit", "0"], "--limit"),
        (["--seed", "-1"], "--seed"),
        (["--max-wer", "nan"], "--max-wer"),
        (["--max-runaway", "-0.1"], "--max-runaway"),
        (["--min-acc", "0.9", "--mode", "script"], "--min-acc"),
        (["--url", "ws://127.0.0.1:9", "--model", "x"], "--model"),
        (["--json", "/nowhere/x.json"], "--json"),
        (["--json", "/"], "--json"),
        (["--sampling", "warmth=3"], "audio_temperature"),
        (["--sampling", "audio_top_p=2"], "audio_top_p"),
        (["--sampling", "0.7"], "NAME=VALUE"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2_before_anything_is_loaded(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("streamer eval: ") and named in error and error.count("\n") == 1


@pytest.mark.parametrize("package", ["torch", "soxr", "faster_whisper"])
def test_a_missing_package_is_named_with_what_to_install(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["eval"]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"streamer eval: {package} is not installed; this command needs: pip install 'dialogue-streamer[eval]'\n"
    )


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the judges' packages were there."""
    monkeypatch.setattr("streamer.evaluation.missing_judge", lambda whisper: None)
    monkeypatch.setattr("streamer.evaluation.load_judges", lambda whisper, threads: judges())


@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize(
    ("line", "named"),
    [
        (None, "two.jsonl: No such file"),
        ('{"text": 1}', "two.jsonl, line 1: Expected `str`, got `int` - at `$.text`"),
        ('{"text": "Hi.", "voices": {"S1": "nobody"}}', "two.jsonl, line 1: `voices.S1`: no voice 'nobody'"),
    ],
)
def test_bad_dialogues_are_one_line_and_exit_code_2(
    url: str, dialogues: Path, capsys: pytest.CaptureFixture[str], line: str | None, named: str
) -> None:
    if line is None:
        dialogues.unlink()
    else:
        dialogues.write_text(line)
    assert main(["eval", "--url", url, "--dialogues", str(dialogues)]) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1


@pytest.mark.usefixtures("judged")
def test_bad_recordings_folders_of_voices_and_addresses_are_one_line(
    url: str, dialogues: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["eval", "--url", url, "--dialogues", str(dialogues)]
    assert main([*given, "--recordings", str(tmp_path)]) == 2
    assert main([*given, "--voices", "/nowhere"]) == 2
    assert main([*given, "--codec", str(ROOT / "streamer/assets/codec")]) == 2
    assert main(["eval", "--url", "ws://127.0.0.1:9", "--dialogues", str(dialogues)]) == 1
    lines = capsys.readouterr().err.splitlines()
    named = ("manifest.jsonl", "/nowhere", "--voices", "ws://127.0.0.1:9")
    assert len(lines) == 4 and all(name in line for name, line in zip(named, lines, strict=True))


def test_shipped_dialogues_are_known_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("held_out", "long", "questions", "numbers", "names")
    assert all(evaluate.dialogue_file(name).is_file() for name in names)
    assert evaluate.dialogue_file("mine.jsonl") == Path("mine.jsonl")
    assert evaluate.dialogue_file("../eval/long") == Path("../eval/long")
