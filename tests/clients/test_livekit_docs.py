"""The LiveKit examples and what docs/livekit.md says: each runs, and speaks. So does LiveKit's own OpenAI plugin."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import re
import subprocess
import sys
import wave
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("livekit.agents", reason="livekit-agents is not installed")
pytest.importorskip("livekit.plugins.openai", reason="livekit-plugins-openai is not installed")

from clients.livekit_rig import QUICK, embedded, pcm
from livekit.agents import AgentSession, APIStatusError, tts
from livekit.plugins import openai
from serving import running

from streamer.server import DialogueServer
from streamer_client.livekit import TTS
from streamer_protocol import Limits

ROOT = Path(__file__).parents[2]
SHORT = Limits(max_turn_audio_ms=1200)
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "livekit.md").read_text(), re.DOTALL)


async def run(folder: Path, *arguments: str) -> str:
    """The output of a Python that must succeed, and must not complain."""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def example(name: str) -> ModuleType:
    """An example, imported and not run."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "clients" / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def for_the_test(code: str, server: DialogueServer) -> str:
    """A snippet with the test's port; all else is word for word."""
    return code.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")


async def test_the_bot_and_the_documents_snippets_run(tmp_path: Path) -> None:
    in_an_agent, complete_text, stock_plugin = SNIPPETS
    bot = str(ROOT / "clients" / "examples" / "livekit_bot.py")
    async with embedded() as server:
        told, *said = await asyncio.gather(
            run(tmp_path, bot, "--url", server.url, "--out", "bot.wav"),
            run(tmp_path, "-c", for_the_test(complete_text, server)),
            run(tmp_path, "-c", for_the_test(stock_plugin, server)),
        )
    assert told.count("first audio") == 2
    assert told.endswith("wrote bot.wav\n")
    assert all(float(line.removesuffix(" s\n")) > 0.5 for line in said)
    for name, least_samples in (("bot.wav", 3 * 24_000), ("hello.wav", 12_000)):
        with wave.open(str(tmp_path / name)) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
            assert file.getnframes() > least_samples
            assert set(file.readframes(12_000)) != {0}
    # It needs a room, which is not to be had here: the names in it are right.
    names: dict[str, object] = {}
    exec(in_an_agent, names)
    assert inspect.iscoroutinefunction(names["speak"])


async def test_the_full_agent_can_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    agent = example("livekit_agent")
    session, speaker = agent.build()
    try:
        assert isinstance(session, AgentSession)
        assert isinstance(session.tts, TTS)
        assert session.tts is speaker
    finally:
        await session.aclose()
        await speaker.aclose()


async def test_livekits_openai_plugin_speaks_by_our_http() -> None:
    async with embedded() as server:
        for container in ("opus", "wav", "pcm"):
            stock = openai.TTS(
                base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", voice="heart", response_format=container
            )
            try:
                async with stock.synthesize("Hello there.", conn_options=QUICK) as chunks:
                    assert len(pcm([audio.frame async for audio in chunks])) > 24_000
                # As an agent uses it: sentence by sentence.
                async with tts.StreamAdapter(tts=stock).stream(conn_options=QUICK) as stream:
                    stream.push_text("Good morning, how are you today? ")
                    stream.push_text("I am very well, thank you for asking.")
                    stream.end_input()
                    assert len(pcm([audio.frame async for audio in stream])) > 4 * 24_000
            finally:
                await stock.aclose()


async def test_livekits_openai_plugin_is_told_what_is_wrong() -> None:
    async with running(SHORT) as server:
        stock = openai.TTS(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", voice="nobody")
        try:
            async with stock.synthesize("Hello there.", conn_options=QUICK) as chunks:
                with pytest.raises(APIStatusError) as caught:
                    _ = [audio async for audio in chunks]
            assert (caught.value.status_code, caught.value.retryable) == (400, False)
        finally:
            await stock.aclose()
