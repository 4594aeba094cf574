"""Recordings decoded in a child process: the same samples and errors, and nothing a hostile file could use."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from streamer.audio import AudioFileError, load_audio
from streamer.audio.decode_child import DecodeLimits, decode_apart

RECORDING = Path(__file__).parents[1] / "data" / "voices" / "joe.wav"
LIMITS = DecodeLimits(max_seconds=30.0, min_seconds=1.0)


async def test_the_child_gives_what_the_reader_of_files_gives() -> None:
    data = RECORDING.read_bytes()
    np.testing.assert_array_equal(await decode_apart(data, LIMITS), load_audio(data, 30.0, 1.0))


@pytest.mark.parametrize(
    ("data", "limits", "code", "words"),
    [
        (b"", LIMITS, "unreadable", "not a readable audio file"),
        (b"RIFF" + bytes(100), LIMITS, "unreadable", "not a readable audio file"),
        (RECORDING.read_bytes(), replace(LIMITS, max_seconds=2.0), "too_long", "longer than 2 s"),
        (RECORDING.read_bytes(), replace(LIMITS, min_seconds=5.0), "too_short", "at least 5 s"),
        (RECORDING.read_bytes(), replace(LIMITS, memory_bytes=2**20), "unreadable", "time and memory"),
        (RECORDING.read_bytes(), replace(LIMITS, wall_s=0.001), "unreadable", "time and memory"),
    ],
)
async def test_what_is_wrong_is_said(data: bytes, limits: DecodeLimits, code: str, words: str) -> None:
    with pytest.raises(AudioFileError, match=words) as caught:
        await decode_apart(data, limits)
    assert caught.value.code == code
    assert "0x" not in caught.value.message


def children() -> set[str]:
    tasks = Path("/proc/self/task")
    return {child for task in tasks.iterdir() for child in (task / "children").read_text().split()}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="asks Linux for this process' children")
async def test_a_child_does_not_outlive_its_caller() -> None:
    before = children()
    decoding = asyncio.create_task(decode_apart(RECORDING.read_bytes(), LIMITS))
    while children() == before:
        await asyncio.to_thread(lambda: None)
    decoding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await decoding
    assert children() == before


HOSTILE = {
    "open a file": "open('/etc/passwd')",
    "write a file": "os.write(kept, b'x')",
    "take memory": "bytearray(2**28)",
    "take time": "while True: pass",
    "start a process": "subprocess.run(['true'])",
}


@pytest.mark.parametrize("deed", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_takes_over_the_child_can_do_little(deed: str, tmp_path: Path) -> None:
    limits = replace(LIMITS, memory_bytes=2**28, cpu_s=1)
    script = (
        "import json, os, subprocess, sys\n"
        "from streamer.audio.decode_child import DecodeLimits, confine\n"
        "kept = os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY)\n"
        "confine(DecodeLimits(**json.loads(sys.argv[1])))\n"
        f"{deed}\n"
        "print('done')\n"
    )
    command = [sys.executable, "-c", script, json.dumps(asdict(limits)), str(tmp_path / "kept")]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode != 0
    assert b"done" not in done.stdout


def test_the_child_is_given_no_secrets_and_no_heavy_library() -> None:
    script = (
        "import os, sys\n"
        "os.environ['SECRET'] = 'x'\n"
        "from streamer.audio import decode_child\n"
        "assert 'SECRET' not in decode_child._environment()\n"
        "assert not {'torch', 'aiohttp', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
