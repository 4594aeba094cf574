"""Clients that behave: whatever happens around them, they must be served, in order and without a gap."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp

from bench.soaking.relay import Relay
from bench.soaking.tally import Tally
from bench.soaking.target import Target
from streamer_client import Audio, ClientError, DialogueError, Event, Resumed, connect, open_connection
from streamer_client.dialogue import Dialogue
from streamer_protocol import AudioFormat, Error, TurnCompleted

SCRIPT = "[S1] Hello there. [S2] Hi, how are you? [S1] Very well, thank you."
TEXT = "The weather is so nice today, let us go for a walk, and then have a cup of tea."
_PATIENCE_S = 120.0
# Refusals that a client in its right mind may meet at a busy server.
_BUSY = ("overloaded", "rate_limited")
_FORMATS = (AudioFormat(), AudioFormat(format="mulaw"), AudioFormat(format="pcm_s16le"), AudioFormat(frame_ms=20))


class Ear:
    """Listens to one dialogue: its frames come in order, and none of a turn that is over."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._next_frame = 0
        self._over: set[str] = set()
        self._turned_away: set[str | None] = set()
        self.heard_ms = 0.0

    def hear(self, event: Event) -> None:
        tally = self._tally
        if isinstance(event, Audio):
            tally.frames += 1
            self.heard_ms += event.duration_ms
            if event.frame != self._next_frame:
                tally.gap(f"a guest got frame {event.frame} in place of {self._next_frame}")
            self._next_frame = event.frame + 1
            if event.turn in self._over:
                tally.problem(f"audio of turn {event.turn} after its turn.completed")
            return
        tally.received += 1
        if isinstance(event, TurnCompleted):
            self._over.add(event.turn)
            tally.turns[event.reason] += 1
            if event.reason == "error" and event.turn not in self._turned_away:
                tally.problem(f"turn {event.turn} of a guest failed")
        elif isinstance(event, Resumed):
            tally.resumes += 1
        elif isinstance(event, Error):
            tally.refusals[event.code] += 1
            if event.code in _BUSY:
                self._turned_away.add(event.turn)
            else:
                tally.problem(f"a guest was told {event.code}: {event.message}")


class Guests:
    """One life at a time by :meth:`live`; each picks what it does by its dice."""

    def __init__(self, target: Target, tally: Tally) -> None:
        self._target = target
        self._tally = tally
        self._lives: list[Callable[[random.Random], Awaitable[None]]] = [
            self._script,
            self._live_text,
            self._barge_in,
            self._cuts,
            self._contexts,
            self._http,
        ]

    async def live(self, dice: random.Random) -> None:
        """Come, speak, listen, go."""
        tally, life = self._tally, dice.choice(self._lives)
        tally.connects += 1
        try:
            await asyncio.wait_for(life(dice), _PATIENCE_S)
        except DialogueError as error:
            tally.refusals[error.code] += 1
            if error.code not in _BUSY:
                tally.problem(f"{life.__name__}: {error}")
        except asyncio.TimeoutError:
            tally.problem(f"{life.__name__}: a guest was not served within {_PATIENCE_S:g} s")
        except (ClientError, aiohttp.ClientError, OSError) as error:
            tally.problem(f"{life.__name__}: {type(error).__name__}: {error}")
        tally.disconnects["in order"] += 1

    async def _script(self, dice: random.Random) -> None:
        async with connect(self._target.url, audio=dice.choice(_FORMATS), seed=dice.randrange(1000)) as dialogue:
            await self._hear_all(dialogue, Ear(self._tally))

    async def _hear_all(self, dialogue: Dialogue, ear: Ear) -> None:
        self._tally.sent += 1
        async for event in dialogue.say(SCRIPT):
            ear.hear(event)

    async def _live_text(self, dice: random.Random) -> None:
        async def words() -> AsyncIterator[str]:
            for word in TEXT.split(" "):
                self._tally.sent += 1
                yield word + " "
                await asyncio.sleep(dice.choice([0, 0, 0.01, 0.3]))

        ear = Ear(self._tally)
        async with connect(self._target.url, audio=dice.choice(_FORMATS)) as dialogue:
            async for event in dialogue.say_stream("S1", words()):
                ear.hear(event)

    async def _barge_in(self, dice: random.Random) -> None:
        """Interrupt after a few frames, twice, then hear a turn to its end."""
        ear = Ear(self._tally)
        async with connect(self._target.url, audio=dice.choice(_FORMATS)) as dialogue:
            for interrupted in (True, True, False):
                turn = await dialogue.turn("S1", TEXT if interrupted else "Yes.")
                left = dice.randrange(1, 12)
                self._tally.sent += 1
                async for event in dialogue.events():
                    ear.hear(event)
                    left -= isinstance(event, Audio)
                    if interrupted and left == 0:
                        await dialogue.cancel(played_ms=int(ear.heard_ms * dice.random()))
                        self._tally.sent += 1
                        interrupted = False
                    if isinstance(event, TurnCompleted) and event.turn == turn:
                        break

    async def _cuts(self, dice: random.Random) -> None:
        """Lose the connection again and again, and miss nothing."""
        ear, cuts = Ear(self._tally), dice.randrange(1, 5)
        async with Relay(self._target.host, self._target.port) as relay:
            async with connect(f"ws://127.0.0.1:{relay.port}", audio=dice.choice(_FORMATS)) as dialogue:
                self._tally.sent += 1
                async for event in dialogue.say(SCRIPT):
                    ear.hear(event)
                    if isinstance(event, Audio) and cuts and dice.random() < 0.1:
                        cuts -= 1
                        self._tally.disconnects["cut, to be resumed"] += 1
                        relay.cut()

    async def _contexts(self, dice: random.Random) -> None:
        """Several dialogues over one connection."""
        async with open_connection(self._target.url) as connection:

            async def one(audio: AudioFormat) -> None:
                async with connection.dialogue(audio=audio) as dialogue:
                    await self._hear_all(dialogue, Ear(self._tally))

            await asyncio.gather(*(one(dice.choice(_FORMATS)) for _ in range(3)))

    async def _http(self, dice: random.Random) -> None:
        wish = {"model": "any", "input": SCRIPT, "response_format": dice.choice(["opus", "wav", "pcm", "flac"])}
        async with aiohttp.ClientSession(self._target.http) as http:
            self._tally.sent += 1
            async with http.post("/v1/audio/speech", json={**wish, "voice": self._target.voice}) as answer:
                body = await answer.read()
                self._tally.received += 1
                if answer.status in (429, 503):
                    self._tally.refusals[f"HTTP {answer.status}"] += 1
                elif answer.status != 200 or not body:
                    self._tally.problem(f"speech over HTTP: {answer.status}, {body[:200]!r}")
