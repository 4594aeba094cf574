"""The examples, the page about Pipecat, and Pipecat's own OpenAI service, as they stand."""

from __future__ import annotations

import asyncio
import re
import runpy
import shlex
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from clients.pipecat_running import calling
from pipecat.frames.frames import TTSAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.services.openai.tts import OpenAITTSService
from serving import running

from streamer_client.pipecat import DialogueTTSService

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pipecat.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
# Pipecat's imports are not this project's to mend.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def test_the_bot_speaks_its_script_into_a_file(tmp_path: Path) -> None:
    """By the command of the page."""
    (command,) = re.findall(r"^python (.*)$", PAGE, re.MULTILINE)
    async with running() as server:
        words = shlex.split(command.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}"))
        words[0] = str(ROOT / words[0])
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Good morning. I am a bot")
    assert "all of this is one dialogue. \nwrote hello.wav" in done.stdout
    with wave.open(str(tmp_path / "hello.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
        assert file.getnframes() >= 4 * 1920
        assert np.abs(np.frombuffer(file.readframes(4 * 1920), "<i2")).max() > 100


async def test_the_bot_says_what_is_wrong(tmp_path: Path) -> None:
    example = str(ROOT / "clients" / "examples" / "pipecat_bot.py")
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, example, "--url", "127.0.0.1:1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "cannot reach ws://127.0.0.1:1" in done.stderr
    assert not (tmp_path / "hello.wav").exists()


async def test_the_agent_is_built_without_a_network() -> None:
    agent = runpy.run_path(str(ROOT / "clients" / "examples" / "pipecat_agent.py"))
    worker = agent["build_agent"]("127.0.0.1:1", agent["Keys"]("no key"), 0, "heart")
    inner = next(part for part in worker.pipeline.processors if isinstance(part, Pipeline))
    assert [type(part).__name__ for part in inner.processors][1:-1] == [
        "SingleClientWebsocketServerInputTransport",
        "OpenAISTTService",
        "LLMUserAggregator",
        "OpenAILLMService",
        "DialogueTTSService",
        "SingleClientWebsocketServerOutputTransport",
        "LLMAssistantAggregator",
    ]


@pytest.mark.parametrize("n", range(len(SNIPPETS)))
async def test_the_pages_services_speak(n: int) -> None:
    async with running() as server:
        # The test's server has a free port and voices of its own; all else is word for word.
        code = SNIPPETS[n].replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
        code = code.replace('"heart"', '"one"').replace('"joe"', '"two"')
        names: dict[str, object] = {}
        exec(compile(code, "docs/pipecat.md", "exec"), names)
        tts = names["tts"]
        assert isinstance(tts, DialogueTTSService | OpenAITTSService)
        async with calling(tts) as call:
            await call.reply("Hello ", "there.")
            await call.stopped(1)
        if isinstance(tts, OpenAITTSService):
            await tts._client.close()  # Pipecat does not
    assert call.audio()
    assert not call.before.errors


async def test_pipecats_openai_service_speaks() -> None:
    async with running() as server:
        tts = OpenAITTSService(
            base_url=f"http://127.0.0.1:{server.port}/v1",
            api_key="any",
            settings=OpenAITTSService.Settings(voice="alloy"),
        )
        async with calling(tts) as call:
            await call.reply("Good morning. ", "How are you?")
            await call.heard_out(1)
            await call.reply("That is good.")
            await call.stopped(2)
        await tts._client.close()
    frames = call.spoken.of(TTSAudioRawFrame)
    assert {frame.sample_rate for frame in frames} == {24_000}
    assert all(call.audio(context_id) for context_id in call.contexts)
    assert bytes(call.speaker.played).startswith(call.audio(call.contexts[0]))
    assert call.assistant_messages == ["Good morning. How are you?", "That is good."]
    assert not call.before.errors
