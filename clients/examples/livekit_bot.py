"""A LiveKit agent without a room: its lines are scripted, and what it says goes to a file.

python clients/examples/livekit_bot.py --url 127.0.0.1:8000 --out bot.wav
"""

from __future__ import annotations

import argparse
import asyncio
import time
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from livekit import rtc
from livekit.agents import Agent, AgentSession
from livekit.agents.voice import io

from streamer_client.livekit import TTS

LINES = [
    "Good morning! I am a voice without a room.",
    "Everything that I say is one conversation, so each sentence follows from the one before it.",
]


class WavFile(io.AudioOutput):
    """Where the session's audio goes: a WAV file, "played" as fast as it is written."""

    def __init__(self, file: wave.Wave_write, sample_rate: int) -> None:
        super().__init__(label="WavFile", capabilities=io.AudioOutputCapabilities(pause=False), sample_rate=sample_rate)
        self._file = file
        self._file.setparams((1, 2, sample_rate, 0, "NONE", ""))
        self._segment_s = 0.0

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        if not self._segment_s:
            self.on_playback_started(created_at=time.time())
        self._segment_s += frame.duration
        self._file.writeframes(bytes(frame.data))

    def flush(self) -> None:
        super().flush()
        self._played(interrupted=False)

    def clear_buffer(self) -> None:
        self._played(interrupted=True)

    def _played(self, *, interrupted: bool) -> None:
        if self._segment_s:
            seconds, self._segment_s = self._segment_s, 0.0
            self.on_playback_finished(playback_position=seconds, interrupted=interrupted)


async def words(text: str) -> AsyncIterator[str]:
    """Stands in for an LLM: one word at a time."""
    for word in text.split():
        yield f"{word} "


async def main(url: str, out: Path, voice: str | None) -> None:
    """Say the lines, one reply each."""
    tts = TTS(url, voice=voice, seed=1)
    tts.on("metrics_collected", lambda m: print(f"  first audio {m.ttfb * 1000:.0f} ms, {m.audio_duration:.1f} s"))
    session: AgentSession[Any] = AgentSession(tts=tts, vad=None, turn_handling={"turn_detection": "manual"})
    with wave.open(str(out), "wb") as file:
        session.output.audio = WavFile(file, tts.sample_rate)
        try:
            await session.start(Agent(instructions=""), record=False)
            tts.follow(session)
            for line in LINES:
                print(line)
                await session.say(words(line))
        finally:
            await session.aclose()
            await tts.aclose()
    print(f"wrote {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="127.0.0.1:8000")
    parser.add_argument("--out", type=Path, default=Path("bot.wav"))
    parser.add_argument("--voice")
    given = parser.parse_args()
    asyncio.run(main(given.url, given.out, given.voice))
