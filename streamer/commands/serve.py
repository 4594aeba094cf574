"""``streamer serve``: the server, until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import logging

from streamer.commands import CommandError
from streamer.commands.loading import add_model_options, loaded_speech


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("serve", help="start the server (with the embedded model if none is named)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port; 0 takes any free one (default: 8000)")
    parser.add_argument("--drain", type=float, default=10.0, metavar="SECONDS", help="time for turns at shutdown")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve; the address is printed on stdout once connections are taken."""
    logging.basicConfig(level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if not 0 <= arguments.port <= 65535:
        raise CommandError(f"--port is {arguments.port}, expected 0 to 65535", 2)
    with loaded_speech(arguments) as speech:
        from streamer.server import ServerConfig, serve

        config = ServerConfig(host=arguments.host, port=arguments.port, drain_s=arguments.drain)
        try:
            asyncio.run(serve(speech, config, on_listening=lambda url: print(f"listening on {url}", flush=True)))
        except OSError as error:
            raise CommandError(f"can't listen on {arguments.host}:{arguments.port}: {error.strerror}", 2) from error
    return 0
