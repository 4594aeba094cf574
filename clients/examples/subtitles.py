"""Speak a script and write WebVTT subtitles while it is spoken: word by word if the model knows when words are said.

python clients/examples/subtitles.py "[S1] Hello there. [S2] Hi!" --out hello.vtt --audio hello.opus
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import nullcontext
from html import escape
from pathlib import Path
from typing import TextIO

import streamer_client as client

MAX_CUE_CHARS = 42


class Subtitles:
    """Writes cues in order, each as soon as it is complete. Times are milliseconds."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._words: list[tuple[str, float, float]] = []
        self._end_ms = 0.0
        file.write("WEBVTT\n")

    def word(self, speaker: str, text: str, start_ms: float, end_ms: float) -> None:
        """One word; a cue ends with a sentence, or when it is long."""
        self._words.append((text, start_ms, end_ms))
        if text.endswith((".", "!", "?")) or sum(len(word) + 1 for word, _, _ in self._words) > MAX_CUE_CHARS:
            self.flush(speaker)

    def flush(self, speaker: str) -> None:
        """What is left of a turn."""
        if self._words:
            text = " ".join(word for word, _, _ in self._words)
            self.cue(speaker, text, self._words[0][1], self._words[-1][2])
            self._words.clear()

    def cue(self, speaker: str, text: str, start_ms: float, end_ms: float) -> None:
        """One cue; it neither overlaps the one before nor is it empty."""
        start_ms = max(start_ms, self._end_ms)
        self._end_ms = max(end_ms, start_ms + 1)
        shown = escape(" ".join(text.split()), quote=False)
        self._file.write(f"\n{clock(start_ms)} --> {clock(self._end_ms)}\n<v {speaker}>{shown}\n")
        self._file.flush()


def clock(time_ms: float) -> str:
    seconds, millis = divmod(round(time_ms), 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{millis:03}"


async def speak(dialogue: client.Dialogue, script: str, out: Subtitles, writer: client.AudioFileWriter | None) -> None:
    """Follow the events of one script."""
    texts: dict[str, str] = {}
    speaker, begin_ms, audio_ms, timed = "", 0.0, 0.0, False
    async for event in dialogue.say(script):
        if isinstance(event, client.ScriptAccepted):
            texts = {turn.turn: turn.text for turn in event.turns}
        elif isinstance(event, client.TurnStarted):
            speaker, begin_ms, timed = event.speaker, audio_ms, False
        elif isinstance(event, client.Audio):
            audio_ms += event.duration_ms
            if writer is not None:
                writer.write(event)
        elif isinstance(event, client.TurnWords):
            timed = True
            for word, start_ms, end_ms in event.words:
                out.word(speaker, word, begin_ms + start_ms, begin_ms + end_ms)
        elif isinstance(event, client.TurnCompleted) and event.frames:
            out.flush(speaker)
            if not timed:
                out.cue(speaker, texts[event.turn], begin_ms, audio_ms)


async def main(given: argparse.Namespace) -> None:
    """Ask for word times; without, there is one cue for each turn."""
    for words in (True, False):
        try:
            async with client.connect(given.url, words=words) as dialogue:
                audio = client.AudioFileWriter(given.audio, dialogue.ready.audio) if given.audio else nullcontext()
                with given.out.open("w", encoding="utf-8") as out, audio as writer:
                    await speak(dialogue, given.script, Subtitles(out), writer)
                return
        except client.DialogueError as error:
            if not words or error.code != "not_supported":
                raise


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script")
    parser.add_argument("--out", type=Path, default=Path("subtitles.vtt"))
    parser.add_argument("--audio", type=Path, help="keep the speech, too: .opus or .wav")
    parser.add_argument("--url", default="127.0.0.1:8000")
    asyncio.run(main(parser.parse_args()))
