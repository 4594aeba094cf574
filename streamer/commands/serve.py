"""``streamer serve``: the server, until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from streamer import __version__
from streamer.commands import CommandError
from streamer.commands.loading import add_model_options, require_server_packages, started_speech

if TYPE_CHECKING:
    from streamer.server.settings import Given, Settings

# Which setting each flag stands for.
_FLAGS = {
    "--host": "server.host",
    "--port": "server.port",
    "--insecure": "server.insecure",
    "--keys": "server.keys_file",
    "--secret": "server.secret_file",
    "--origin": "server.origins",
    "--host-name": "server.host_names",
    "--tls-cert": "server.tls_cert",
    "--tls-key": "server.tls_key",
    "--voices-store": "server.voices_store",
    "--drain": "server.drain_s",
    "--opus-complexity": "server.opus_complexity",
    "--max-lead": "engine.max_lead_s",
    "--max-sessions": "engine.max_sessions",
    "--max-batch": "engine.max_batch",
    "--kv-rows": "engine.kv_rows",
    "--kv": "engine.kv_format",
    "--model": "model.path",
    "--codec": "model.codec",
    "--voices": "model.voices",
    "--device": "model.device",
    "--dtype": "model.dtype",
    "--weights": "model.weights",
    "--threads": "model.threads",
    "--history-seconds": "model.history_s",
    "--null-model": "model.null_frames",
    "--log-level": "log.level",
    "--log-format": "log.format",
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("serve", help="start the server (with the embedded model if none is named)")
    _add_configuration(parser)
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port; 0 takes any free one (default: 8000)")
    _add_security(parser)
    parser.add_argument(
        "--voices-store", type=Path, metavar="DIR", help="where uploaded voices are kept (default: no uploads)"
    )
    parser.add_argument("--drain", type=float, metavar="SECONDS", help="time for turns at shutdown (default: 10)")
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], help="default: info")
    parser.add_argument("--log-format", choices=["json", "console"], help="default: json")
    parser.add_argument(
        "--max-lead",
        type=float,
        metavar="SECONDS",
        help="audio that a turn may be ahead of its listener before it pauses; 0 for no limit (default: 10)",
    )
    parser.add_argument(
        "--opus-complexity", type=int, metavar="N", help="0 to 10: less work or better sound (default: 1)"
    )
    parser.add_argument(
        "--null-model",
        type=int,
        nargs="?",
        const=1,
        metavar="FRAMES",
        help="generate nothing: play a recording at real time, FRAMES of it at once to begin with; for measurements",
    )
    add_model_options(parser)
    # What is not given on the command line is up to the file and the environment.
    parser.set_defaults(**dict.fromkeys(map(_destination, _FLAGS)), run=run)


def _add_configuration(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("configuration", "defaults, then the file, then STREAMER_… variables, then flags")
    group.add_argument("--config", type=Path, metavar="FILE", help="TOML file (default: the one STREAMER_CONFIG names)")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="any setting, such as limits.max_contexts=2; repeatable",
    )
    group.add_argument("--print-config", action="store_true", help="print the whole configuration as TOML, and exit")


def _add_security(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("security")
    group.add_argument("--keys", type=Path, metavar="FILE", help="API keys, as made by streamer keys")
    group.add_argument("--secret", type=Path, metavar="FILE", help="what tokens are signed with (default: a new one)")
    group.add_argument("--insecure", action="store_true", help="let other machines connect without keys")
    group.add_argument("--origin", action="append", metavar="ORIGIN", help="web page that may connect; repeatable")
    group.add_argument("--host-name", action="append", metavar="NAME", help="name of this server; repeatable")
    group.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate chain, PEM")
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, PEM (default: in the same file)")


def run(arguments: argparse.Namespace) -> int:
    """Serve; the address is printed on stdout once connections are taken."""
    require_server_packages()
    from streamer.server.settings import to_toml

    settings = _settings(arguments)
    if arguments.print_config:
        print(to_toml(settings), end="")
        return 0
    with _start_errors():
        _serve(settings)
    return 0


def _settings(arguments: argparse.Namespace) -> Settings:
    from streamer.server.settings import SettingsError, load_settings, setting

    try:
        flags = [setting(assignment, "--set") for assignment in arguments.set]
        return load_settings(arguments.config, os.environ, [*flags, *_given(arguments)])
    except SettingsError as error:
        raise CommandError(str(error), 2) from error


def _given(arguments: argparse.Namespace) -> Iterator[Given]:
    from streamer.server.settings import Given

    for flag, name in _FLAGS.items():
        value = getattr(arguments, _destination(flag))
        if flag == "--null-model" and value is not None and value < 1:
            raise CommandError(f"--null-model is {value}, expected at least 1", 2)
        if value is not None:
            yield Given(name, [str(v) for v in value] if isinstance(value, list) else value, flag)


def _serve(settings: Settings) -> None:
    from streamer.server import serve
    from streamer.server.auth import check_exposure
    from streamer.server.logs import configure_logging, get_logger
    from streamer.server.settings import server_config, speech_config
    from streamer.server.tracing import start_tracing

    config = server_config(settings)
    check_exposure(config.host, config.keys_file is not None, settings.server.insecure)
    log = get_logger()
    with ExitStack() as stack:
        stack.enter_context(configure_logging(settings.log.level, settings.log.format))
        if settings.tracing.endpoint is not None:
            stack.callback(start_tracing(settings.tracing.endpoint))
        speech = stack.enter_context(started_speech(speech_config(settings)))
        # What is loaded stays: a full collection that looks through all of it takes a quarter of a second.
        gc.collect()
        gc.freeze()

        def listening(url: str) -> None:
            print(f"listening on {url}", flush=True)
            log.info("server started", url=url, model=speech.name, version=__version__)

        try:
            asyncio.run(serve(speech, config, on_listening=listening))
        except OSError as error:
            raise CommandError(f"can't listen on {config.host}:{config.port}: {error.strerror or error}", 2) from error
        log.info("server stopped")


@contextmanager
def _start_errors() -> Iterator[None]:
    """What is wrong with files that the configuration names, as one line and exit code 2."""
    from streamer.server.auth import ExposureError
    from streamer.server.keys import KeyFileError
    from streamer.server.origins import OriginError
    from streamer.server.signing import SecretError
    from streamer.server.tls import TlsError
    from streamer.server.tracing import TracingUnavailable
    from streamer.voices.store import StoreError

    try:
        yield
    except (ExposureError, KeyFileError, OriginError, SecretError, StoreError, TlsError, TracingUnavailable) as error:
        raise CommandError(str(error), 2) from error


def _destination(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")
