"""The command line as a user meets it: processes, files, exit codes, one line for each mistake."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from support import GOLDEN, decode_with_ffmpeg

from streamer.commands.bench import Stream, longest_underrun_ms, summary
from streamer_client import Audio, TurnCompleted, TurnStarted, connect

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}


def run(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamer.cli", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)


class Served:
    """A ``streamer serve`` process and its address."""

    def __init__(self, process: Process, url: str) -> None:
        self.url = url
        self._process = process
        self._asked = False

    def ask_to_stop(self) -> None:
        """Send SIGTERM, once: a second one may meet an interpreter that has put its handlers away."""
        if not self._asked:
            self._asked = True
            self._process.send_signal(signal.SIGTERM)


@asynccontextmanager
async def serving(*arguments: str) -> AsyncIterator[Served]:
    """A server in a process of its own; on exit it must stop gracefully."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streamer.cli", "serve", "--port", "0", *arguments, stdout=PIPE, env=ENVIRONMENT
    )
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 120)).decode()
        assert line.startswith("listening on ws://127.0.0.1:")
        served = Served(process, line.split()[-1])
        yield served
        served.ask_to_stop()
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def assert_speech(path: Path, seconds: float) -> None:
    """The file plays elsewhere, is about as long as said, and is neither silent nor clipped throughout."""
    samples = decode_with_ffmpeg(path.read_bytes(), 24_000)
    assert abs(len(samples) / 24_000 - seconds) < 0.1
    level = np.sqrt(np.mean(samples**2))
    assert 0.005 < level < 0.5


def seconds_said(output: str) -> float:
    return float(output.strip().rpartition(": ")[2].removesuffix(" s"))


@pytest.mark.parametrize("suffix", [".opus", ".wav"])
def test_say_speaks_in_process_with_the_embedded_model(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"x{suffix}"
    done = run("say", "[S1] Hello there. [S2] Hi, how are you?", "--out", out, "--seed", "1", "--voice", "S2=heart_low")
    assert done.returncode == 0, done.stderr
    assert_speech(out, seconds_said(done.stdout))
    turns = [line for line in done.stderr.splitlines() if line.startswith("S")]
    assert turns == ["S1 Hello there.", "S2 Hi, how are you?"]


async def test_a_served_model_is_spoken_to_by_say_and_bench(tmp_path: Path) -> None:
    async with serving() as served:
        url = served.url
        out = tmp_path / "x.opus"
        done = await asyncio.to_thread(run, "say", "-", "--out", out, "--url", url, stdin="Good morning to you.")
        assert done.returncode == 0, done.stderr
        assert_speech(out, seconds_said(done.stdout))
        bench = await asyncio.to_thread(run, "bench", "--url", url, "--clients", "2", "--text", "[S1] Hello. [S2] Hi.")
        assert bench.returncode == 0, bench.stderr
        report = json.loads(bench.stdout)
        assert (report["clients"], report["streams"], report["errors"]) == (2, 2, 0)
        assert report["ttfa_ms"]["p50"] > 0
        refused = await asyncio.to_thread(run, "say", "Hi.", "--out", out, "--url", url, "--voice", "S1=nobody")
        assert refused.returncode == 1
        assert "unknown_voice" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


async def test_sigterm_lets_a_running_turn_finish_and_exits_with_0() -> None:
    async with serving("--drain", "60") as served, connect(served.url, seed=1) as dialogue:
        frames = 0
        async for event in dialogue.say("Good morning, how are you today?"):
            if isinstance(event, TurnStarted):
                served.ask_to_stop()
            elif isinstance(event, Audio):
                frames += 1
            elif isinstance(event, TurnCompleted):
                assert event.reason == "end"
                assert event.frames == frames


async def test_the_demo_writes_a_file_that_plays(tmp_path: Path) -> None:
    out = tmp_path / "demo.opus"
    command = [sys.executable, str(ROOT / "clients/examples/demo.py"), "--out", str(out)]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    speakers = [line.split(":")[0].strip() for line in done.stdout.splitlines() if line.startswith("  S")]
    assert speakers == ["S1", "S2", "S1", "S2"]
    assert "first audio" in done.stdout
    length = next(line for line in done.stdout.splitlines() if "s of speech in" in line)
    assert_speech(out, float(length.split()[0]))


def test_voices_lists_who_can_speak() -> None:
    done = run("voices", "--json")
    assert done.returncode == 0, done.stderr
    voices = {entry["id"]: entry for entry in map(json.loads, done.stdout.splitlines())}
    assert {"heart", "joe", "heart_low"} <= voices.keys()
    for voice in voices.values():
        assert voice["licence"]
        assert voice["origin"]
        assert voice["transcript"]
        assert voice["seconds"] > 1


def no_such_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def truncated(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def other_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))


