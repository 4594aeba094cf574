"""One progress bar for all training commands: moving on a terminal, a line now and then in a log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_LOG_SECONDS = 15.0


class Bar:
    """Counts work done; ``note`` is shown beside it."""

    def __init__(self, progress: Progress, name: str, total: float, unit: str) -> None:
        self._progress = progress
        self._task = progress.add_task(name, total=total, note="")
        self._name, self._total, self._unit = name, total, unit
        self._done = 0.0
        self._began = self._logged = time.monotonic()

    def aim(self, total: float) -> None:
        """Change where the bar goes to."""
        self._total = total
        self._progress.update(self._task, total=total)

    def advance(self, amount: float, note: str = "") -> None:
        """Add ``amount`` to the work done."""
        self._done += amount
        self._progress.update(self._task, advance=amount, note=note)
        now = time.monotonic()
        if self._progress.disable and now - self._logged >= _LOG_SECONDS:
            self._logged = now
            took = f"{now - self._began:.0f} s"
            print(f"{self._name} {self._done:.5g} of {self._total:.5g} {self._unit}, {took} {note}", flush=True)


@contextlib.contextmanager
def progress_bar(name: str, total: float, unit: str) -> Iterator[Bar]:
    """A bar that goes to ``total``."""
    console = Console(stderr=True)
    columns = (TextColumn(name), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield Bar(progress, name, total, unit)
