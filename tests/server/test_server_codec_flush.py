"""What the codec remembers of sound that the listener threw away."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_reader import Reader, assert_at_rest, new_engine, request
from support import load_codec

from streamer.engine import Engine


def decoded_alone(reader: Reader) -> np.ndarray:
    codes = torch.from_numpy(np.stack([frame.codes for frame in reader.frames]))
    return load_codec().decode(codes).numpy()


def cut_short(engine: Engine) -> Reader:
    """A reader whose first turn was cancelled in the middle."""
    reader = Reader(engine, keeps_up=False).submit(request())
    reader.wait_frames(4)
    assert reader.generation is not None
    engine.cancel(reader.generation)
    return reader


@pytest.mark.parametrize("is_flushed", [True, False])
@pytest.mark.parametrize("sizes", [{}, {"captured": True}, {"group_frames": 1}])
def test_after_a_flush_the_next_turn_starts_from_a_fresh_codec(is_flushed: bool, sizes: dict[str, int]) -> None:
    engine = new_engine(max_unsent_frames=8, **sizes)
    try:
        # Another session keeps its state through it all.
        other = Reader(engine).submit(request(seed=2))
        reader = cut_short(engine)
        if is_flushed:
            engine.flushed(reader.stream)
        assert reader.finish().reason == "cancelled"
        reader.keeps_up = True
        reader.submit(request("voice_clone_and_continuation")).finish()
        same = np.abs(reader.audio - decoded_alone(reader)).max() < 1e-4
        assert same == is_flushed
        other.finish()
        np.testing.assert_allclose(other.audio, decoded_alone(other), atol=1e-4)
        assert_at_rest(engine, [reader, other])
    finally:
        engine.stop()


def test_a_flush_gives_the_codecs_place_back_at_once() -> None:
    engine = new_engine()
    try:
        reader = cut_short(engine)
        for _ in range(2):
            engine.flushed(reader.stream)
        assert engine.wait_idle(20)
        assert (engine.holdings().streams, engine.holdings().stream_places) == (1, 0)
        engine.close_stream(reader.stream)
        engine.flushed(reader.stream)
        assert_at_rest(engine, [])
    finally:
        engine.stop()
    engine.flushed(reader.stream)
