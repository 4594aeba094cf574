"""The ``streamer`` command. ``say --url`` and ``bench`` need the base install only, the rest the extra ``server``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from streamer import __version__
from streamer.commands import CommandError, bench, evaluate, keys, say, serve, voices


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 done, 1 it failed, 2 it was asked for something impossible."""
    parser = argparse.ArgumentParser(prog="streamer", description="Real-time spoken dialogue.")
    parser.add_argument("--version", action="version", version=f"streamer {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for module in (serve, say, voices, keys, bench, evaluate):
        module.add_parser(commands)
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except CommandError as error:
        print(f"streamer {arguments.command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
