"""The engine and its listeners' clocks: who is far ahead pauses, reports are heeded, and nothing of it is audible."""

from __future__ import annotations

import time

import numpy as np
import pytest
from engine_reader import WAIT_S, Reader, assert_at_rest, new_engine, request

from streamer.engine import Engine, EngineEvent, FrameReady, GenerationRequest, Refused

LONG = "voice_clone_and_continuation"


class Listener(Reader):
    """``listens`` at once to all there is, and says so, or else leaves the engine to assume real time."""

    listens = False

    def _take(self, event: EngineEvent) -> None:
        super()._take(event)
        if self.listens and isinstance(event, FrameReady):
            self.engine.played(self.stream, 1e9)

    def catch_up(self) -> None:
        self.listens = True
        self.engine.played(self.stream, 1e9)


def wait_until_all_rest(engine: Engine) -> None:
    with engine._wake:
        assert engine._wake.wait_for(lambda: not engine._busy, WAIT_S)


def alone(work: GenerationRequest) -> np.ndarray:
    engine = new_engine(max_lead_s=None)
    reader = Reader(engine).submit(work)
    rows = reader.finish().rows
    assert_at_rest(engine, [reader])
    engine.stop()
    return rows


def test_far_ahead_of_its_listener_it_pauses_until_it_hears_from_them() -> None:
    engine, work = new_engine(max_lead_s=2.0), request(LONG, max_rows=80)
    reader = Listener(engine)
    reader.submit(work)
    reader.wait_frames(25)
    wait_until_all_rest(engine)
    counters = engine.counters()
    assert (counters.running, counters.resting) == (1, 1)
    # 2 s in hand, less what was played meanwhile.
    assert 25 <= len(reader.frames) < 70
    reader.catch_up()
    np.testing.assert_array_equal(reader.finish().rows, alone(work))
    assert_at_rest(engine, [reader])
    engine.stop()


def test_a_pause_ends_by_itself_before_the_listener_runs_dry() -> None:
    engine = new_engine(max_lead_s=0.4)
    reader = Reader(engine).submit(request(max_rows=20))
    reader.wait_frames(5)
    wait_until_all_rest(engine)
    assert not reader.over
    assert reader.finish().reason == "max_length"
    assert_at_rest(engine, [reader])
    engine.stop()


def test_without_a_limit_a_file_is_made_as_fast_as_it_goes() -> None:
    engine = new_engine(max_lead_s=None)
    readers = [Reader(engine).submit(request(LONG, max_rows=80)) for _ in range(2)]
    for reader in readers:
        reader.wait_frames(1)
    # From here on the engine is at rest once only, at the end.
    wait_until_all_rest(engine)
    assert all(reader.over for reader in readers)
    assert_at_rest(engine, readers)
    engine.stop()


def test_who_rests_lends_its_slot_and_says_the_same_afterwards() -> None:
    engine = new_engine(max_batch=1, max_lead_s=1.0)
    works = [request(LONG, max_rows=60), request("continuation", max_rows=60)]
    readers = [Listener(engine), Listener(engine)]
    readers[0].submit(works[0])
    readers[0].wait_frames(12)
    readers[1].submit(works[1])
    readers[1].wait_frames(1)
    assert not readers[0].over
    assert engine.counters().parked >= 1
    for reader in readers:
        reader.catch_up()
    for reader, work in zip(readers, works, strict=True):
        np.testing.assert_array_equal(reader.finish().rows, alone(work))
    assert_at_rest(engine, list(readers))
    engine.stop()


@pytest.mark.parametrize("in_company", [False, True])
def test_a_prompt_says_the_same_however_its_pieces_are_spread_over_steps(in_company: bool) -> None:
    engine = new_engine(prefill_chunk_rows=16)
    others = [Reader(engine) for _ in range(5 if in_company else 0)]
    for seed, other in enumerate(others):
        other.submit(request("continuation", seed=seed))
    for other in others:
        other.wait_frames(1)
    reader = Reader(engine).submit(request(LONG, max_rows=30))
    reader.finish()
    single = new_engine(prefill_chunk_rows=16, max_lead_s=None)
    expected = Reader(single).submit(request(LONG, max_rows=30))
    np.testing.assert_array_equal(reader.finish().rows, expected.finish().rows)
    assert_at_rest(single, [expected])
    single.stop()
    assert_at_rest(engine, [*others, reader])
    engine.stop()


def test_a_report_takes_the_place_of_what_was_assumed() -> None:
    engine = new_engine()
    reader = Reader(engine).submit(request())
    reader.finish()
    clock = engine._streams[reader.stream]
    assert clock.lead_s(time.monotonic()) > 0
    engine.played(reader.stream, clock.made_s * 1000)
    assert engine.wait_idle(WAIT_S)
    assert clock.lead_s(time.monotonic()) == 0
    assert_at_rest(engine, [reader])
    # A report that comes late is no error.
    engine.played(reader.stream, 0)
    engine.stop()


def test_after_an_interruption_nothing_counts_as_in_hand() -> None:
    engine = new_engine()
    whole, stopped = Reader(engine).submit(request()), Reader(engine, keeps_up=False)
    whole.finish()
    stopped.submit(request())
    stopped.wait_frames(10)
    assert stopped.generation is not None
    clocks = [engine._streams[reader.stream] for reader in (whole, stopped)]
    assert all(clock.lead_s(time.monotonic()) > 0 for clock in clocks)
    # Of a turn that was made to its end only the listener's side can say that it is not played.
    engine.flushed(whole.stream)
    engine.cancel(stopped.generation)
    stopped.finish()
    assert engine.wait_idle(WAIT_S)
    assert [clock.lead_s(time.monotonic()) for clock in clocks] == [0, 0]
    assert_at_rest(engine, [whole, stopped])
    engine.stop()


def test_the_counters_count_what_was_done() -> None:
    engine = new_engine()
    reader = Reader(engine).submit(request(LONG, max_rows=30))
    rows, n_frames = reader.finish().rows, len(reader.frames)
    assert engine.wait_idle(WAIT_S)
    c = engine.counters()
    assert (c.decoded_rows, c.frames, c.refused) == (len(rows), n_frames, 0)
    assert c.prefilled_rows == len(request(LONG).prompt_rows)
    assert c.steps >= len(rows)
    assert c.step_s > 0
    assert (c.running, c.waiting, c.lending, c.parked) == (0, 0, 0, 0)
    assert_at_rest(engine, [reader])
    engine.stop()


def test_turns_that_find_no_room_are_counted() -> None:
    engine = new_engine(max_waiting=0)
    reader = Reader(engine)
    with pytest.raises(Refused) as refusal:
        reader.submit(request())
    assert refusal.value.retry_after_ms == 1000
    assert engine.counters().refused == 1
    assert_at_rest(engine, [reader])
    engine.stop()
