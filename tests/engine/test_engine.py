"""The engine's thread: company changes nothing, every ending gives everything back, failures stay with their cause."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from support import load_codec, load_golden, load_model

from streamer import SamplingParams
from streamer.engine import (
    CodecStreamHandle,
    Engine,
    EngineConfig,
    EngineEvent,
    Finished,
    FrameReady,
    Generation,
    GenerationRequest,
    Holdings,
    Queued,
    Refused,
    Started,
)

GREEDY = SamplingParams(audio_temperature=0, text_temperature=0)
AT_REST = Holdings(slots=0, blocks=0, waiting=0, streams=0, stream_places=0)
WAIT_S = 60.0


class Reader:
    """A sink that keeps what it is given; ``keeps_up`` False lets unread frames pile up."""

    def __init__(self, engine: Engine, keeps_up: bool = True) -> None:
        self.engine = engine
        self.keeps_up = keeps_up
        self.stream = engine.open_stream()
        self.events: list[EngineEvent] = []
        self.generation: Generation | None = None
        self._grew = threading.Condition()

    def submit(self, request: GenerationRequest) -> Reader:
        self.events.clear()
        self.generation = self.engine.submit(request, self.stream, self._take)
        return self

    def _take(self, event: EngineEvent) -> None:
        with self._grew:
            self.events.append(event)
            self._grew.notify_all()
        if isinstance(event, FrameReady) and self.keeps_up and self.generation is not None:
            self.engine.consumed(self.generation, 1)

    def wait_frames(self, n: int) -> None:
        with self._grew:
            assert self._grew.wait_for(lambda: len(self.frames) >= n or self.over, WAIT_S)

    def finish(self) -> Finished:
        with self._grew:
            assert self._grew.wait_for(lambda: self.over, WAIT_S)
        last = self.events[-1]
        assert isinstance(last, Finished)
        return last

    @property
    def over(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], Finished)

    @property
    def frames(self) -> list[FrameReady]:
        return [event for event in self.events if isinstance(event, FrameReady)]

    @property
    def audio(self) -> np.ndarray:
        return np.concatenate([frame.audio for frame in self.frames])


def request(
    mode: str = "continuation", sampling: SamplingParams = GREEDY, seed: int = 1, max_rows: int = 90
) -> GenerationRequest:
    return GenerationRequest(load_golden("delay-nvq4").arrays[f"prompt/{mode}"], sampling, seed, max_rows)


def new_engine(**sizes: int) -> Engine:
    config = EngineConfig(**{"max_sessions": 8, "max_batch": 8, "kv_rows": 8192, **sizes})
    return Engine(load_model("delay-nvq4"), load_codec(), config).start()


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = new_engine()
    yield engine
    engine.stop()
    assert engine.failure is None


def assert_at_rest(engine: Engine, readers: list[Reader]) -> None:
    for reader in readers:
        engine.close_stream(reader.stream)
    assert engine.wait_idle(WAIT_S)
    assert engine.holdings() == AT_REST
    assert engine.failure is None


WORK = [
    ("continuation", GREEDY, 1),
    ("voice_clone_and_continuation", GREEDY, 1),
    *(("continuation", SamplingParams(audio_temperature=0.6, text_temperature=0.5), seed) for seed in range(3)),
    *(("voice_clone_and_continuation", SamplingParams(text_temperature=0.3), seed) for seed in range(3)),
]


def test_a_batch_gives_each_sequence_the_rows_and_audio_it_has_alone(engine: Engine) -> None:
    readers = []
    for mode, sampling, seed in WORK:
        readers.append(Reader(engine).submit(request(mode, sampling, seed)))
        # The next one joins when this one is under way.
        readers[-1].wait_frames(2)
    together = [(r.finish().rows, r.audio) for r in readers]
    for (mode, sampling, seed), (rows, audio) in zip(WORK, together, strict=True):
        alone = new_engine()
        reader = Reader(alone).submit(request(mode, sampling, seed))
        np.testing.assert_array_equal(reader.finish().rows, rows)
        np.testing.assert_allclose(reader.audio, audio, atol=1e-4)
        alone.stop()
    assert_at_rest(engine, readers)


@pytest.mark.parametrize(("mode", "sampling", "seed"), WORK)
def test_the_engine_decodes_what_the_plain_loop_decodes(
    engine: Engine, mode: str, sampling: SamplingParams, seed: int
) -> None:
    model, codec = load_model("delay-nvq4"), load_codec()
    work = request(mode, sampling, seed)
    reader = Reader(engine).submit(work)
    finished = reader.finish()
    # The plain loop goes on to im_end; the engine stops when the audio block's last frame is known.
    plain = model.generate(work.prompt_rows, sampling, seed=seed, max_rows=work.max_rows).numpy()
    n_rows = len(finished.rows) - (model.config.n_vq if finished.reason == "max_length" else 0)
    np.testing.assert_array_equal(finished.rows[:n_rows], plain[:n_rows])
    codes = torch.from_numpy(np.stack([frame.codes for frame in reader.frames]))
    np.testing.assert_allclose(reader.audio, codec.decode(codes).numpy(), atol=1e-4)
    assert [frame.last for frame in reader.frames] == [False] * (len(reader.frames) - 1) + [True]
    assert_at_rest(engine, [reader])


def test_a_turn_cut_at_its_limit_ends_with_a_whole_last_frame(engine: Engine) -> None:
    reader = Reader(engine).submit(request(max_rows=20))
    finished = reader.finish()
    assert finished.reason == "max_length"
    assert len(finished.rows) == 20
    assert len(reader.frames) == 20 - 3
    assert reader.frames[-1].last


def test_known_codes_are_taken_over_instead_of_drawn(engine: Engine) -> None:
    known = torch.full((3, 4), -1, dtype=torch.int64)
    known[0, 1:], known[1, 2:], known[2, 3:] = 7, 8, 9
    plain = request()
    work = GenerationRequest(plain.prompt_rows, GREEDY, 1, 40, known)
    rows = Reader(engine).submit(work).finish().rows
    assert rows[0, 2:].tolist() == [7, 7, 7]
    assert rows[1, 3:].tolist() == [8, 8]
    assert rows[2, 4:].tolist() == [9]
    assert not (rows[0, 1] == 7 and rows[1, 1] == 8)


def test_a_prefix_computed_before_is_not_computed_again_and_changes_nothing(engine: Engine) -> None:
    first, second = Reader(engine), Reader(engine)
    rows = first.submit(request("voice_clone_and_continuation")).finish().rows
    again = second.submit(request("voice_clone_and_continuation")).finish().rows
    np.testing.assert_array_equal(rows, again)
    shared = [[e.shared_rows for e in r.events if isinstance(e, Started)] for r in (first, second)]
    # 245 prompt rows: 15 whole blocks, all of them shared.
    assert shared == [[0], [240]]
    assert_at_rest(engine, [first, second])


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


def test_a_reader_that_stops_pauses_its_own_sequence_only() -> None:
    engine = new_engine(max_unsent_frames=3)
    stalled, quick = Reader(engine, keeps_up=False), Reader(engine)
    stalled.submit(request())
    stalled.wait_frames(3)
    assert quick.submit(request()).finish().reason == "end"
    assert len(stalled.frames) == 3
    assert stalled.generation is not None
    stalled.keeps_up = True
    engine.consumed(stalled.generation, 3)
    np.testing.assert_array_equal(stalled.finish().rows, quick.finish().rows)
    assert_at_rest(engine, [stalled, quick])
    engine.stop()


def test_readers_that_stop_do_not_keep_others_from_their_turn() -> None:
    engine = new_engine(max_batch=1, max_unsent_frames=3)
    stalled = [Reader(engine, keeps_up=False) for _ in range(2)]
    for reader in stalled:
        reader.submit(request())
    quick = Reader(engine).submit(request())
    rows = quick.finish().rows
    for reader in stalled:
        reader.wait_frames(3)
        reader.keeps_up = True
        assert reader.generation is not None
        engine.consumed(reader.generation, 3)
    # Its place was lent to others meanwhile; what it would have said is unchanged.
    for reader in stalled:
        np.testing.assert_array_equal(reader.finish().rows, rows)
        np.testing.assert_allclose(reader.audio, quick.audio, atol=1e-4)
    assert_at_rest(engine, [*stalled, quick])
    engine.stop()


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


def test_what_waits_is_told_its_position_and_runs_in_turn() -> None:
    engine = new_engine(max_batch=1, max_unsent_frames=2)
    readers = [Reader(engine, keeps_up=False) for _ in range(3)]
    for reader in readers:
        reader.submit(request())
    readers[0].wait_frames(2)
    for reader in readers:
        reader.keeps_up = True
        assert reader.generation is not None
        engine.consumed(reader.generation, 2)
        reader.finish()
    positions = [[e.position for e in r.events if isinstance(e, Queued)] for r in readers]
    assert positions == [[], [1], [2, 1]]
    assert_at_rest(engine, readers)
    engine.stop()


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


def test_a_codec_stream_lives_across_turns(engine: Engine) -> None:
    reader = Reader(engine)
    first = reader.submit(request(max_rows=20)).finish()
    codes, audio = [f.codes for f in reader.frames], reader.audio
    second = reader.submit(request("voice_clone_and_continuation", max_rows=20)).finish()
    assert first.reason == second.reason == "max_length"
    codes += [f.codes for f in reader.frames]
    whole = load_codec().decode(torch.from_numpy(np.stack(codes))).numpy()
    np.testing.assert_allclose(np.concatenate([audio, reader.audio]), whole, atol=1e-4)


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
