"""The benchmarks for a GPU, whole but small, on whatever device there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import gpu, kernels


def test_the_gpu_benchmark_runs_small_and_its_checks_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    assert gpu.main(["--tiny", "--seconds", "1", "--json", str(out)]) == 0
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["same_rows"] == {"kernels": True, "graphs": True}
    assert {(step["weights"], step["kv"], step["batch"]) for step in report["steps"]} == {
        (weights, kv, batch)
        for weights, kv in (("native", "float32"), ("fp8", "float32"), ("fp8", "float8_e4m3fn"))
        for batch in (1, 3)
    }
    assert all(step["by_floor"] > 0 for step in report["steps"])
    assert report["profile"][0]["share"] >= report["profile"][-1]["share"] > 0
    assert [streams["streams"] for streams in report["streams"]] == [1, 3]
    assert all(streams["c200"] <= 1 for streams in report["streams"])
    assert "copy_gb_s" in capsys.readouterr().out


def test_the_kernel_benchmark_covers_every_op_of_a_step(tmp_path: Path) -> None:
    out = tmp_path / "kernels.json"
    assert kernels.main(["--tiny", "--json", str(out)]) == 0
    report = json.loads(out.read_text(encoding="utf-8"))
    assert {entry["op"] for entry in report["ops"]} == {
        *("embed_rows", "add_rms_norm", "norm_rope_write", "attention", "silu_gate"),
        *("plan_rows", "sample_text", "sample_codes", "advance_delay"),
    }
    assert all(entry["torch_us"] > 0 for entry in report["ops"])
