"""The soak itself, small: it runs, it counts, and it notices what is held."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from serving import LIMITS, running, started
from trials.company import SIZES, assert_all_gone

from bench import soak
from bench.soaking import in_process
from bench.soaking.grammar import frame

QUICK = replace(LIMITS, handshake_timeout_ms=300, resume_grace_ms=300, idle_timeout_ms=1000)
TINY = ["--minutes", "0.02", "--guests", "2", "--vandals", "3", "--seed", "4"]


async def soaked(url: str, folder: Path, *more: str) -> tuple[int, dict[str, Any]]:
    file = folder / "report.json"
    code = await asyncio.to_thread(soak.main, [*TINY, "--url", url, "--json", str(file), *more])
    return code, json.loads(file.read_text(encoding="utf-8"))


async def test_a_sound_server_passes_and_everything_is_counted(tmp_path: Path) -> None:
    async with running(QUICK, **SIZES) as server:
        code, report = await soaked(server.url, tmp_path)
        assert (code, report["problems"]) == (0, [])
        assert report["frames_received"] > 0
        assert report["turns"]["end"] > 0
        assert sum(n for kind, n in report["disconnects"].items() if "resumed" not in kind) == report["connects"]
        assert not any(report["server"]["held_at_the_end"].values())
        await assert_all_gone(server)


async def test_what_is_held_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "_SETTLE_S", 0.3)
    async with running(QUICK, **SIZES) as server, started(server) as client:
        # Not idle: it waits for something to say.
        await client.send("turn.append", turn="x", speaker="S1", text="... ")
        code, report = await soaked(server.url, tmp_path, "--guests", "0", "--vandals", "0")
        assert code == 1
        assert any("1 sessions are held" in problem for problem in report["problems"])


def test_messages_in_process_are_right_and_wrong_and_all_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    report = in_process.fuzz(2000, seed=3)
    assert (report["messages"], report["broken"]) == (2000, False)
    assert sum(report["parsed_as"].values()) == 2000
    assert report["parsed_as"].keys() == {"well-formed", "invalid_message", "invalid_json", "invalid_utf8"}
    assert report["parsed_as"]["well-formed"] > 1000

    def broken(_: list[bytes]) -> None:
        raise AssertionError("answered twice")

    monkeypatch.setattr(in_process, "check_server", broken)
    report = in_process.fuzz(2000, seed=3)
    assert report["broken"]
    assert "answered twice" in report["problems"][0]


def test_the_grammar_is_seeded() -> None:
    first, second, other = (random.Random(seed) for seed in (1, 1, 2))
    frames = [frame(first, 0.5) for _ in range(50)]
    assert frames == [frame(second, 0.5) for _ in range(50)]
    assert frames != [frame(other, 0.5) for _ in range(50)]
