"""``streamer serve``: the server, until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import math

from streamer.commands import CommandError
from streamer.commands.loading import add_model_options, loaded_speech


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("serve", help="start the server (with the embedded model if none is named)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port; 0 takes any free one (default: 8000)")
    parser.add_argument("--drain", type=float, default=10.0, metavar="SECONDS", help="time for turns at shutdown")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument(
        "--max-lead",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="audio that a turn may be ahead of its listener before it pauses; 0 for no limit (default: 10)",
    )
    parser.add_argument(
        "--opus-complexity", type=int, default=1, metavar="N", help="0 to 10: less work or better sound (default: 1)"
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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve; the address is printed on stdout once connections are taken."""
    logging.basicConfig(level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if not 0 <= arguments.port <= 65535:
        raise CommandError(f"--port is {arguments.port}, expected 0 to 65535", 2)
    if not 0 <= arguments.opus_complexity <= 10:
        raise CommandError(f"--opus-complexity is {arguments.opus_complexity}, expected 0 to 10", 2)
    if not (arguments.max_lead == 0 or 1 <= arguments.max_lead < math.inf):
        raise CommandError(f"--max-lead is {arguments.max_lead}, expected 0, or 1 or more", 2)
    if arguments.null_model is not None and arguments.null_model < 1:
        raise CommandError(f"--null-model is {arguments.null_model}, expected at least 1", 2)
    max_lead_s = arguments.max_lead or None
    with loaded_speech(arguments, max_lead_s=max_lead_s, null_burst_frames=arguments.null_model) as speech:
        from streamer.server import ServerConfig, serve

        # What is loaded stays: a full collection that looks through all of it takes a quarter of a second.
        gc.collect()
        gc.freeze()
        config = ServerConfig(
            host=arguments.host,
            port=arguments.port,
            drain_s=arguments.drain,
            opus_complexity=arguments.opus_complexity,
        )
        try:
            asyncio.run(serve(speech, config, on_listening=lambda url: print(f"listening on {url}", flush=True)))
        except OSError as error:
            raise CommandError(f"can't listen on {arguments.host}:{arguments.port}: {error.strerror}", 2) from error
    return 0
