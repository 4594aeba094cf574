"""A turn whose text comes in pieces: from what the wire brings to what can be spoken."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable

from streamer.performance import Performance
from streamer.speech import Speech
from streamer.text import has_tag, normalize_text
from streamer.text.pieces import PieceReader

_log = logging.getLogger(__name__)
# A tag that is cut in two by a border of messages is found in this much of the text before it.
_TAG_CHARS = 8


class TaggedText(ValueError):
    """A speaker tag in the text of one turn."""


class LiveTurn:
    """Reads one turn's text, in a task of its own so that it comes in order, and gives it to the performance.

    Speech starts at the first border of a sentence or clause, or after ``pause_s`` without more text, or at
    :meth:`commit`. ``on_end`` is called when all has been handed over.
    """

    def __init__(
        self,
        turn: str,
        performance: Performance,
        speech: Speech,
        language: str | None,
        pause_s: float,
        on_end: Callable[[str], None],
    ) -> None:
        self._turn = turn
        self._performance = performance
        self._workers = speech.workers
        self._reader = PieceReader(language)
        self._pause_s = pause_s
        # A text, or None at the commit.
        self._arrived: asyncio.Queue[str | None] = asyncio.Queue()
        self._tail = ""
        self._cancelled = False
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: on_end(turn))

    def append(self, text: str) -> None:
        """The next piece of text; raises TaggedText."""
        seam = self._tail + text
        if has_tag(seam):
            raise TaggedText
        self._tail = seam[-_TAG_CHARS:]
        self._arrived.put_nowait(text)

    def commit(self) -> None:
        """No more text comes."""
        self._arrived.put_nowait(None)

    def cancel(self) -> None:
        """Forget what was not handed over."""
        self._cancelled = True
        self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._read()
        except Exception:
            _log.exception("text in pieces could not be read")
            self._performance.cancel(self._turn)

    async def _read(self) -> None:
        while True:
            try:
                text = await asyncio.wait_for(self._arrived.get(), self._pause_s if self._reader.pending else None)
            except asyncio.TimeoutError:
                await self._speak(self._reader.flush)
                continue
            if self._cancelled:
                # asyncio's wait_for loses a cancellation that comes together with the text.
                return
            if text is None:
                break
            # What came meanwhile is one piece of work.
            while not self._arrived.empty():
                more = self._arrived.get_nowait()
                if more is None:
                    self._arrived.put_nowait(None)
                    break
                text += more
            await self._speak(functools.partial(self._reader.feed, text))
        await self._speak(self._reader.flush)
        self._performance.commit(self._turn)

    async def _speak(self, read: Callable[[], list[str]]) -> None:
        """Hand over what a worker reads: finding borders takes a moment."""
        work = self._workers.submit(lambda: [normalize_text(piece) for piece in read()])
        for piece in await asyncio.wrap_future(work):
            self._performance.append(self._turn, piece)
