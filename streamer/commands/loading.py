"""The options that say which model to load, and loading it for a command."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from streamer.commands import CommandError

if TYPE_CHECKING:
    from streamer.speech import Speech, SpeechConfig

# References of five speakers, a window of history and one turn fit into less only by luck.
_LEAST_KV_ROWS = 1024


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Options shared by the commands that load a model."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", help="checkpoint folder or hub id (default: the embedded model)")
    group.add_argument("--codec", help="codec folder or hub id (default: the one that goes with the model)")
    group.add_argument(
        "--voices",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of voice files; repeatable",
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 … (default: auto)")
    group.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16 (default: auto)")
    group.add_argument("--weights", choices=("native", "bf16", "fp8"), default="native", help="format of the matrices")
    group.add_argument("--kv", choices=("native", "fp8"), default="native", help="format of keys and values")
    group.add_argument(
        "--threads", type=int, default=0, help="CPU threads for the model (default: 1 if embedded, else torch's choice)"
    )
    group.add_argument("--history-seconds", type=float, help="recent audio that a turn continues from")
    group.add_argument("--max-sessions", type=int, default=32, help="dialogues open at once (default: 32)")
    group.add_argument("--max-batch", type=int, default=16, help="turns generated at once (default: 16)")
    group.add_argument("--kv-rows", type=int, default=32_768, help="rows in the KV cache (default: 32768)")


def require_server_packages() -> None:
    """Raise CommandError (exit code 2) where only the client is installed."""
    missing = [name for name in ("torch", "transformers", "aiohttp", "soxr") if not importlib.util.find_spec(name)]
    if missing:
        raise CommandError(
            f"{missing[0]} is not installed; this command needs: pip install 'dialogue-streamer[server]'", 2
        )


@contextlib.contextmanager
def loaded_speech(arguments: argparse.Namespace) -> Iterator[Speech]:
    """The model of :func:`add_model_options`, as fast as it goes; CommandError (exit code 2) where it can't be had."""
    require_server_packages()
    from streamer.engine import EngineConfig
    from streamer.speech import SpeechConfig

    engine = EngineConfig(
        max_sessions=_at_least(arguments, "max_sessions", 1),
        max_batch=_at_least(arguments, "max_batch", 1),
        kv_rows=_at_least(arguments, "kv_rows", _LEAST_KV_ROWS),
        max_lead_s=None,
        kv_format=arguments.kv,
        bf16_codec=arguments.weights == "bf16",
    )
    config = SpeechConfig(
        model=arguments.model,
        codec=arguments.codec,
        voices=tuple(arguments.voices),
        device=arguments.device,
        dtype=arguments.dtype,
        weights=arguments.weights,
        threads=_at_least(arguments, "threads", 0),
        history_seconds=arguments.history_seconds,
        engine=engine,
    )
    seconds = arguments.history_seconds
    if seconds is not None and not 0 <= seconds < math.inf:
        raise CommandError(f"--history-seconds is {seconds}, expected 0 or more", 2)
    with started_speech(config) as speech:
        yield speech


@contextlib.contextmanager
def started_speech(config: SpeechConfig) -> Iterator[Speech]:
    """The parts of ``config``, the engine running; CommandError (exit code 2) where they can't be had."""
    from streamer.audio import OpusLibraryMissing
    from streamer.checkpoint import CheckpointError
    from streamer.speech import Speech

    try:
        speech = Speech.load(config)
    except (CheckpointError, OpusLibraryMissing) as error:
        raise CommandError(str(error), 2) from error
    except (RuntimeError, MemoryError) as error:
        # torch's word for a device that it can't use, or for sizes that don't fit.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CommandError(f"the model can't be set up on this machine: {reason}", 2) from error
    speech.engine.start()
    try:
        yield speech
    finally:
        speech.close()


def _at_least(arguments: argparse.Namespace, name: str, least: int) -> int:
    value = int(getattr(arguments, name))
    if value < least:
        raise CommandError(f"--{name.replace('_', '-')} is {value}, expected at least {least}", 2)
    return value
