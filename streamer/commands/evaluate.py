"""``streamer eval``: dialogues through a real server, judged for words, voices, clicks, silence, runaways and pitch."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import math
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streamer.commands import CommandError
from streamer.commands.loading import add_model_options, loaded_speech
from streamer_client import ClientError, Sampling
from streamer_protocol import LocalProtocolError

if TYPE_CHECKING:
    from streamer.codec import AudioCodec
    from streamer.evaluation import CastDialogue, JudgedTurn, Judges, SpeakingSettings, SpokenTurn
    from streamer.speech import Speech
    from streamer.voices import VoiceRegistry

_INSTALL = "pip install 'dialogue-streamer[eval]'"
_GATES = ("max_wer", "min_acc", "max_runaway")
_TABLE_WIDTH = 170
_DIALOGUES_HELP = "JSON lines, or held_out, long, questions, numbers, names (default: held_out)"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("eval", help="speak dialogues through a server and judge them")
    add: Any = parser.add_argument
    add("--url", help="a running server (default: one is started for this call); --codec and --voices are its own")
    add("--api-key", help="for a server that asks for one")
    add("--dialogues", default="held_out", metavar="FILE", help=_DIALOGUES_HELP)
    add("--limit", type=int, metavar="N", help="only the first N dialogues")
    add("--seed", type=int, default=0, help="the first dialogue's; the others count on (default: 0)")
    add("--mode", choices=["turns", "script"], default="turns")
    add("--sampling", action="append", default=[], metavar="NAME=VALUE", help="instead of the model's; repeatable")
    add("--clients", type=int, default=8, metavar="N", help="dialogues at once (default: 8)")
    add("--recordings", type=Path, metavar="DIR", help="real speech with a manifest.jsonl, judged with its codec copy")
    add("--whisper", type=Path, metavar="DIR", help="CTranslate2 whisper model (default: from its packages)")
    add("--json", type=Path, metavar="FILE", help="where to write every turn and the means")
    add("--max-wer", type=float, metavar="SHARE", help="exit with 1 above this word error rate")
    add("--min-acc", type=float, metavar="SHARE", help="exit with 1 below this speaker accuracy")
    add("--max-runaway", type=float, metavar="SHARE", help="exit with 1 above this share of runaway turns")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Speak, judge, print the table; exit code 1 where a limit is not kept."""
    check_options(arguments)
    packages = ("torch", "transformers", "aiohttp", "soxr")
    missing = next((name for name in packages if importlib.util.find_spec(name) is None), None)
    if missing is None:
        from streamer.evaluation import missing_judge

        missing = missing_judge(arguments.whisper)
    if missing:
        raise CommandError(f"{missing} is not installed; this command needs: {_INSTALL}", 2)
    from streamer.evaluation import EvaluationError, load_judges

    try:
        return evaluate(arguments, lambda: load_judges(arguments.whisper, max(arguments.threads, 1)))
    except EvaluationError as error:
        raise CommandError(str(error), 1 if error.code == "turn_failed" else 2) from error
    except LocalProtocolError as error:
        raise CommandError(str(error), 2) from error
    except (ClientError, OSError) as error:
        raise CommandError(str(error)) from error


