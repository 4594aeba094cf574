"""Cutting in: what stops, what the history keeps, and what the engine is told."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import numpy.typing as npt
import pytest
import serving
import torch
from performing import Stage, on_stage
from serving import WAIT_S, RecordingEngine
from support import load_codec

from streamer.audio import Packetizer
from streamer.dialogue import Truncated
from streamer.engine import CodecStreamHandle, Generation
from streamer.text import Turn

SENTENCE = "one two three four five six seven eight nine ten eleven twelve"


class CalledEngine(RecordingEngine):
    """The engine, keeping in order what it was told of listeners."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.calls: list[tuple[str, object]] = []

    def played(self, stream: CodecStreamHandle, played_ms: float) -> None:
        self.calls.append(("played", played_ms))
        super().played(stream, played_ms)

    def cancel(self, generation: Generation) -> None:
        self.calls.append(("cancel", generation.stream))
        super().cancel(generation)

    def flushed(self, stream: CodecStreamHandle) -> None:
        self.calls.append(("flushed", stream))
        super().flushed(stream)


@pytest.fixture(autouse=True)
def called_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "RecordingEngine", CalledEngine)


def calls(stage: Stage) -> list[str]:
    assert isinstance(stage.engine, CalledEngine)
    return [name for name, _ in stage.engine.calls]


def memory(stage: Stage) -> list[tuple[str, str, int]]:
    return [
        (entry.turn, " ".join(turn.text for turn in entry.turns), len(entry.frames)) for entry in stage.dialogue.history
    ]


async def test_cancelling_a_turn_that_waits_for_text_ends_it_at_once() -> None:
    async with on_stage() as stage:
        hearer, performance = stage.hearer, stage.performance
        performance.open("x", 1)
        performance.append("x", "One two.")
        spoken = await stage.part_over()
        before = memory(stage)
        assert performance.cancel("x") == []
        report = await hearer.report("x")
        assert (report.reason, report.audio_ms) == ("cancelled", 80 * len(spoken.frames))
        await asyncio.wait_for(performance.wait_idle(), WAIT_S)
        assert memory(stage) == before
        # Its id may be used again, and what is still on its way to the old one is lost.
        performance.append("x", "Never said.")
        performance.open("x", 1)
        performance.append("x", "Three.")
        performance.commit("x")
        await hearer.until(lambda: len(hearer.of("completed")) == 2)
        assert stage.text() == "[S1]One two. Three."


async def test_cancelling_before_the_first_text_leaves_nothing() -> None:
    async with on_stage() as stage:
        stage.performance.open("x", 1)
        assert stage.performance.cancel(None, 0) == []
        report = await stage.hearer.report("x")
        assert (report.reason, report.frames, report.ttfa_ms, report.rtf) == ("cancelled", 0, None, None)
        assert stage.hearer.of("failed") == []
        assert stage.engine.requests == []


@pytest.mark.parametrize("played_ms", [270, None])
async def test_the_history_is_right_as_soon_as_a_turn_is_cancelled(played_ms: int | None) -> None:
    async with on_stage(allowed=5) as stage:
        hearer, performance = stage.hearer, stage.performance
        performance.add("x", [Turn(1, SENTENCE)])
        await hearer.until(lambda: len(hearer.packets) == 6)
        cut = performance.cancel("x", played_ms)
        n_frames = 6 if played_ms is None else 3
        kept = memory(stage)
        assert [(turn, n) for turn, _, n in kept] == [("x", n_frames)]
        words = kept[0][1].split()
        assert 0 < len(words) < 12
        assert words == SENTENCE.split()[: len(words)]
        assert cut == [Truncated("x", 0, played_ms or 6 * 80, " ".join(words))]
        await hearer.allow(None)
        report = await hearer.report("x")
        assert (report.reason, report.frames) == ("cancelled", 6)
        assert memory(stage) == kept
        assert performance.cancel("x", played_ms) == []


