"""The books, and first come, first served: admission, prefill in pieces, pauses for slow readers."""

from __future__ import annotations

import pytest

from streamer.engine.blocks import BlockManager
from streamer.engine.scheduler import Refused, ScheduledSequence, Scheduler


def scheduler(n_blocks: int = 100, n_slots: int = 2, max_waiting: int = 3) -> Scheduler[ScheduledSequence]:
    return Scheduler(
        BlockManager(n_blocks, 16),
        n_slots=n_slots,
        max_waiting=max_waiting,
        prefill_chunk_rows=32,
        max_unsent_frames=5,
    )


def sequence(prompt: int = 40, new: int = 20) -> ScheduledSequence:
    keys = [bytes([prompt, i]) for i in range(prompt // 16)]
    return ScheduledSequence(n_prompt_rows=prompt, max_rows=new, prefix_keys=keys)


def prefill(s: Scheduler[ScheduledSequence]) -> list[int]:
    """Run plans until nothing is left to prefill; the piece sizes."""
    pieces = []
    while (plan := s.plan(0.0)).pieces:
        for q, n_rows in plan.pieces:
            pieces.append(n_rows)
            s.prefilled(q, n_rows)
    return pieces


def test_a_prompt_is_prefilled_in_pieces_while_others_decode() -> None:
    s = scheduler()
    first, second = sequence(40), sequence(100)
    s.submit(first, 0.0)
    assert s.admit(0.0).started == [first]
    assert s.plan(0.0).decode == []
    assert prefill(s) == [32, 8]
    s.submit(second, 0.0)
    s.admit(0.0)
    plan = s.plan(0.0)
    assert (plan.pieces, plan.decode) == ([(second, 32)], [first])
    assert prefill(s) == [32, 32, 32, 4]
    assert s.plan(0.0).decode == [first, second]


def test_pieces_end_at_the_same_rows_however_much_is_shared() -> None:
    s = scheduler()
    for _ in range(2):
        s.submit(sequence(100), 0.0)
        s.admit(0.0)
        pieces = prefill(s)
    # 6 whole blocks of the prompt are known by now; what is left is cut where it was cut before.
    assert pieces == [4]
    s.submit(ScheduledSequence(100, 20, [bytes([100, 0])] + [bytes([7, i]) for i in range(5)]), 0.0)
    s.remove(s.running[0])
    s.admit(0.0)
    assert prefill(s) == [16, 32, 32, 4]


def test_slots_are_taken_in_order_of_arrival_and_given_back() -> None:
    s = scheduler()
    sequences = [sequence() for _ in range(3)]
    for q in sequences:
        s.submit(q, 0.0)
    assert s.admit(0.0).started == sequences[:2]
    assert list(s.waiting) == sequences[2:]
    s.remove(sequences[0])
    assert s.admit(0.0).started == sequences[2:]
    for q in sequences[1:]:
        s.remove(q)
    assert (s.n_held_slots, s.blocks.n_held) == (0, 0)


def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    s = scheduler()
    for _ in range(3):
        s.submit(sequence(), 0.0)
    with pytest.raises(Refused) as refusal:
        s.submit(sequence(), 0.0)
    assert refusal.value.code == "overloaded"
    assert refusal.value.retry_after_ms


def test_what_can_never_fit_is_refused_at_once() -> None:
    s = scheduler(n_blocks=4)
    with pytest.raises(Refused) as refusal:
        s.submit(sequence(60, 5), 0.0)
    assert refusal.value.code == "text_too_long"
    assert "5 KV blocks" in refusal.value.message
    s.submit(sequence(60, 4), 0.0)


def test_a_sequence_waits_for_memory_and_then_runs_to_its_end() -> None:
    s = scheduler(n_blocks=6)
    big, small = sequence(60, 10), sequence(20, 10)
    s.submit(big, 0.0)
    s.submit(small, 0.0)
    assert s.admit(0.0).started == [big]
    s.remove(big)
    assert s.admit(0.0).started == [small]


def test_a_small_one_does_not_overtake_a_large_one_that_waits_for_memory() -> None:
    s = scheduler(n_blocks=6)
    running, large, small = sequence(40), sequence(60), sequence(15, 10)
    for q in (running, large, small):
        s.submit(q, 0.0)
    assert s.admit(0.0).started == [running]
    s.remove(running)
    assert s.admit(0.0).started == [large]


def test_a_slow_reader_pauses_its_own_sequence_only() -> None:
    s = scheduler()
    slow, quick = sequence(), sequence(50)
    for q in (slow, quick):
        s.submit(q, 0.0)
    s.admit(0.0)
    prefill(s)
    slow.unsent_frames = 5
    assert s.plan(0.0).decode == [quick]
    slow.unsent_frames = 4
    assert s.plan(0.0).decode == [slow, quick]


def test_a_paused_sequence_lends_its_slot_and_gets_one_back_before_those_who_wait() -> None:
    s = scheduler(n_slots=1)
    slow, second, third = sequence(), sequence(50), sequence(60)
    s.submit(slow, 0.0)
    s.admit(0.0)
    prefill(s)
    s.submit(second, 0.0)
    assert s.admit(0.0).started == []
    slow.unsent_frames = 5
    admission = s.admit(0.0)
    assert (admission.parked, admission.started) == ([slow], [second])
    assert s.n_held_slots == 1
    s.submit(third, 0.0)
    slow.unsent_frames = 0
    assert s.admit(0.0).resumed == []
    prefill(s)
    s.remove(second)
    admission = s.admit(0.0)
    assert (admission.resumed, admission.started) == ([slow], [])
    slow.unsent_frames = 5
    s.admit(0.0)
    assert s.parked == [slow]
    for q in (slow, third):
        s.remove(q)
    assert (s.n_held_slots, s.blocks.n_held) == (0, 0)


def test_a_waiting_sequence_can_be_removed() -> None:
    s = scheduler()
    q = sequence()
    s.submit(q, 0.0)
    assert s.remove(q) == []
    assert s.admit(0.0).started == []


def test_a_slot_that_is_lent_for_nothing_is_not_lent() -> None:
    s = scheduler(n_blocks=6, n_slots=1)
    slow, large = sequence(40), sequence(60)
    s.submit(slow, 0.0)
    s.admit(0.0)
    prefill(s)
    slow.unsent_frames = 5
    s.submit(large, 0.0)
    admission = s.admit(0.0)
    assert (admission.parked, admission.started, s.blocks.n_held) == ([], [], 4)


def test_who_waits_for_memory_keeps_its_place_but_not_those_who_return() -> None:
    s = scheduler(n_blocks=8, n_slots=1)
    slow, guest, large = sequence(40), sequence(20), sequence(60)
    s.submit(slow, 0.0)
    s.admit(0.0)
    prefill(s)
    slow.unsent_frames = 5
    s.submit(guest, 0.0)
    s.submit(large, 0.0)
    assert s.admit(0.0).started == [guest]
    slow.unsent_frames = 0
    s.remove(guest)
    assert s.admit(0.0).resumed == [slow]
    assert list(s.waiting) == [large]
