"""The delay pattern on the device, against the one that handles a single sequence in plain Python."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernels.sampling_inputs import DEVICE

from streamer.models.config import DelayConfig, LanguageConfig
from streamer.models.delay import DelayState, FrameAssembler
from streamer_kernels import DelaySlots
from streamer_kernels.advance_delay import AUDIO_ENDED, CODES_COMPLETE, FRAME

START, END, GO, TAIL = 59, 60, 61, 62
PAD = 64


class Ops:
    """Both ops of one implementation."""

    def __init__(self, name: str) -> None:
        self.module: Any = pytest.importorskip(f"streamer_kernels.advance_delay.{name}", exc_type=ModuleNotFoundError)
        self.device = DEVICE if name == "fused" else torch.device("cpu")

    def plan(self, slots: list[int], delay: DelaySlots, n_vq: int) -> tuple[list[int], list[int], list[int]]:
        forced, first, end = self.module.plan_rows(torch.tensor(slots, device=self.device), delay, n_vq, TAIL, END)
        return forced.tolist(), first.tolist(), end.tolist()

    def advance(self, rows: list[list[int]], slots: list[int], delay: DelaySlots) -> tuple[Any, Any]:
        on_device = torch.tensor(rows, device=self.device), torch.tensor(slots, device=self.device)
        frames, state = self.module.advance_delay(*on_device, delay, PAD, TAIL, END)
        return frames.tolist(), state.tolist()


@pytest.fixture(params=["naive", "host", "fused"])
def ops(request: pytest.FixtureRequest) -> Ops:
    return Ops(request.param)


def delay_config(n_vq: int) -> DelayConfig:
    language = LanguageConfig(70, 8, 8, 1, 1, 1, 8, 1e-6, 1e4)
    return DelayConfig(language, n_vq, PAD, PAD, 24000, 50, 51, 52, START, END, 58, GO, TAIL)


class Sequence:
    """One sequence in audio, its rows made up at random."""

    def __init__(self, slot: int, n_vq: int, chance: random.Random) -> None:
        self.slot, self.n_vq, self.chance = slot, n_vq, chance
        prompt = [START] + [GO] * chance.choice([0, 0, 1, 30])
        self.state = DelayState.after_prompt(delay_config(n_vq), prompt)
        self.frames = FrameAssembler(n_vq, PAD)
        self.tail_at = chance.randint(0, 60)

    def enter(self, delay: DelaySlots) -> None:
        """Set the slot up, over what its last holder left there."""
        slot = self.slot
        delay.audio_length[slot], delay.delayed_length[slot] = self.state.audio_length, -1
        delay.step[slot], delay.tail_at[slot] = 0, self.tail_at

    def expected_plan(self) -> tuple[int, list[int]]:
        self.state.tail_requested = self.state.step >= self.tail_at
        forced = self.state.forced_text_id
        return -1 if forced is None else forced, list(self.state.active_codebooks)

    def row(self, forced: int, active: list[int]) -> list[int]:
        text_id = forced if forced >= 0 else self.chance.choice([*self.state.allowed_in_audio, *[GO] * 20])
        # Now and then a code is missing: that frame is never complete.
        codes = [self.chance.randrange(PAD) if k in active and self.chance.random() > 0.01 else PAD for k in self.books]
        return [text_id, *codes]

    @property
    def books(self) -> range:
        return range(self.n_vq)

    def expected_state(self, row: list[int]) -> tuple[list[int], int]:
        self.state.advance(row[0])
        frame = self.frames.push(row[1:])
        bits = FRAME * (frame is not None) + CODES_COMPLETE * self.state.audio_complete
        return frame or [PAD] * self.n_vq, bits + AUDIO_ENDED * (row[0] == END)

    def assert_held(self, delay: DelaySlots) -> None:
        delayed = self.state.delayed_length
        assert int(delay.audio_length[self.slot]) == self.state.audio_length
        assert int(delay.delayed_length[self.slot]) == (-1 if delayed is None else delayed)
        assert int(delay.step[self.slot]) == self.state.step


@pytest.mark.parametrize("n_vq", [1, 2, 4, 16])
def test_sequences_of_random_rows_go_as_one_alone_would(ops: Ops, n_vq: int) -> None:
    chance = random.Random(n_vq)
    delay = DelaySlots.allocate(5, n_vq, ops.device)
    running: list[Sequence] = []
    waiting = [Sequence(slot, n_vq, chance) for slot in [3, 0, 4, 1, 0, 3, 4, 1]]
    complete = 0
    while running or waiting:
        while waiting and all(s.slot != waiting[0].slot for s in running):
            running.append(waiting.pop(0))
            running[-1].enter(delay)
        chance.shuffle(running)
        slots = [s.slot for s in running]
        plans = [s.expected_plan() for s in running]
        forced, first, end = ops.plan(slots, delay, n_vq)
        assert forced == [p[0] for p in plans]
        assert [list(range(f, e)) for f, e in zip(first, end, strict=True)] == [p[1] for p in plans]
        rows = [s.row(*plan) for s, plan in zip(running, plans, strict=True)]
        expected = [s.expected_state(row) for s, row in zip(running, rows, strict=True)]
        frames, state = ops.advance(rows, slots, delay)
        assert frames == [e[0] for e in expected]
        assert state == [e[1] for e in expected]
        complete += sum(bits & FRAME for bits in state)
        for sequence in running:
            sequence.assert_held(delay)
        running = [s for s in running if s.state.is_audio]
    assert complete > 50


def test_slots_that_were_not_named_stay_as_they_were(ops: Ops) -> None:
    n_vq = 4
    delay = DelaySlots.allocate(3, n_vq, ops.device)
    fields: list[Callable[[], torch.Tensor]] = [
        lambda name=name: getattr(delay, name)  # type: ignore[misc]
        for name in ("audio_length", "delayed_length", "step", "window")
    ]
    for field in fields:
        field()[:] = 7
    ops.advance([[GO, 1, 2, 3, 4]], [1], delay)
    for field in fields:
        assert bool((field()[[0, 2]] == 7).all())
    assert int(delay.step[1]) == 8


def test_a_row_belonging_to_nobody_may_name_one_slot_many_times(ops: Ops) -> None:
    n_vq = 4
    delay = DelaySlots.allocate(2, n_vq, ops.device)
    for _ in range(3):
        ops.plan([1, 1, 0, 1], delay, n_vq)
        ops.advance([[GO, 1, 2, 3, 4]] * 4, [1, 1, 0, 1], delay)
    assert int(delay.step[0]) == 3