async def test_a_cut_is_counted_from_the_start_of_each_turn_through_its_pieces() -> None:
    async with on_stage() as stage:
        hearer, performance = stage.hearer, stage.performance
        performance.add("a", [Turn(1, "Hello there.")])
        a = (await stage.part_over()).sent_ms
        performance.open("x", 2)
        performance.append("x", "One two three.")
        x = (await stage.part_over()).sent_ms
        performance.append("x", "Four five six seven.")
        performance.commit("x")
        await stage.part_over()
        await hearer.report("x")
        await hearer.allow(len(hearer.packets) + 3)
        performance.add("y", [Turn(1, SENTENCE)])
        performance.add("z", [Turn(1, SENTENCE)])
        await hearer.until(lambda: len(hearer.packets) == hearer.allowed + 1)  # type: ignore[operator]
        cut = performance.cancel(None, a + x + 240)
        heard_of_x = [text for turn, text, _ in memory(stage) if turn == "x"]
        assert heard_of_x[0] == "One two three."
        assert "Four five six seven.".startswith(heard_of_x[1])
        assert cut == [Truncated("x", 1, x + 240, " ".join(heard_of_x).strip()), Truncated("y", 2, 0, "")]
        assert [(turn, n) for turn, _, n in memory(stage)] == [("a", a // 80), ("x", x // 80), ("x", 3)]
        await hearer.allow(None)
        await hearer.report("z")
        # Only the first piece was heard to its end.
        assert performance.cancel("x", a + x // 2) == [Truncated("x", 1, x // 2, memory(stage)[1][1])]
        assert len(memory(stage)) == 2


async def test_no_packet_of_a_begun_frame_follows_a_cancel() -> None:
    async with on_stage(allowed=5, packetizer=Packetizer("mulaw", 8_000, 20)) as stage:
        hearer, performance = stage.hearer, stage.performance
        performance.add("x", [Turn(1, SENTENCE)])
        await hearer.until(lambda: len(hearer.packets) == 6)
        assert performance.cancel(None)[0].heard_ms == 120
        await hearer.allow(None)
        assert (await hearer.report("x")).frames == 6
        assert [len(entry.frames) for entry in stage.dialogue.history] == [1]


class HeldPacketizer(Packetizer):
    """Encodes three frames, and more when it is let to."""

    def __init__(self) -> None:
        super().__init__("opus")
        self.n_frames = 0
        self.is_asked, self.may_go = threading.Event(), threading.Event()

    def push(self, audio: npt.ArrayLike) -> list[bytes]:
        self.n_frames += 1
        if self.n_frames > 3:
            self.is_asked.set()
            assert self.may_go.wait(WAIT_S)
        return super().push(audio)


async def test_a_frame_that_is_being_encoded_is_not_remembered() -> None:
    held = HeldPacketizer()
    async with on_stage(packetizer=held) as stage:
        stage.performance.add("x", [Turn(1, SENTENCE)])
        assert await asyncio.to_thread(held.is_asked.wait, WAIT_S)
        assert [cut.heard_ms for cut in stage.performance.cancel(None)] == [240]
        held.may_go.set()
        assert (await stage.hearer.report("x")).frames == 3
        assert [len(entry.frames) for entry in stage.dialogue.history] == [3]


async def test_the_engine_is_told_what_was_heard_and_then_that_the_rest_is_gone() -> None:
    async with on_stage(allowed=5) as stage:
        hearer, performance = stage.hearer, stage.performance
        performance.add("x", [Turn(1, SENTENCE)])
        await hearer.until(lambda: len(hearer.packets) == 6)
        performance.played(160)
        performance.cancel(None, 240)
        assert isinstance(stage.engine, CalledEngine)
        stream = stage.engine.calls[-1][1]
        assert stage.engine.calls == [("played", 160), ("played", 240), ("cancel", stream), ("flushed", stream)]
        await hearer.allow(None)
        await hearer.report("x")


@pytest.mark.parametrize("played_ms", [240, None])
async def test_after_a_flush_the_next_turn_sounds_as_if_nothing_was_thrown_away(played_ms: int | None) -> None:
    # Where a packet holds less than a frame, some of the old turn's sound waits for its next frame.
    async with on_stage(allowed=5, packetizer=Packetizer("pcm_s16le", 24_000, 60)) as stage:
        hearer, performance = stage.hearer, stage.performance
        performance.add("x", [Turn(1, SENTENCE)])
        await hearer.until(lambda: len(hearer.packets) == 6)
        performance.cancel(None, played_ms)
        await hearer.allow(None)
        await hearer.report("x")
        performance.add("y", [Turn(2, "Hello.")])
        await hearer.report("y")
        payload = b"".join(packet.payload for packet in hearer.packets if packet.turn_index == 1)
        heard = np.frombuffer(payload, "<i2").astype(np.float32) / 32768
        codes = torch.from_numpy(np.stack(stage.dialogue.history[-1].frames))
        fresh = load_codec().decode(codes).numpy().clip(-1, 1)
        assert 0 <= len(heard) - len(fresh) < 1440
        same = np.abs(heard[: len(fresh)] - fresh).max() < 1e-4
        assert same == (played_ms is not None)


async def test_the_rest_is_gone_only_when_nothing_is_left_to_be_heard() -> None:
    async with on_stage() as stage:
        hearer, performance = stage.hearer, stage.performance
        for turn in ("a", "b"):
            performance.add(turn, [Turn(1, "Hello there.")])
            await hearer.report(turn)
        a, b = (80 * hearer.reports[turn].frames for turn in "ab")
        # Of the first turn the end was skipped, the second one is still to be heard.
        assert [cut.heard_ms for cut in performance.cancel("a", a - 80)] == [a - 80]
        assert calls(stage) == ["played"]
        # The listener has heard all there is: nothing to throw away.
        assert performance.cancel("b", a + b) == []
        assert calls(stage) == ["played"] * 2
        # With the last turn's end, all that was not heard is thrown away.
        assert [cut.heard_ms for cut in performance.cancel("b", a - 80 + b - 80)] == [b - 80]
        assert calls(stage) == ["played"] * 3 + ["flushed"]


async def test_a_turn_that_waits_for_text_has_nothing_to_be_thrown_away() -> None:
    async with on_stage() as stage:
        hearer, performance = stage.hearer, stage.performance
        performance.add("a", [Turn(1, "Hello there.")])
        report = await hearer.report("a")
        performance.open("b", 2)
        assert len(performance.cancel("a", report.audio_ms - 80)) == 1
        assert calls(stage) == ["played", "flushed"]
        performance.append("b", "Yes.")
        performance.commit("b")
        assert (await hearer.report("b")).reason in ("end", "max_length")
        assert stage.continued_frames() == report.frames - 1
