"""What the documents say is there: links lead somewhere, and the README's Python runs as it stands."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from serving import running
from support import decode_with_ffmpeg

from streamer.engine import EngineConfig
from streamer.server import DialogueServer, ServerConfig
from streamer.speech import Speech, SpeechConfig

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=[d.name for d in DOCUMENTS])
def test_links_lead_to_files_that_exist(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", document.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (document.parent / target).exists()] == []


def run_snippet(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_the_readmes_client_speaks_into_a_file(tmp_path: Path) -> None:
    async with running() as server:
        # The test's server has a free port and voices of its own; all else is word for word.
        code = SNIPPETS[0].replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
        code = code.replace('"S1": "heart", "S2": "joe"', '"S1": "one", "S2": "two"')
        output = await asyncio.to_thread(run_snippet, code, tmp_path)
    assert output.split("\n")[:2] == ["S1 speaks", "S2 speaks"]
    assert len(decode_with_ffmpeg((tmp_path / "hello.opus").read_bytes(), 24_000)) > 1920


async def test_the_readmes_curl_commands_do_what_they_say(tmp_path: Path) -> None:
    block = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    commands = block.replace("\\\n", " ").strip().split("\n")
    shutil.copy(ROOT / "tests" / "data" / "voices" / "heart.wav", tmp_path / "anna.wav")
    speech = Speech.load(SpeechConfig(engine=EngineConfig(max_sessions=4)))
    speech.engine.start()
    answers: dict[str, str] = {}
    try:
        async with DialogueServer(speech, ServerConfig(port=0, voices_store=tmp_path / "store")) as server:
            for command in commands:
                done = await asyncio.to_thread(
                    subprocess.run,
                    command.replace("curl", "curl -sS --fail-with-body", 1).replace(":8000", f":{server.port}"),
                    shell=True,
                    cwd=tmp_path,
                    capture_output=True,
                    text=True,
                    timeout=60,
                )
                assert done.returncode == 0, (command, done.stdout, done.stderr)
                answers[command] = done.stdout
    finally:
        await asyncio.to_thread(speech.close)
    assert len(commands) == 6
    speech_command, voices, upload, _, openapi, metrics = commands
    assert answers[speech_command] == ""
    assert len(decode_with_ffmpeg((tmp_path / "hello.opus").read_bytes(), 24_000)) > 24_000
    assert {"heart", "joe"} <= {voice["id"] for voice in json.loads(answers[voices])["data"]}
    assert json.loads(answers[upload])["id"] == "anna"
    assert "/v1/audio/speech" in json.loads(answers[openapi])["paths"]
    assert "streamer_turns_total" in answers[metrics]


def test_the_readmes_parts_load() -> None:
    run_snippet(SNIPPETS[1], ROOT)
