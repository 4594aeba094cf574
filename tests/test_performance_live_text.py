"""Turns whose text comes in pieces: spoken as it comes, heard as one turn."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from performing import GREEDY, on_stage
from serving import WAIT_S
from support import load_codec

from streamer.audio import AudioFormat, Packetizer
from streamer.dialogue import TurnOptions
from streamer.models import SamplingParams
from streamer.text import Turn


async def test_pieces_are_heard_as_one_turn() -> None:
    async with on_stage() as stage:
        hearer, performance = stage.hearer, stage.performance
        performance.open("x", 2)
        performance.append("x", "One two three.")
        await hearer.until(lambda: len(hearer.packets) >= 2)
        performance.append("x", "Four five six.")
        await hearer.until(lambda: len(stage.engine.requests) == 2)
        performance.commit("x")
        report = await hearer.report("x")
        await performance.wait_idle()
        assert hearer.of("started") == [("x", 0, 2, 0)]
        assert report.reason in ("end", "max_length")
        assert report.frames == len(hearer.packets)
        assert report.audio_ms == 80 * report.frames
        assert report.ttfa_ms is not None
        assert report.rtf is not None
        assert [p.frame for p in hearer.packets] == list(range(report.frames))
        assert {p.turn_index for p in hearer.packets} == {0}
        assert [p.last for p in hearer.packets] == [False] * (report.frames - 1) + [True]
        # The second generation continues the first one's audio, with one text for both.
        assert stage.text(0) == "[S2]One two three."
        assert stage.text(1) == "[S2]One two three. Four five six."
        n_first = stage.continued_frames(1)
        assert 0 < n_first < report.frames
        # The seam is none for the codec either.
        whole = load_codec().decode(stage.history_codes()).numpy()
        np.testing.assert_allclose(stage.pcm(), np.clip(whole, -1, 1), atol=1e-4)


async def test_all_pieces_that_wait_are_one_generation() -> None:
    async with on_stage() as stage:
        hearer, performance = stage.hearer, stage.performance
        performance.add("a", [Turn(1, "Hello there.")])
        performance.open("x", 2)
        performance.append("x", "One.")
        performance.append("x", "Two.")
        performance.open("y", 1)
        performance.append("y", "Later.")
        performance.append("x", "Three.")
        performance.commit("y")
        performance.commit("x")
        await hearer.report("y")
        assert [stage.text(n) for n in range(3)] == [
            "[S1]Hello there.",
            "[S1]Hello there.[S2]One. Two. Three.",
            "[S1]Hello there.[S2]One. Two. Three.[S1]Later.",
        ]
        assert [turn for turn, *_ in hearer.of("started")] == ["a", "x", "y"]


async def test_a_turn_that_waits_for_text_holds_no_slot_and_lets_no_later_turn_by() -> None:
    async with on_stage() as stage:
        hearer, performance = stage.hearer, stage.performance
        performance.open("x", 1)
        performance.add("y", [Turn(2, "And then.")])
        performance.append("x", "One two.")
        await hearer.until(lambda: len(hearer.packets) > 0)
        assert await asyncio.to_thread(stage.engine.wait_idle, WAIT_S)
        assert stage.engine.holdings().slots == 0
        idle = asyncio.create_task(performance.wait_idle())
        await asyncio.sleep(0)
        assert not idle.done()
        assert [turn for turn, *_ in hearer.of("started")] == ["x"]
        assert not hearer.reports
        performance.commit("x")
        await hearer.report("y")
        await asyncio.wait_for(idle, WAIT_S)


async def test_what_has_no_letter_waits_for_what_has() -> None:
    async with on_stage() as stage:
        performance = stage.performance
        performance.open("x", 1)
        for piece in ("", "...", "Well.", "!"):
            performance.append("x", piece)
        performance.commit("x")
        await stage.hearer.report("x")
        assert stage.text() == "[S1] ... Well. !"


@pytest.mark.parametrize("pieces", [[], ["..."]])
async def test_a_turn_committed_without_speech_fails_and_the_next_one_is_spoken(pieces: list[str]) -> None:
    async with on_stage() as stage:
        hearer, performance = stage.hearer, stage.performance
        performance.open("x", 1)
        performance.add("y", [Turn(2, "Hello.")])
        for piece in pieces:
            performance.append("x", piece)
        performance.commit("x")
        report = await hearer.report("x")
        assert hearer.of("failed") == [("x", "no_speech")]
        assert (report.reason, report.frames, report.ttfa_ms, report.rtf) == ("error", 0, None, None)
        await hearer.report("y")
        assert stage.text() == "[S2]Hello."


async def test_text_for_a_turn_that_is_over_comes_to_nothing() -> None:
    async with on_stage() as stage:
        hearer, performance = stage.hearer, stage.performance
        performance.append("never", "Hello.")
        performance.commit("never")
        performance.open("x", 1)
        performance.append("x", "One two.")
        performance.commit("x")
        performance.append("x", "Too late.")
        performance.commit("x")
        await hearer.report("x")
        performance.append("x", "Too late.")
        performance.commit("x")
        await performance.wait_idle()
        assert len(stage.engine.requests) == 1
        assert stage.text() == "[S1]One two."


async def test_a_turn_may_be_no_longer_in_pieces_than_in_one() -> None:
    async with on_stage(max_turn_seconds=1.0) as stage:
        hearer, performance = stage.hearer, stage.performance
        performance.add("whole", [Turn(1, "One two three four five. " * 9)])
        whole = await hearer.report("whole")
        assert whole.reason == "max_length"
        performance.open("x", 1)
        for n in range(2, 6):
            performance.append("x", "One two.")
            await hearer.until(lambda n=n: len(stage.engine.requests) >= n or "x" in hearer.reports)  # type: ignore[misc]
        report = await hearer.report("x")
        assert report.reason == "max_length"
        assert report.frames <= whole.frames
        assert not performance._being_written
        performance.append("x", "More.")
        performance.commit("x")
        performance.add("y", [Turn(2, "Hello.")])
        await hearer.report("y")


@pytest.mark.parametrize("format", ["opus", "pcm_s16le"])
async def test_packets_run_through_the_seams_and_the_rest_comes_at_commit(format: AudioFormat) -> None:
    # 60 ms packets don't divide 80 ms frames: a flush between pieces would put silence there.
    async with on_stage(packetizer=Packetizer(format, 48_000, 60)) as stage:
        hearer, performance = stage.hearer, stage.performance
        performance.open("x", 1)
        for piece in ("One two three.", "Four five six.", "Seven."):
            performance.append("x", piece)
            await stage.part_over()
        n_before = len(hearer.packets)
        performance.commit("x")
        report = await hearer.report("x")
        assert report.frames == n_before + 1
        assert [p.last for p in hearer.packets] == [False] * n_before + [True]
        alone = Packetizer("pcm_s16le", 48_000, 60)
        expected = alone.push(load_codec().decode(stage.history_codes()).numpy()) + alone.flush()
        assert report.frames == len(expected)
        if format == "pcm_s16le":
            samples = np.frombuffer(b"".join(expected), "<i2").astype(np.float32) / 32768
            np.testing.assert_allclose(stage.pcm(), samples, atol=1e-4)


async def test_a_turn_may_have_a_seed_and_sampling_of_its_own() -> None:
    async with on_stage(seed=3) as stage:
        warm = SamplingParams(audio_temperature=0.7)
        performance = stage.performance
        performance.add("a", [Turn(1, "Hello.")], TurnOptions(seed=77))
        performance.add("b", [Turn(1, "Hello.")], TurnOptions(sampling=warm))
        performance.open("x", 2, TurnOptions(warm, 77))
        performance.append("x", "One two.")
        await stage.hearer.until(lambda: len(stage.engine.requests) == 3)
        await stage.hearer.until(lambda: len(stage.hearer.of("started")) == 3)
        performance.append("x", "Three four.")
        performance.commit("x")
        await stage.hearer.report("x")
        a, b, *parts = stage.engine.requests
        assert (a.seed, a.sampling) == (77, GREEDY)
        assert b.sampling == warm
        assert b.seed not in (3, 77)
        assert parts[0].seed == 77
        assert len({part.seed for part in parts}) == len(parts)
        assert all(part.sampling == warm for part in parts)


async def test_the_language_is_told_to_the_model() -> None:
    for language in (None, "pt-BR"):
        async with on_stage(language=language) as stage:
            stage.performance.add("a", [Turn(1, "Olá.")])
            await stage.hearer.report("a")
            prompt = stage.speech.tokenizer.decode(stage.engine.requests[0].prompt_rows[:, 0])
            assert f"- Language:\n{language}\n" in prompt
