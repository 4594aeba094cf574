"""``streamer voices``: the voices a server started with the same options would offer."""

from __future__ import annotations

import argparse
import json

from rich.console import Console
from rich.table import Table

from streamer.commands.loading import add_model_options, loaded_speech


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("voices", help="list the voices")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the list."""
    with loaded_speech(arguments) as speech:
        voices = speech.voices.list()
        frame_rate = speech.codec.config.frame_rate
    table = Table("id", "seconds", "language", "licence", "origin", "transcript")
    for voice in voices:
        seconds = len(voice.codes) / frame_rate
        if arguments.json:
            fields = ("id", "language", "licence", "origin", "description", "transcript")
            entry = {name: getattr(voice, name) for name in fields}
            print(json.dumps({**entry, "seconds": round(seconds, 2)}, ensure_ascii=False))
        else:
            table.add_row(voice.id, f"{seconds:.1f}", voice.language, voice.licence, voice.origin, voice.transcript)
    if not arguments.json:
        Console().print(table)
    return 0
