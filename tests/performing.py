"""A performance around the small random model, and a listener that keeps what it hears."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
import torch
from serving import AT_REST, WAIT_S, RecordingEngine, new_speech
from support import load_model

from streamer.audio import Packetizer
from streamer.dialogue import Dialogue, DialogueSettings, Spoken
from streamer.models import SamplingParams
from streamer.performance import Packet, Performance, TurnReport
from streamer.speech import Speech
from streamer.word_times import WordTime

GREEDY = SamplingParams(audio_temperature=0, text_temperature=0)


class Hearer:
    """Keeps what it is told. With ``allowed`` packets, the next one waits until :meth:`allow`."""

    def __init__(self, allowed: int | None = None) -> None:
        self.log: list[tuple[str, Any]] = []
        self.allowed = allowed
        self._changed = asyncio.Condition()

    async def queued(self, turn: str, position: int) -> None:
        await self._note("queued", turn)

    async def started(self, turn: str, index: int, speaker: int, first_frame: int) -> None:
        await self._note("started", (turn, index, speaker, first_frame))

    async def audio(self, packet: Packet) -> None:
        await self._note("audio", packet)
        async with self._changed:
            await self._changed.wait_for(lambda: self.allowed is None or len(self.packets) <= self.allowed)

    async def words(self, turn: str, words: Sequence[WordTime]) -> None:
        await self._note("words", (turn, list(words)))

    async def completed(self, report: TurnReport) -> None:
        await self._note("completed", report)

    async def failed(self, turn: str, code: str, message: str, retry_after_ms: int | None) -> None:
        await self._note("failed", (turn, code))

    async def idle(self) -> None:
        await self._note("idle", None)

    async def broken(self) -> None:
        await self._note("broken", None)

    async def allow(self, n_packets: int | None) -> None:
        async with self._changed:
            self.allowed = n_packets
            self._changed.notify_all()

    async def until(self, done: Callable[[], bool]) -> None:
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(done), WAIT_S)

    async def report(self, turn: str) -> TurnReport:
        await self.until(lambda: turn in self.reports)
        return self.reports[turn]

    @property
    def packets(self) -> list[Packet]:
        return self.of("audio")

    @property
    def reports(self) -> dict[str, TurnReport]:
        return {report.turn: report for report in self.of("completed")}

    def of(self, kind: str) -> list[Any]:
        return [what for name, what in self.log if name == kind]

    async def _note(self, kind: str, what: Any) -> None:
        async with self._changed:
            self.log.append((kind, what))
            self._changed.notify_all()


class OpenDialogue(Dialogue):
    """A dialogue that lets it be known when a generation is over."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.ended: asyncio.Queue[Spoken] = asyncio.Queue()

    def end(self, spoken: Spoken, *, whole: bool) -> None:
        super().end(spoken, whole=whole)
        self.ended.put_nowait(spoken)


class Stage:
    """A performance with all that it is made of."""

    def __init__(self, speech: Speech, hearer: Hearer, packetizer: Packetizer, **settings: Any) -> None:
        self.speech = speech
        self.hearer = hearer
        chosen = DialogueSettings(speech.default_voices(), **{"sampling": GREEDY, "max_turn_seconds": 20.0, **settings})
        self.dialogue = OpenDialogue(speech.model.config, speech.tokenizer, chosen)
        self.performance = Performance(speech, self.dialogue, packetizer, hearer)

    @property
    def engine(self) -> RecordingEngine:
        assert isinstance(self.speech.engine, RecordingEngine)
        return self.speech.engine

    async def part_over(self) -> Spoken:
        """The next generation that is over."""
        return await asyncio.wait_for(self.dialogue.ended.get(), WAIT_S)

    def text(self, n: int = -1) -> str:
        """The script that the n-th request was for."""
        whole: str = self.speech.tokenizer.decode(self.engine.requests[n].prompt_rows[:, 0])
        return whole.partition("- Text:\n")[2].partition("\n</user_inst>")[0]

    def continued_frames(self, n: int = -1) -> int:
        """How many frames the n-th request goes on from."""
        slot = load_model("delay-nvq4").config.audio_assistant_gen_slot_token_id
        return int((self.engine.requests[n].prompt_rows[:, 0] == slot).sum())

    def pcm(self) -> np.ndarray:
        return np.frombuffer(b"".join(p.payload for p in self.hearer.packets), "<i2").astype(np.float32) / 32768

    def history_codes(self) -> torch.Tensor:
        return torch.from_numpy(np.stack([frame for entry in self.dialogue.history for frame in entry.frames]))


@contextlib.asynccontextmanager
async def on_stage(
    allowed: int | None = None,
    packetizer: Packetizer | None = None,
    engine: dict[str, int] | None = None,
    **settings: Any,
) -> AsyncIterator[Stage]:
    """A performance of its own; on exit nothing may be held any more."""
    speech = new_speech(**(engine or {}))
    try:
        stage = Stage(speech, Hearer(allowed), packetizer or Packetizer("pcm_s16le"), **settings)
        try:
            yield stage
            assert not stage.hearer.of("broken")
        finally:
            await stage.performance.close()
        assert await asyncio.to_thread(speech.engine.wait_idle, WAIT_S)
        assert speech.engine.holdings() == AT_REST
        assert speech.engine.failure is None
        assert not speech.encoders
    finally:
        await asyncio.to_thread(speech.close)
