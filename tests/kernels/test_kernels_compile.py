"""Every kernel compiles for the GPUs that matter, spills nothing, and stays within its registers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

# Registers a thread, over all capabilities; what was measured and a little for the next compiler.
MOST_REGISTERS = {
    "add_rms_norm": 40,
    "advance_row": 32,
    "decode_attention-64": 96,
    "decode_attention-128-bf16": 128,
    "decode_attention-128-fp8e4nv": 168,
    "draw_codes": 72,
    "draw_text": 64,
    "embed_rows": 40,
    "merge_splits": 48,
    "norm_rope_write": 32,
    "note_codes": 24,
    "plan_row": 24,
    "silu_gate": 40,
}
# What a block may have on the smallest GPU of these generations.
MOST_SHARED_BYTES = 99 * 1024
CAPABILITIES = (80, 90, 100)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    script = Path(__file__).with_name("compile_only.py")
    command = [sys.executable, str(script), *map(str, CAPABILITIES)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def limit_of(name: str) -> int:
    """The limit whose name is the longest beginning of the case's."""
    matching = [known for known in MOST_REGISTERS if name.startswith(known)]
    assert matching, f"{name}: measure it with compile_only.py and give it a limit"
    return MOST_REGISTERS[max(matching, key=len)]


def test_no_kernel_takes_more_registers_than_it_did(compiled: list[dict[str, Any]]) -> None:
    over = [case for case in compiled if case["registers"] > limit_of(case["name"])]
    assert not over


def test_no_kernel_spills(compiled: list[dict[str, Any]]) -> None:
    assert not [case for case in compiled if case["stack"]]


def test_every_kernel_fits_the_shared_memory_of_a_block(compiled: list[dict[str, Any]]) -> None:
    assert not [case for case in compiled if case["shared"] > MOST_SHARED_BYTES]


def test_every_kernel_was_compiled_for_every_capability(compiled: list[dict[str, Any]]) -> None:
    names = {case["name"] for case in compiled}
    assert {known for known in MOST_REGISTERS if not any(name.startswith(known) for name in names)} == set()
    pairs = {(case["name"], case["capability"]) for case in compiled}
    expected = {(name, at) for name in names for at in CAPABILITIES if at >= 89 or "fp8" not in name}
    assert pairs == expected
