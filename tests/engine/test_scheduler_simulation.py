"""Small worlds of listeners around the real scheduler: overload, a burst, an interruption."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from bench.simulate import main
from bench.simulation import CPU, Behaviour, Session, Turn, World, simulate
from streamer.engine.deadlines import Pacing

PACING = Pacing()
# Long pieces and a slow prompt: what first come, first served lets through is heard.
SLOW_PROMPTS = replace(CPU, piece_rows=512, reference_rows=800, prompt_row_s=0.0003)
NOBODY_INTERRUPTS = Behaviour(interrupting=0.0, reading=0.0, turns=1.001)


def new_session(number: int, turn_s: float = 6.0) -> Session:
    """Says one turn of about that length, by a voice of its own."""
    behaviour = replace(NOBODY_INTERRUPTS, turn_s=turn_s, turn_spread=0.01, arrival_s=1e6)
    return Session(number, behaviour, random.Random(number), voice=number)


def speak(world: World, session: Session, at_s: float, turns: list[Turn]) -> None:
    world.at(at_s, lambda: turns.append(world.ask(session, at_s)))


def burst(pacing: Pacing | None) -> tuple[list[Turn], list[Turn]]:
    """Four are speaking when twelve more come at once; the turns of both."""
    world, running, coming = World(SLOW_PROMPTS, pacing=pacing), list[Turn](), list[Turn]()
    for i in range(4):
        speak(world, new_session(i), i * 1.5, running)
    for i in range(12):
        speak(world, new_session(10 + i), 4.9 + i * 0.001, coming)
    world.run(40.0)
    return running, coming


def test_a_burst_that_first_come_lets_through_makes_nobody_wait_in_mid_turn() -> None:
    naive, _ = burst(None)
    assert max(t.longest_underrun_s for t in naive) > 0.1
    ours, coming = burst(PACING)
    assert max(t.longest_underrun_s for t in ours) == 0
    # The newcomers hear each other's prompts at most as a hiccup.
    assert max(t.longest_underrun_s for t in coming) < 0.1
    assert all(t.ttfa_s is not None for t in coming)


def test_more_listeners_than_the_machine_carries_wait_in_line_and_not_in_mid_turn() -> None:
    naive = simulate(CPU, 28, Behaviour(), pacing=None, seconds=60)
    ours = simulate(CPU, 28, Behaviour(), pacing=PACING, seconds=60)
    assert ours.c50 == 1
    assert ours.unheard == 0
    assert ours.ttfa_p50_s < 0.8 * naive.ttfa_p50_s
    # What is served first is not paid for by serving less.
    assert ours.turns > 0.9 * naive.turns


def test_a_steady_overload_starves_nobody_and_tells_some_to_come_back() -> None:
    small = replace(CPU, n_slots=4)
    impatient = replace(Behaviour(), patience_s=0.0)
    world = World(small, pacing=PACING)
    world.crowd(40, impatient)
    world.run(120.0)
    heard = [t for t in world.turns if t.first_audio_s is not None]
    taken = [t for t in world.turns if t.asked_s < 90 and t not in heard]
    assert max(t.ttfa_s or 0 for t in heard) < 30
    assert sum(t.longest_underrun_s >= 0.05 for t in heard) <= 0.01 * len(heard)
    # All who were not heard had been refused: they are not in the queue any more.
    waiting = {s.turn for s in world.scheduler.waiting}
    assert taken
    assert not waiting & set(taken)


def test_first_audio_comes_sooner_where_others_have_audio_in_hand() -> None:
    naive = simulate(CPU, 16, Behaviour(), pacing=None, seconds=60)
    ours = simulate(CPU, 16, Behaviour(), pacing=PACING, seconds=60)
    assert ours.ttfa_p95_s < 0.7 * naive.ttfa_p95_s
    assert ours.c50 == naive.c50 == 1


def test_those_far_ahead_cost_nothing() -> None:
    """With eight listeners who rest, a newcomer is served as on an idle machine."""
    ttfa_s = []
    for n_resting in (0, 8):
        world, turns = World(CPU, pacing=PACING), list[Turn]()
        # An idle machine has to learn its step times first, too.
        speak(world, new_session(90, 5.0), 0.0, [])
        for i in range(n_resting):
            speak(world, new_session(i, 29.0), 0.0, [])
        world.run(7.0)
        running = world.scheduler.running
        while not all(q.resting and q.clock.lead_s(world.now_s) > 8.1 for q in running):
            world.run(world.now_s + 0.01)
        n_steps, now_s = world.n_steps, world.now_s
        assert len(running) == n_resting
        assert now_s < 12
        world.run(now_s + 0.05)
        assert world.n_steps == n_steps
        speak(world, new_session(99, 3.0), world.now_s, turns)
        world.run(world.now_s + 1.0)
        assert turns[0].ttfa_s is not None
        ttfa_s.append(turns[0].ttfa_s)
    assert ttfa_s[1] == pytest.approx(ttfa_s[0], rel=0.25)


def test_after_an_interruption_the_answer_is_as_fast_as_a_first_turn() -> None:
    world, turns = World(CPU, pacing=PACING), list[Turn]()
    for i in range(8):
        speak(world, new_session(i, 20.0), 0.0, [])
    talker = new_session(50, 8.0)
    talker.turns_left = 2
    speak(world, talker, 1.0, turns)
    world.run(4.0)
    assert talker.clock.lead_s(4.0) > 1
    world.interrupt(talker, 4.0)
    assert talker.clock.lead_s(4.0) == 0
    world.run(10.0)
    # The turn was stopped, the one after it was asked for half a second later.
    answer = world.turns[-1]
    assert answer.asked_s == pytest.approx(4.5)
    assert answer.ttfa_s is not None
    assert answer.ttfa_s < 0.4
    assert max(t.longest_underrun_s for t in world.turns) == 0


def test_the_same_seed_gives_the_same_world_and_nothing_is_left_behind() -> None:
    worlds = [World(CPU, pacing=PACING, seed=3) for _ in range(2)]
    for world in worlds:
        for i in range(40):
            speak(world, new_session(i, 2.0), i * 0.1, [])
        world.run(60.0)
    assert worlds[0].results() == worlds[1].results()
    assert worlds[0].results().unheard == 0
    scheduler = worlds[0].scheduler
    assert (scheduler.n_held_slots, scheduler.blocks.n_held, len(scheduler.waiting)) == (0, 0, 0)
    assert not (scheduler.running or scheduler.parked)


def test_the_command_prints_every_machine_and_draws_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "simulation.svg"
    assert main(["--scale", "0.05", "--out", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("streams  policy") == 3
    assert printed.count("first come") == printed.count("deadlines")
    assert "not measured" in printed
    svg = ElementTree.parse(picture).getroot()
    assert len(svg) == 3
    assert len(svg.findall(".//{*}polyline")) == 12
