"""However a generation ends, everything is given back, and failures stay with their cause."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_reader import AT_REST, GREEDY, WAIT_S, Reader, assert_at_rest, new_engine, request
from support import load_codec, load_golden, load_model

from streamer.engine import (
    CodecStreamHandle,
    Engine,
    EngineEvent,
    FrameReady,
    GenerationRequest,
    Holdings,
    Refused,
    Started,
)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = new_engine()
    yield engine
    engine.stop()
    assert engine.failure is None


def test_cancel_stops_at_a_row_and_later_cancels_do_no_harm(engine: Engine) -> None:
    reader = Reader(engine, keeps_up=False).submit(request())
    reader.wait_frames(2)
    assert reader.generation is not None
    engine.cancel(reader.generation)
    finished = reader.finish()
    assert finished.reason in ("cancelled", "end")
    engine.cancel(reader.generation)
    engine.consumed(reader.generation, 1)
    assert_at_rest(engine, [reader])


def test_a_turn_that_waits_begins_when_the_one_before_it_breaks_down() -> None:
    engine = new_engine(max_batch=1)
    model = load_model("delay-nvq4")
    first, second = Reader(engine, keeps_up=False), Reader(engine, keeps_up=False)
    poisoned = request().prompt_rows.clone()
    poisoned[3, 0] = 200
    sound = model._text_table[200].clone()
    model._text_table[200] = torch.nan
    try:
        first.submit(GenerationRequest(poisoned, GREEDY, 1, 30))
        second.submit(request())
        assert first.finish().reason == "error"
    finally:
        model._text_table[200] = sound
    assert second.finish().reason == "end"
    assert_at_rest(engine, [first, second])
    engine.stop()


def test_a_sink_that_raises_ends_its_own_generation_only(engine: Engine) -> None:
    def broken(_: EngineEvent) -> None:
        raise RuntimeError("Event loop is closed")

    stream = engine.open_stream()
    engine.submit(request(), stream, broken)
    reader = Reader(engine).submit(request())
    assert reader.finish().reason == "end"
    engine.close_stream(stream)
    assert_at_rest(engine, [reader])


def test_a_sink_that_raises_at_a_frame_leaves_its_neighbours_rows_alone() -> None:
    engine = new_engine(max_batch=2, max_unsent_frames=2)
    # The neighbour has the last slot and comes first in the batch; both stand still until the broken one is there.
    first, neighbour = Reader(engine, keeps_up=False), Reader(engine, keeps_up=False)
    first.submit(request())
    first.wait_frames(2)
    neighbour.submit(request())
    neighbour.wait_frames(2)
    assert first.generation is not None
    engine.cancel(first.generation)
    first.finish()

    def broken(event: EngineEvent) -> None:
        if isinstance(event, Started):
            neighbour.keeps_up = True
            assert neighbour.generation is not None
            engine.consumed(neighbour.generation, 2)
        elif isinstance(event, FrameReady):
            raise RuntimeError("Event loop is closed")

    stream = engine.open_stream()
    engine.submit(request("voice_clone_and_continuation"), stream, broken)
    rows = neighbour.finish().rows
    engine.close_stream(stream)
    first.keeps_up = True
    np.testing.assert_array_equal(rows, first.submit(request()).finish().rows)
    assert_at_rest(engine, [first, neighbour])
    engine.stop()


def test_a_command_that_fails_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = new_engine()
    reader = Reader(engine, keeps_up=False).submit(request())
    reader.wait_frames(1)

    def fail(*_: object) -> None:
        raise RuntimeError("out of order")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_consume", fail)
        assert reader.generation is not None
        with engine._wake:
            engine.consumed(reader.generation, 1)
            engine.close_stream(reader.stream)
        reader.finish()
        assert engine.wait_idle(WAIT_S)
    assert engine.holdings() == AT_REST
    engine.stop()


def test_nan_in_a_strangers_block_reaches_nobody(engine: Engine) -> None:
    model = load_model("delay-nvq4")
    first = Reader(engine)
    expected = first.submit(request("voice_clone_and_continuation", max_rows=80)).finish().rows
    poisoned = request().prompt_rows.clone()
    poisoned[3, 0] = 200
    sound = model._text_table[200].clone()
    model._text_table[200] = torch.nan
    try:
        # Three lengths of block tables in one batch, the broken one first in the pool.
        broken = Reader(engine).submit(GenerationRequest(poisoned, GREEDY, 1, 30))
        short = Reader(engine).submit(request(max_rows=20))
        long = Reader(engine).submit(request("voice_clone_and_continuation", max_rows=80))
        assert broken.finish().reason == "error"
        assert short.finish().reason == "max_length"
        np.testing.assert_array_equal(long.finish().rows, expected)
    finally:
        model._text_table[200] = sound
    assert_at_rest(engine, [first, broken, short, long])


def test_every_session_taken_refuses_the_next(engine: Engine) -> None:
    streams = [engine.open_stream() for _ in range(8)]
    with pytest.raises(Refused, match="all 8 sessions"):
        engine.open_stream()
    engine.close_stream(streams[0])
    engine.close_stream(streams[0])
    streams[0] = engine.open_stream()
    for stream in streams:
        engine.close_stream(stream)
    with pytest.raises(Refused, match="closed"):
        engine.submit(request(), streams[0], lambda _: None)
    assert_at_rest(engine, [])


def test_closing_a_stream_ends_what_feeds_it(engine: Engine) -> None:
    reader = Reader(engine, keeps_up=False).submit(request())
    reader.wait_frames(1)
    engine.close_stream(reader.stream)
    assert reader.finish().reason in ("cancelled", "end")
    assert_at_rest(engine, [])


def test_stopping_the_engine_ends_everything_and_refuses_more() -> None:
    engine = new_engine(max_unsent_frames=1)
    readers = [Reader(engine, keeps_up=False).submit(request()) for _ in range(3)]
    engine.stop()
    assert {r.finish().reason for r in readers} == {"cancelled"}
    with pytest.raises(Refused, match="stopping"):
        engine.open_stream()
    with pytest.raises(Refused, match="stopping"):
        engine.submit(request(), readers[0].stream, lambda _: None)


def test_numbers_that_break_down_fail_their_own_turn_only(engine: Engine) -> None:
    model = load_model("delay-nvq4")
    healthy = Reader(engine, keeps_up=False).submit(request())
    healthy.wait_frames(1)
    poisoned_id, table = 200, model._text_table
    sound = table[poisoned_id].clone()
    prompt = request().prompt_rows.clone()
    assert poisoned_id not in prompt[:, 0]
    prompt[3, 0] = poisoned_id
    table[poisoned_id] = torch.nan
    try:
        broken = Reader(engine).submit(GenerationRequest(prompt, GREEDY, 1, 30))
        finished = broken.finish()
    finally:
        table[poisoned_id] = sound
    assert finished.reason == "error"
    assert finished.error is not None
    assert "NaN" in finished.error
    assert healthy.finish().reason == "end"
    # The blocks of the broken turn go to the next ones: all must be as if it had never been.
    after = [Reader(engine).submit(request()) for _ in range(6)]
    for reader in after:
        np.testing.assert_array_equal(reader.finish().rows, healthy.finish().rows)
    assert_at_rest(engine, [healthy, broken, *after])


def test_a_step_that_fails_ends_its_turns_and_the_engine_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = new_engine(max_batch=1)
    first, waiting = Reader(engine, keeps_up=False), Reader(engine)

    def out_of_memory(*_: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(engine._runner, "forward", out_of_memory)
        assert first.submit(request()).finish().reason == "error"
    failures = [engine.failure]
    assert waiting.submit(request()).finish().reason == "end"
    assert_at_rest(engine, [first, waiting])
    assert failures == ["RuntimeError: out of memory"]
    engine.stop()


def test_random_lives_leave_nothing_behind() -> None:
    engine = new_engine(max_batch=3, max_unsent_frames=4, kv_rows=2048, max_waiting=4)
    dice = random.Random(7)
    open_readers: list[Reader] = []
    for _ in range(200):
        action = dice.random()
        if action < 0.5 and len(open_readers) < 8:
            reader = Reader(engine, keeps_up=dice.random() < 0.7)
            open_readers.append(reader)
            mode = dice.choice(["continuation", "voice_clone_and_continuation"])
            try:
                reader.submit(request(mode, seed=dice.randrange(100), max_rows=dice.randrange(8, 60)))
            except Refused as refusal:
                assert refusal.code == "overloaded"
        elif open_readers:
            reader = open_readers.pop(dice.randrange(len(open_readers)))
            if reader.generation is not None and action < 0.7:
                engine.cancel(reader.generation)
            if reader.generation is not None and action < 0.85:
                reader.wait_frames(1)
            engine.close_stream(reader.stream)
    assert_at_rest(engine, open_readers)
    engine.stop()


def test_a_codec_with_too_few_codebooks_is_refused() -> None:
    with pytest.raises(ValueError, match="8 codebooks, the model needs 16"):
        Engine(load_model("delay-nvq16"), load_codec())


def test_unused_streams_take_no_place_in_the_pool(engine: Engine) -> None:
    stream: CodecStreamHandle = engine.open_stream()
    assert engine.holdings() == Holdings(slots=0, blocks=0, waiting=0, streams=1, stream_places=0)
    engine.close_stream(stream)
    assert_at_rest(engine, [])


def test_a_turn_that_can_never_run_is_refused_and_leaves_nothing() -> None:
    engine = new_engine(max_sequence_rows=128)
    reader = Reader(engine)
    with pytest.raises(Refused, match="the limit is 128") as refusal:
        reader.submit(request(max_rows=128))
    assert refusal.value.code == "text_too_long"
    assert engine.counters().refused == 1
    outside = replace(request(), prompt_rows=load_golden("delay-nvq4").arrays["prompt/generation"])
    with pytest.raises(ValueError, match="must end in audio_start"):
        reader.submit(outside)
    assert_at_rest(engine, [reader])
    engine.stop()
