"""Two characters argue live, each interrupting the other, and remember only what was heard.

python clients/examples/two_agents.py --url 127.0.0.1:8000 --patience-ms 1500
"""

from __future__ import annotations

import argparse
import asyncio
import time

from streamer_client import Audio, Dialogue, Error, TurnCompleted, TurnTruncated, connect
from streamer_protocol import Speaker

ARGUMENT: dict[Speaker, list[str]] = {
    "S1": [
        "The sea is the only place for a holiday. You lie in the sun, you listen to the waves, and you do nothing.",
        "Do not be silly. At the sea you can swim every morning, and in the evening there is fish for everybody.",
        "Stop it.",
    ],
    "S2": [
        "I can not hear that any more! In the mountains you have fresh air, and at night you can see the stars.",
        "You always say that. A good walk up a hill makes you happy, and the view is worth every step of it.",
        "No.",
    ],
}


class Listener:
    """Hears everything in real time, and has had enough of a turn after `patience_ms`."""

    def __init__(self, dialogue: Dialogue, patience_ms: float) -> None:
        self._dialogue = dialogue
        self._patience_ms = patience_ms
        self._heard_ms = 0.0

    async def hear(self, turn: str, text: str) -> str:
        """Listen until the turn is over or interrupted; returns what was heard of its text."""
        audio_ms, began_s = 0.0, 0.0
        interruption: asyncio.Task[None] | None = None
        async for event in self._dialogue.events():
            if getattr(event, "turn", turn) != turn:
                continue
            if isinstance(event, Audio):
                audio_ms += event.duration_ms
                if interruption is None:
                    began_s = time.monotonic()
                    interruption = asyncio.create_task(self._interrupt(turn))
            elif isinstance(event, TurnTruncated):
                self._heard_ms += event.heard_ms
                return event.text
            elif isinstance(event, TurnCompleted) and event.reason != "cancelled" and audio_ms <= self._patience_ms:
                if interruption is not None:
                    interruption.cancel()
                await asyncio.sleep(max(began_s + audio_ms / 1000 - time.monotonic(), 0.0))
                self._heard_ms += audio_ms
                return text
            elif isinstance(event, Error):
                raise SystemExit(f"{event.code}: {event.message}")
        raise SystemExit("the session was closed")

    async def _interrupt(self, turn: str) -> None:
        await asyncio.sleep(self._patience_ms / 1000)
        await self._dialogue.cancel(turn, played_ms=round(self._heard_ms + self._patience_ms))


async def main(url: str, voices: dict[str, str], patience_ms: float, seed: int | None) -> None:
    """Let them argue; then print what each remembers, which is what the other could hear."""
    remembered: dict[Speaker, list[str]] = {"S1": [], "S2": []}
    async with connect(url, voices=voices, seed=seed) as dialogue:
        listener = Listener(dialogue, patience_ms)
        for texts in zip(*ARGUMENT.values(), strict=True):
            for speaker, text in zip(ARGUMENT, texts, strict=True):
                turn = await dialogue.turn(speaker, text)
                heard = await listener.hear(turn, text)
                end = "" if heard == text else " -- (interrupted)"
                print(f"{speaker}: {heard}{end}", flush=True)
                remembered[speaker].append(heard)
    for speaker, lines in remembered.items():
        print(f"{speaker} remembers saying: {' / '.join(lines)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="127.0.0.1:8000")
    parser.add_argument("--voices", nargs=2, default=("heart", "joe"), metavar=("S1", "S2"))
    parser.add_argument("--patience-ms", type=float, default=2000.0)
    parser.add_argument("--seed", type=int)
    given = parser.parse_args()
    voices = dict(zip(("S1", "S2"), given.voices, strict=True))
    asyncio.run(main(given.url, voices, given.patience_ms, given.seed))