@pytest.mark.parametrize("damage", [no_such_folder, truncated, other_architecture])
def test_a_bad_checkpoint_is_one_line_and_exit_code_2(tmp_path: Path, damage: object) -> None:
    folder = tmp_path / "model"
    shutil.copytree(GOLDEN / "delay-nvq4" / "model", folder)
    assert callable(damage)
    damage(folder)
    done = run("serve", "--model", folder, "--codec", GOLDEN / "codec-nq8" / "codec", "--port", "0")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert str(folder) in done.stderr


def test_a_codec_that_does_not_fit_is_one_line_and_exit_code_2() -> None:
    done = run("serve", "--model", GOLDEN / "delay-nvq16" / "model", "--codec", GOLDEN / "codec-nq8" / "codec")
    assert done.returncode == 2
    assert "8 codebooks, the model needs 16" in done.stderr
    assert len(done.stderr.splitlines()) == 1


MISTAKES: list[tuple[list[str], str]] = [
    (["say", "Hi.", "--out", "x.mp3"], ".wav or .opus"),
    (["say", "Hi.", "--out", "/nowhere/x.wav"], "no folder /nowhere"),
    (["say", "Hi.", "--out", "x.wav", "--voice", "S7=heart"], "--voice"),
    (["say", "", "--out", "x.wav"], "text"),
    (["say", "Hi.", "--out", "x.wav", "--seed", "-1"], "seed"),
    (["say", "Hi.", "--out", "."], "--out"),
    (["bench", "--rounds", "0"], "--rounds"),
    (["serve", "--port", "99999"], "--port"),
    (["serve", "--opus-complexity", "11"], "--opus-complexity"),
    (["serve", "--null-model", "0"], "--null-model"),
    (["serve", "--threads", "-1"], "--threads"),
    (["serve", "--history-seconds", "nan"], "--history-seconds"),
    (["serve", "--kv-rows", "100000000000000"], "can't be set up"),
    (["serve", "--model", "x" * 300], "not a path"),
    (["serve", "--device", "quantum"], "device"),
    (["serve", "--dtype", "int3"], "dtype"),
    (["serve", "--max-batch", "0"], "--max-batch"),
    (["serve", "--kv-rows", "3"], "--kv-rows"),
    (["serve", "--voices", "/nowhere"], "/nowhere"),
]


@pytest.mark.parametrize(("arguments", "names"), MISTAKES, ids=[" ".join(m[0])[:40] for m in MISTAKES])
def test_a_mistake_on_the_command_line_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], names: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert names in done.stderr


def test_no_server_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    done = run("say", "Hi.", "--out", tmp_path / "x.wav", "--url", "ws://127.0.0.1:9")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    bench = run("bench", "--url", "ws://127.0.0.1:9", "--clients", "2")
    assert bench.returncode == 1
    assert json.loads(bench.stdout)["errors"] == 2


async def test_a_port_in_use_is_one_line_and_exit_code_2() -> None:
    listener = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    done = await asyncio.to_thread(run, "serve", "--port", str(port))
    listener.close()
    await listener.wait_closed()
    assert done.returncode == 2
    assert f"127.0.0.1:{port}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_underruns_are_those_of_a_player_that_waits() -> None:
    in_time = [(1.0, 80.0), (1.05, 80.0), (1.1, 80.0)]
    assert longest_underrun_ms(in_time) == 0
    # Due at 1.08 and there at 1.2: 120 ms; the next is due at 1.28 and there at 1.3: 20 ms.
    assert longest_underrun_ms([(1.0, 80.0), (1.2, 80.0), (1.3, 80.0)]) == pytest.approx(120)
    assert longest_underrun_ms([]) == 0


def test_a_summary_counts_streams_by_their_longest_underrun() -> None:
    def stream(late_s: float) -> Stream:
        return Stream([(0.5, 80.0), (0.58 + late_s, 80.0)], [400.0])

    report = summary([stream(0.0), stream(0.06), stream(0.3), Stream(error="gone")], clients=4, wall_s=2.0)
    assert (report["streams"], report["errors"]) == (3, 1)
    assert (report["c50"], report["c100"], report["c200"]) == (0.3333, 0.6667, 0.6667)
    assert report["audio_s_per_s"] == 0.24
    assert report["ttfa_ms"] == {"p50": 500.0, "p95": 500.0, "p99": 500.0}
