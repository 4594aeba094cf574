"""``streamer keys``: make, list and revoke the API keys of a server."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from streamer.commands import CommandError

if TYPE_CHECKING:
    from streamer.server.keys import Scope

_FILE_VARIABLE = "STREAMER_SERVER__KEYS_FILE"
_DEFAULT_FILE = "keys.jsonl"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("keys", help="make, list and revoke API keys")
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    add = actions.add_parser("add", help="make a key and print it, this once")
    add.add_argument("name", metavar="NAME", help="letters, digits and _ . -, up to 64")
    add.add_argument(
        "--scopes",
        metavar="LIST",
        help="with commas between: dialogue, speech, voices:read, voices:write, tokens, metrics; or all "
        "(default: dialogue,speech,voices:read)",
    )
    add.add_argument("--max-sessions", type=int, metavar="N", help="sessions at once (default: the server's limit)")
    add.set_defaults(run=run_add)
    listing = actions.add_parser("list", help="list the keys, which are kept as hashes only")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    listing.set_defaults(run=run_list)
    revoke = actions.add_parser("revoke", help="end a key; a running server follows at once")
    revoke.add_argument("name", metavar="NAME")
    revoke.set_defaults(run=run_revoke)
    for action in (add, listing, revoke):
        action.add_argument(
            "--file",
            type=Path,
            default=Path(os.environ.get(_FILE_VARIABLE) or _DEFAULT_FILE),
            metavar="PATH",
            help=f"file of keys (default: ${_FILE_VARIABLE}, or {_DEFAULT_FILE})",
        )


def run_add(arguments: argparse.Namespace) -> int:
    """Make a key. It alone goes to stdout, so that a script can take it."""
    from streamer.server.keys import DEFAULT_SCOPES, KeyFileError, add_key

    scopes = DEFAULT_SCOPES if arguments.scopes is None else _parse_scopes(arguments.scopes)
    try:
        key, record = add_key(arguments.file, arguments.name, scopes, arguments.max_sessions)
    except KeyFileError as error:
        raise CommandError(str(error), 2) from error
    print(f"added {record.name} to {arguments.file} with {', '.join(record.scopes)}", file=sys.stderr)
    print("this is the only time the key is shown:", file=sys.stderr)
    print(key)
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """List the keys."""
    from streamer.server.keys import KeyFileError, read_keys

    if not arguments.file.exists():
        raise CommandError(f"keys file {arguments.file}: there is none; `streamer keys add NAME` makes it", 2)
    try:
        records = read_keys(arguments.file)
    except KeyFileError as error:
        raise CommandError(str(error), 2) from error
    table = Table("name", "made", "scopes", "sessions")
    for record in records:
        made = record.created.isoformat()
        if arguments.json:
            fields = {"created": made, "scopes": record.scopes, "max_sessions": record.max_sessions}
            print(json.dumps({"name": record.name, **fields}))
        else:
            limit = "" if record.max_sessions is None else str(record.max_sessions)
            table.add_row(record.name, made, " ".join(record.scopes), limit)
    if not arguments.json:
        Console().print(table)
    return 0


def run_revoke(arguments: argparse.Namespace) -> int:
    """End a key."""
    from streamer.server.keys import KeyFileError, revoke_key

    try:
        revoke_key(arguments.file, arguments.name)
    except KeyFileError as error:
        raise CommandError(str(error), 2) from error
    print(f"revoked {arguments.name}", file=sys.stderr)
    return 0


def _parse_scopes(text: str) -> list[Scope]:
    from streamer.server.keys import SCOPES

    if text == "all":
        return sorted(SCOPES)
    names = [name.strip() for name in text.split(",") if name.strip()]
    chosen = [scope for scope in SCOPES if scope in names]
    unknown = [name for name in names if name not in SCOPES]
    if unknown or not chosen:
        wrong = unknown[0] if unknown else text
        raise CommandError(f"--scopes: there is no scope {wrong!r}; there are {', '.join(sorted(SCOPES))}", 2)
    return chosen