def check_options(arguments: argparse.Namespace) -> None:
    """CommandError (exit code 2) for what can be seen to be wrong before minutes are spent."""
    for name, least in (("clients", 1), ("limit", 1), ("seed", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise CommandError(f"--{name} is {value}, expected at least {least}", 2)
    for name in _GATES:
        value = getattr(arguments, name)
        if value is not None and not 0 <= value < math.inf:
            raise CommandError(f"--{name.replace('_', '-')} is {value}, expected a share such as 0.05", 2)
    if arguments.min_acc is not None and arguments.mode == "script":
        raise CommandError("--min-acc: who speaks is judged turn by turn, which --mode script does not give", 2)
    if arguments.url and arguments.model:
        raise CommandError("--model: the server at --url has its own; name its --codec and --voices", 2)
    out = arguments.json
    if out is not None and (not out.parent.is_dir() or out.is_dir() or not os.access(out.parent, os.W_OK)):
        raise CommandError(f"--json: {out} can't be written", 2)
    parse_sampling(arguments.sampling)


def parse_sampling(pairs: list[str]) -> Sampling:
    """``["audio_top_k=20"]`` as the protocol's own type, which knows names and ranges."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise CommandError(f"--sampling: {pair!r} is not of the form NAME=VALUE", 2)
        values[name] = value
    try:
        return msgspec.convert(values, Sampling, strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(Sampling.__struct_fields__)
        raise CommandError(f"--sampling: {error}; known names: {known}", 2) from error


def evaluate(arguments: argparse.Namespace, make_judges: Callable[[], Judges]) -> int:
    """The command with judges of the caller's choice. Raises EvaluationError, ClientError, CommandError."""
    from streamer.evaluation import (
        Gates,
        SpeakingSettings,
        read_dialogues,
        read_recordings,
        report_of,
        summaries,
        table_of,
        through_codec,
    )

    with _studio(arguments) as studio:
        voices = [voice.id for voice in studio.voices.list()]
        if not voices:
            raise CommandError("there are no voices to speak with: name a folder of them with --voices", 2)
        dialogues = read_dialogues(dialogue_file(arguments.dialogues), voices, arguments.limit)
        recorded = read_recordings(arguments.recordings, voices) if arguments.recordings else []
        judges = make_judges()
        settings = SpeakingSettings(
            mode=arguments.mode,
            seed=arguments.seed,
            clients=arguments.clients,
            sampling=parse_sampling(arguments.sampling),
            api_key=arguments.api_key,
        )
        model, spoken = _spoken(studio, arguments.url, dialogues, settings)
        with _progress("through the codec", len(recorded)) as advance:
            coded = through_codec(recorded, studio.codec, studio.n_vq, advance)
        judged = _judged(studio, [*spoken, *recorded, *coded], judges)
    named = summaries(judged)
    Console(width=max(Console().width, _TABLE_WIDTH)).print(table_of(named))
    if arguments.json:
        report = report_of(model, _settings(arguments, studio, len(dialogues)), judged)
        arguments.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    failures = Gates(*(getattr(arguments, name) for name in _GATES)).failures(named["model"]["all"])
    for failure in failures:
        print(f"streamer eval: {failure}", file=sys.stderr)
    return 1 if failures else 0


@dataclass(frozen=True, slots=True)
class Studio:
    """What an evaluation needs besides the server: its codec and voices, and with an own server the whole model."""

    codec: AudioCodec
    voices: VoiceRegistry
    speech: Speech | None = None

    @property
    def n_vq(self) -> int | None:
        """The codebooks that the model uses; None where that is not known."""
        return self.speech.model.config.n_vq if self.speech else None


@contextlib.contextmanager
def _studio(arguments: argparse.Namespace) -> Iterator[Studio]:
    if arguments.url is None:
        with loaded_speech(arguments) as speech:
            yield Studio(speech.codec, speech.voices, speech)
        return
    from streamer.checkpoint import CheckpointError
    from streamer.codec import AudioCodec
    from streamer.speech import ASSETS
    from streamer.voices import VoiceRegistry

    own = [] if arguments.codec else [ASSETS / "voices"]
    try:
        codec = AudioCodec.from_pretrained(arguments.codec or ASSETS / "codec")
        voices = VoiceRegistry.from_folders([*own, *arguments.voices], codec)
    except CheckpointError as error:
        raise CommandError(str(error), 2) from error
    yield Studio(codec, voices)


def dialogue_file(name: str) -> Path:
    """The file of this path, or the shipped one of this name."""
    from streamer.evaluation import SHIPPED

    shipped = SHIPPED / f"{name}.jsonl"
    return shipped if name.isidentifier() and shipped.is_file() else Path(name)


def _spoken(
    studio: Studio, url: str | None, dialogues: list[CastDialogue], settings: SpeakingSettings
) -> tuple[str, list[SpokenTurn]]:
    from streamer.evaluation import speak_dialogues

    async def speak() -> tuple[str, list[SpokenTurn]]:
        with _progress("speaking", len(dialogues)) as advance:
            async with _server_url(studio.speech, url) as address:
                return await speak_dialogues(address, dialogues, settings, advance)

    return asyncio.run(speak())


@contextlib.asynccontextmanager
async def _server_url(speech: Speech | None, url: str | None) -> AsyncIterator[str]:
    if speech is None:
        assert url is not None
        yield url
        return
    from streamer.server import DialogueServer, ServerConfig

    async with DialogueServer(speech, ServerConfig(port=0, drain_s=0)) as server:
        yield server.url


def _judged(studio: Studio, turns: list[SpokenTurn], judges: Judges) -> list[JudgedTurn]:
    from streamer.evaluation import judge_turns

    references = {voice.id: studio.codec.decode(voice.codes).cpu().numpy() for voice in studio.voices.list()}
    with _progress("judging", len(turns)) as advance:
        return list(judge_turns(turns, references, studio.codec.config.frame_samples, judges, advance))


def _settings(arguments: argparse.Namespace, studio: Studio, n_dialogues: int) -> dict[str, Any]:
    names = ("url", "model", "codec", "dialogues", "limit", "seed", "mode", "clients", "history_seconds", *_GATES)
    sampling = {k: v for k, v in msgspec.structs.asdict(parse_sampling(arguments.sampling)).items() if v is not None}
    defaults = asdict(studio.speech.model.default_sampling) if studio.speech else {}
    return {
        **{name: getattr(arguments, name) for name in names},
        "n_dialogues": n_dialogues,
        "voices": [voice.id for voice in studio.voices.list()],
        "sampling": defaults | sampling,
    }


@contextlib.contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[], None]]:
    console = Console(stderr=True)
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total)
        yield lambda: progress.advance(task)
