"""The subcommands of ``streamer``, a module each, with ``add_parser``."""

from __future__ import annotations


class CommandError(Exception):
    """Ends a command with one line on stderr and an exit code."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
