"""Batched streams: each is what it would be alone, whoever comes and goes beside it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from streamer.codec import AudioCodec, CodecInputError, StreamPool, StreamPoolFull

N_FRAMES = 40


@pytest.fixture(scope="module")
def scripts(codec: AudioCodec) -> list[torch.Tensor]:
    """Codes of twelve streams of different lengths, all but the shortest longer than every ring."""
    generator = torch.Generator().manual_seed(11)
    lengths = [N_FRAMES - 3 * index for index in range(12)]
    return [torch.randint(codec.config.codebook_size, (length, 8), generator=generator) for length in lengths]


@pytest.fixture(scope="module")
def alone(codec: AudioCodec, scripts: list[torch.Tensor]) -> list[torch.Tensor]:
    return [codec.decode(codes).view(-1, 1920) for codes in scripts]


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=0)


def play(pool: StreamPool, slot: int, codes: torch.Tensor) -> torch.Tensor:
    return torch.cat([pool.push([slot], frame) for frame in codes.split(1)])


@pytest.mark.parametrize("max_runs", [1, 4], ids=["gathered", "in place"])
@pytest.mark.parametrize("seed", range(3))
def test_streams_joining_and_leaving_at_random_equal_themselves_alone(
    codec: AudioCodec, scripts: list[torch.Tensor], alone: list[torch.Tensor], seed: int, max_runs: int
) -> None:
    rng = random.Random(seed)
    pool = codec.stream_pool(4)
    pool._max_runs = max_runs
    waiting, running = list(range(len(scripts))), dict[int, int]()
    position = [0] * len(scripts)
    while waiting or running:
        while waiting and pool.held < pool.capacity and rng.random() < 0.5:
            running[waiting.pop(0)] = pool.open()
        # Some streams sit a step out, as a session does that is far enough ahead.
        batch = rng.sample(sorted(running), rng.randint(0, len(running)))
        codes = torch.stack([scripts[i][position[i]] for i in batch]) if batch else torch.zeros(0, 8, dtype=torch.int64)
        samples = pool.push([running[i] for i in batch], codes)
        assert samples.shape == (len(batch), 1920)
        for index, chunk in zip(batch, samples, strict=True):
            assert_close(chunk, alone[index][position[index]])
            position[index] += 1
            if position[index] == len(scripts[index]):
                pool.close(running.pop(index))
    assert pool.held == 0


@pytest.mark.parametrize("filler", [float("nan"), 1e3])
def test_a_slot_shows_nothing_of_its_last_owner_or_its_neighbours(
    codec: AudioCodec, scripts: list[torch.Tensor], alone: list[torch.Tensor], filler: float
) -> None:
    pool = codec.stream_pool(3)
    left, middle, right = (pool.open() for _ in range(3))
    play(pool, middle, scripts[3])
    pool.close(middle)
    for ring in pool._rings:
        ring.cache[:, middle] = filler
    for frame, codes in enumerate(scripts[0]):
        samples = pool.push([left, right], codes.expand(2, -1))
        assert_close(samples, alone[0][frame].expand(2, -1))
    assert pool.open() == middle
    assert_close(play(pool, middle, scripts[1]), alone[1])


def test_positions_not_yet_written_weigh_nothing(
    codec: AudioCodec, scripts: list[torch.Tensor], alone: list[torch.Tensor]
) -> None:
    pool = codec.stream_pool(1)
    slot = pool.open()
    for ring in pool._rings:
        ring.cache.fill_(1e3)
    assert_close(play(pool, slot, scripts[0]), alone[0])


def test_a_stream_stays_exact_after_a_thousand_hours(codec: AudioCodec) -> None:
    # Six layers reach back 10 frames each: from frame 60 on nothing of the strange beginning is left.
    codes = torch.randint(codec.config.codebook_size, (70, 8), generator=torch.Generator().manual_seed(2))
    pool = codec.stream_pool(2)
    young, old = pool.open(), pool.open()
    pool._frames[old] = 45_000_000
    samples = [pool.push([young, old], frame.expand(2, -1)) for frame in codes]
    assert_close(torch.stack(samples[:60])[:, 0], codec.decode(codes[:60]).view(-1, 1920))
    for young_samples, old_samples in samples[62:]:
        assert_close(old_samples, young_samples)


def test_prefixes_of_the_codebooks_decode_in_batches(codec: AudioCodec, scripts: list[torch.Tensor]) -> None:
    pool = codec.stream_pool(1)
    slot = pool.open()
    codes = scripts[0][:, :3]
    assert_close(play(pool, slot, codes).flatten(), codec.decode(codes))


def test_slots_come_back_lowest_first_and_a_full_pool_says_so(codec: AudioCodec) -> None:
    pool = codec.stream_pool(2)
    assert [pool.open(), pool.open()] == [0, 1]
    assert (pool.held, pool.capacity) == (2, 2)
    with pytest.raises(StreamPoolFull, match="all 2 codec streams") as caught:
        pool.open()
    assert caught.value.code == "codec_pool_full"
    pool.close(1)
    pool.close(0)
    assert pool.held == 0
    assert pool.open() == 0


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda pool, codes: pool.push([0, 0], codes[:2]), "codec_slot_repeated"),
        (lambda pool, codes: pool.push([0, 2], codes[:2]), "codec_slot_not_open"),
        (lambda pool, codes: pool.push([0, 7], codes[:2]), "codec_slot_not_open"),
        (lambda pool, codes: pool.push([-1], codes[:1]), "codec_slot_not_open"),
        (lambda pool, codes: pool.push([0, 1], codes[:1]), "codec_codes_shape"),
        (lambda pool, codes: pool.push([0, 1], codes[:2] + 60), "codec_codes_range"),
        (lambda pool, codes: pool.close(2), "codec_slot_not_open"),
        (lambda pool, codes: pool.close(-1), "codec_slot_not_open"),
    ],
)
def test_a_refused_call_names_the_reason_and_changes_nothing(
    codec: AudioCodec,
    scripts: list[torch.Tensor],
    alone: list[torch.Tensor],
    act: Callable[[StreamPool, torch.Tensor], object],
    code: str,
) -> None:
    pool = codec.stream_pool(3)
    slots = [pool.open(), pool.open()]
    for codes in scripts[0][:5]:
        pool.push(slots, codes.expand(2, -1))
    with pytest.raises(CodecInputError) as caught:
        act(pool, scripts[1])
    assert caught.value.code == code
    assert pool.held == 2
    assert_close(pool.push(slots, scripts[0][5].expand(2, -1)), alone[0][5].expand(2, -1))


def test_a_pool_needs_room_for_one(codec: AudioCodec) -> None:
    with pytest.raises(CodecInputError, match="capacity is 0"):
        codec.stream_pool(0)


def test_another_thread_may_own_the_pool_and_nothing_is_allocated_later(
    codec: AudioCodec, scripts: list[torch.Tensor], alone: list[torch.Tensor]
) -> None:
    pool = codec.stream_pool(2)
    before = [ring.cache.data_ptr() for ring in pool._rings]
    with ThreadPoolExecutor(1) as thread:
        samples = thread.submit(lambda: play(pool, pool.open(), scripts[2])).result()
    assert_close(samples, alone[2])
    assert not samples.requires_grad
    assert [ring.cache.data_ptr() for ring in pool._rings] == before


def test_products_in_bfloat16_change_the_audio_by_little(
    codec: AudioCodec, scripts: list[torch.Tensor], alone: list[torch.Tensor]
) -> None:
    pool = codec.stream_pool(2, bf16_matrices=True)
    audio = play(pool, pool.open(), scripts[0])
    error = float((audio - alone[0]).square().mean() / alone[0].square().mean())
    assert 1e-9 < error < 1e-3


def test_frames_pushed_in_groups_sound_as_one_by_one(
    codec: AudioCodec, scripts: list[torch.Tensor], alone: list[torch.Tensor]
) -> None:
    pool = codec.stream_pool(4, max_group_frames=4)
    slots = [pool.open() for _ in range(3)]
    sizes = [1, 4, 2, 3, 4, 1, 4, 4, 4]  # past the end of every ring
    pieces = []
    for begin, size in zip(itertools.accumulate([0, *sizes]), sizes, strict=False):
        codes = torch.stack([scripts[i][begin : begin + size] for i in range(3)])
        pieces.append(pool.push(slots[::-1], codes.flip(0)).flip(0).view(3, size, -1))
    audio = torch.cat(pieces, dim=1)
    for i in range(3):
        assert_close(audio[i], alone[i][: sum(sizes)])


def test_a_group_larger_than_agreed_is_refused_and_nothing_advances(codec: AudioCodec) -> None:
    pool = codec.stream_pool(2, max_group_frames=2)
    slot = pool.open()
    codes = torch.zeros(1, 3, 8, dtype=torch.int64)
    for wrong in (codes, codes[:, :0]):
        with pytest.raises(CodecInputError, match="expected 1 to 2"):
            pool.push([slot], wrong)
    first = pool.push([slot], codes[:, :1])
    torch.testing.assert_close(first[0], codec.decode(codes[0, :1]), atol=2e-5, rtol=0)
