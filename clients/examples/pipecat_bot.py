"""A Pipecat bot without a microphone, a key or the internet: a scripted reply, spoken into a WAV file.

python clients/examples/pipecat_bot.py --url 127.0.0.1:8000 --out hello.wav
"""

from __future__ import annotations

import argparse
import asyncio
import wave
from pathlib import Path

from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TTSAudioRawFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from streamer_client.pipecat import DialogueTTSService

REPLIES = (
    "Good morning. I am a bot that reads from a script, so I never listen.",
    "But my voice goes on from how it spoke before, because all of this is one dialogue.",
)


class FileSink(FrameProcessor):
    """Stands where a transport would: keeps the audio that it is given, and writes it at the end."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._audio: list[TTSAudioRawFrame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Keep audio, print words, and pass everything on to whoever is next."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self._audio.append(frame)
        elif isinstance(frame, TTSTextFrame):
            print(frame.text, end=" ", flush=True)
        elif isinstance(frame, EndFrame) and self._audio:
            self._write()
        await self.push_frame(frame, direction)

    def _write(self) -> None:
        with wave.open(str(self._path), "wb") as file:
            file.setparams((self._audio[0].num_channels, 2, self._audio[0].sample_rate, 0, "NONE", ""))
            for frame in self._audio:
                file.writeframes(frame.audio)
        print(f"\nwrote {self._path}")


async def main(url: str, out: Path, api_key: str | None) -> None:
    """Speak the replies as an LLM would send them, word by word, and end the call."""
    pipeline = Pipeline([DialogueTTSService(url=url, api_key=api_key), FileSink(out)])
    worker = PipelineWorker(pipeline, enable_rtvi=False)
    errors: list[str] = []

    async def note(_: PipelineWorker, error: ErrorFrame) -> None:
        errors.append(error.error)

    worker.add_event_handler("on_pipeline_error", note)
    for reply in REPLIES:
        words = [LLMTextFrame(f"{word} ") for word in reply.split()]
        await worker.queue_frames([LLMFullResponseStartFrame(), *words, LLMFullResponseEndFrame()])
    await worker.queue_frame(EndFrame())
    runner = WorkerRunner()
    await runner.add_workers(worker)
    await runner.run()
    if errors:
        raise SystemExit("\n".join(errors))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="127.0.0.1:8000")
    parser.add_argument("--api-key")
    parser.add_argument("--out", type=Path, default=Path("hello.wav"))
    given = parser.parse_args()
    asyncio.run(main(given.url, given.out, given.api_key))
