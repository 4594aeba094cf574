"""Speak text while it is being written, the way an LLM streams it, and interrupt it the way a listener does.

python clients/examples/live_llm.py --url 127.0.0.1:8000 --interrupt-after-ms 1500
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from streamer_client import Audio, Reconnecting, Resumed, TurnCompleted, TurnStarted, TurnTruncated, connect

ANSWER = (
    "Good question. The weather will be nice all week, so you could go for a walk by the river in the morning, "
    "and when you are tired there is a small place near the bridge where they make very good tea."
)


async def words(text: str, words_per_s: float) -> AsyncIterator[str]:
    """Stands in for an LLM: one word at a time."""
    for word in text.split():
        yield f"{word} "
        await asyncio.sleep(1 / words_per_s if words_per_s else 0)


async def main(url: str, text: str, words_per_s: float, interrupt_after_ms: float, api_key: str | None) -> None:
    """Speak the text; once so much audio is there, say that half of it was heard and that this is enough."""
    audio_ms = 0.0
    interrupted = False
    async with connect(url, api_key=api_key) as dialogue:
        async with aclosing(dialogue.say_stream("S1", words(text, words_per_s))) as events:
            async for event in events:
                if isinstance(event, TurnStarted):
                    print(f"{event.turn} started")
                elif isinstance(event, Audio):
                    audio_ms += event.duration_ms
                    if interrupt_after_ms and not interrupted and audio_ms >= interrupt_after_ms:
                        interrupted = True
                        print(f"the listener interrupts after {audio_ms / 2:.0f} ms")
                        await dialogue.cancel(event.turn, played_ms=round(audio_ms / 2))
                elif isinstance(event, TurnTruncated):
                    print(f"{event.turn} is kept as far as it was heard, {event.heard_ms} ms: {event.text!r}")
                elif isinstance(event, TurnCompleted):
                    print(f"{event.turn} completed after {event.audio_ms} ms of audio ({event.reason})")
                elif isinstance(event, Reconnecting | Resumed):
                    print(event)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="127.0.0.1:8000")
    parser.add_argument("--api-key")
    parser.add_argument("--text", default=ANSWER)
    parser.add_argument("--words-per-s", type=float, default=20.0, help="0: as fast as they can be sent")
    parser.add_argument("--interrupt-after-ms", type=float, default=0.0, help="0: listen to the end")
    given = parser.parse_args()
    asyncio.run(main(given.url, given.text, given.words_per_s, given.interrupt_after_ms, given.api_key))
