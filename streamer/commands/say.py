"""``streamer say``: speak a script into a file, through a server that runs elsewhere or for this one call."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from streamer.commands import CommandError
from streamer.commands.loading import add_model_options, loaded_speech
from streamer_client import (
    Audio,
    AudioFileWriter,
    ClientError,
    ScriptAccepted,
    TurnCompleted,
    TurnStarted,
    connect,
)
from streamer_protocol import LocalProtocolError, Mode, Speaker

_COLOURS = ("cyan", "magenta", "yellow", "green", "blue")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("say", help="speak a script into a file")
    parser.add_argument("text", help="the script, such as '[S1] Hello. [S2] Hi.'; - reads it from stdin")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to write: .wav or .opus")
    parser.add_argument("--url", help="a running server (default: one is started for this call)")
    parser.add_argument("--voice", action="append", default=[], metavar="S1=ID", help="a speaker's voice; repeatable")
    parser.add_argument("--mode", choices=["turns", "script"], default="turns")
    parser.add_argument("--seed", type=int, help="makes the speech repeatable")
    parser.add_argument("--api-key", help="for a server that asks for one")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Speak, showing each turn as it is spoken."""
    text = sys.stdin.read() if arguments.text == "-" else arguments.text
    if arguments.out.suffix not in (".wav", ".opus"):
        raise CommandError(f"--out: {arguments.out.name} must end in .wav or .opus", 2)
    if not arguments.out.parent.is_dir():
        raise CommandError(f"--out: there is no folder {arguments.out.parent}", 2)
    if arguments.out.is_dir() or not os.access(arguments.out.parent, os.W_OK):
        raise CommandError(f"--out: {arguments.out} can't be written", 2)
    voices = parse_voices(arguments.voice)
    with contextlib.ExitStack() as stack:
        speech = None if arguments.url else stack.enter_context(loaded_speech(arguments))

        async def speak() -> None:
            async with _server_url(speech, arguments.url) as url:
                await _speak(url, text, voices, arguments)

        try:
            asyncio.run(speak())
        except LocalProtocolError as error:
            raise CommandError(str(error), 2) from error
        except (ClientError, OSError) as error:
            raise CommandError(str(error)) from error
    return 0


def parse_voices(pairs: list[str]) -> dict[str, str]:
    """``["S1=heart"]`` -> ``{"S1": "heart"}``."""
    voices: dict[str, str] = {}
    for pair in pairs:
        speaker, equals, voice = pair.partition("=")
        if not equals or speaker not in get_args(Speaker) or not voice:
            raise CommandError(f"--voice: {pair!r} is not of the form S1=ID, with S1 to S5", 2)
        voices[speaker] = voice
    return voices


@contextlib.asynccontextmanager
async def _server_url(speech: object, url: str | None) -> AsyncIterator[str]:
    """The given server, or one on a free port of this machine for as long as it is needed."""
    if url is not None:
        yield url
        return
    from streamer.server import DialogueServer, ServerConfig
    from streamer.speech import Speech

    assert isinstance(speech, Speech)
    async with DialogueServer(speech, ServerConfig(port=0, drain_s=0)) as server:
        yield server.url


async def _speak(url: str, text: str, voices: dict[str, str], arguments: argparse.Namespace) -> None:
    mode: Mode = arguments.mode
    async with connect(
        url,
        voices=voices,
        mode=mode,
        seed=arguments.seed,
        api_key=arguments.api_key,
    ) as dialogue:
        with AudioFileWriter(arguments.out, dialogue.ready.audio) as writer, _Display() as display:
            async for event in dialogue.say(text):
                if isinstance(event, Audio):
                    writer.write(event)
                display.show(event)
    print(f"{arguments.out}: {display.audio_ms / 1000:.1f} s")


class _Display:
    """A line for each turn as it is spoken, and on a terminal a line that moves."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("waiting", total=None)
        self._texts: dict[str, str] = {}
        self._speaker = ""
        self.audio_ms = 0.0
        self._began = time.monotonic()

    def __enter__(self) -> _Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: object) -> None:
        """Take note of one event."""
        if isinstance(event, ScriptAccepted):
            self._texts.update((turn.turn, turn.text) for turn in event.turns)
        elif isinstance(event, TurnStarted):
            self._speaker = event.speaker
            colour = _COLOURS[int(event.speaker[1]) - 1]
            self._console.print(f"[{colour}]{event.speaker}[/] {escape(self._texts.get(event.turn, ''))}")
        elif isinstance(event, Audio):
            self.audio_ms += event.duration_ms
            ahead = self.audio_ms / 1000 - (time.monotonic() - self._began)
            line = f"{self._speaker} speaking: {self.audio_ms / 1000:5.1f} s of audio, {ahead:+.1f} s ahead"
            self._progress.update(self._task, description=line)
        elif isinstance(event, TurnCompleted):
            first = "-" if event.ttfa_ms is None else f"{event.ttfa_ms:.0f} ms"
            speed = "-" if not event.rtf else f"{1 / event.rtf:.1f} × real time"
            note = "" if event.reason == "end" else f", {event.reason}"
            self._console.print(f"   [dim]{event.audio_ms / 1000:.1f} s, first audio after {first}, {speed}{note}[/]")
