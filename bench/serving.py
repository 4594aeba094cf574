"""A ``streamer serve`` process for a benchmark, on cores of its own, and what it has cost so far."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_STOP_S = 30.0
_PINNED = "import os, sys; os.sched_setaffinity(0, {cores}); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. ``url`` is its dialogue socket."""

    url: str
    pid: int

    def cpu_s(self) -> float:
        """Processor time of all its threads so far, user and system (Linux: from /proc)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def served(arguments: Sequence[str], cores: set[int] | None = None) -> Iterator[Server]:
    """``streamer serve`` with these arguments on a free port, bound to ``cores``; stopped in order on exit.

    Raises RuntimeError if it does not come up or does not stop by itself.
    """
    _lift_file_limit()
    command = [
        sys.executable,
        "-m",
        "streamer.cli",
        "serve",
        "--port",
        "0",
        "--drain",
        "0",
        "--log-level",
        "warning",
        *arguments,
    ]
    if cores is not None:
        command = [sys.executable, "-c", _PINNED.format(cores=cores), *command[1:]]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            raise RuntimeError(f"streamer serve {' '.join(arguments)}: it did not start; its last words are above")
        yield Server(line.split()[-1], process.pid)
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"streamer serve did not stop within {_STOP_S:g} s of SIGTERM") from error
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()


def _lift_file_limit() -> None:
    """Every listener is an open file, on both ends."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
