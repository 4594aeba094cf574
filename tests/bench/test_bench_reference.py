"""The baseline says what the model says, and the comparison compares turns of one length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_reader import AT_REST, GREEDY, WAIT_S, new_engine, request
from serving import new_speech
from support import GOLDEN, load_codec, load_golden, load_model

import streamer
from bench.floors import floors
from bench.hf_loop import HuggingFaceLoop, kept, penalise
from bench.in_process import SilentCodec, speak_together
from bench.reference import Timing, figures, main, server_first_audio_ms
from streamer.engine import Engine, EngineConfig
from streamer.models import load_tokenizer
from streamer.speech import ASSETS

CASES = [
    (checkpoint, case["name"], case["penalty"])
    for checkpoint in ("delay-nvq4", "delay-nvq16")
    for case in load_golden(checkpoint).info["cases"]
]
SMALL = ["--model", str(GOLDEN / "delay-nvq4" / "model"), "--codec", str(GOLDEN / "codec-nq8" / "codec")]


@pytest.mark.parametrize(("checkpoint", "mode", "penalty"), CASES)
def test_the_baseline_decodes_the_published_greedy_rows(checkpoint: str, mode: str, penalty: float) -> None:
    golden = load_golden(checkpoint)
    expected = golden.arrays[f"greedy/{mode}/penalty_{penalty}"]
    sampling = streamer.SamplingParams(audio_temperature=0, text_temperature=0, audio_repetition_penalty=penalty)
    loop = HuggingFaceLoop.from_pretrained(golden.folder / "model")
    assert torch.equal(loop.generate(golden.arrays[f"prompt/{mode}"], sampling, max_rows=len(expected)), expected)


def test_the_baseline_decodes_the_embedded_models_greedy_rows() -> None:
    model = streamer.DelayModel.from_pretrained(ASSETS / "model")
    prompt = streamer.build_prompt(load_tokenizer(ASSETS / "model"), model.config, "[S1] Hello there.")
    expected = model.generate(prompt, GREEDY, max_rows=40)
    found = HuggingFaceLoop.from_pretrained(ASSETS / "model").generate(prompt, GREEDY, max_rows=40)
    assert torch.equal(found, expected)
    assert len(expected) > 10


@pytest.mark.parametrize("case", load_golden("sampling").info, ids=lambda case: case["case"])
def test_the_baseline_keeps_the_published_tokens_with_their_probabilities(case: dict[str, Any]) -> None:
    arrays = {key: load_golden("sampling").arrays[f"{case['case']}/{key}"] for key in ("logits", "kept", "probs")}
    scores = arrays["logits"].float() / case["temperature"]
    if case["history"]:
        penalise(scores, load_golden("sampling").arrays[f"{case['case']}/history"], case["repetition_penalty"])
    expected = torch.zeros_like(scores)
    expected[arrays["kept"][:, 0], arrays["kept"][:, 1]] = arrays["probs"].float()
    torch.testing.assert_close(kept(scores, case["top_k"], case["top_p"]).softmax(-1), expected, atol=1e-5, rtol=0)


def test_the_baselines_seed_fixes_its_rows_and_its_rows_keep_the_delay_pattern() -> None:
    prompt = load_golden("delay-nvq4").arrays["prompt/voice_clone"]
    loop = HuggingFaceLoop.from_pretrained(GOLDEN / "delay-nvq4" / "model")
    first, again, other = (loop.generate(prompt, seed=seed, max_rows=12) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    start = first[:, 0].tolist().index(loop.config.audio_start_token_id)
    pad = first[start + 1 : start + 4, 1:] == loop.config.audio_pad_code
    assert torch.equal(pad, torch.ones(3, 4).triu(1).bool())


def test_the_baselines_audio_is_that_of_its_whole_frames() -> None:
    loop = HuggingFaceLoop.from_pretrained(GOLDEN / "delay-nvq4" / "model")
    rows = loop.generate(load_golden("delay-nvq4").arrays["prompt/generation"], GREEDY, max_rows=30)
    rows = rows[rows[:, 0].tolist().index(loop.config.audio_start_token_id) + 1 :]
    frames = torch.stack([rows[book : len(rows) - 3 + book, 1 + book] for book in range(4)], dim=1)
    codec = load_codec()
    torch.testing.assert_close(loop.audio(rows, codec), codec.decode(frames), atol=1e-5, rtol=0)


def test_turns_spoken_together_are_the_engines_and_leave_nothing_behind() -> None:
    engine = new_engine()
    together = speak_together(engine, [request(seed=1), request("voice_clone_and_continuation")])
    assert engine.wait_idle(WAIT_S)
    assert engine.holdings() == AT_REST
    alone = speak_together(engine, [request(seed=1)])[0]
    engine.stop()
    for heard in together:
        assert len(heard.audio) == len(heard.codes) == len(heard.frame_times_s) > 2
        assert heard.frame_times_s == sorted(heard.frame_times_s)
        assert heard.frame_times_s[-1] <= heard.wall_s
    np.testing.assert_array_equal(together[0].rows, alone.rows)
    np.testing.assert_allclose(np.concatenate(together[0].audio), np.concatenate(alone.audio), atol=1e-4)


def test_the_silent_codec_changes_no_row() -> None:
    codec = load_codec()
    silent = Engine(load_model("delay-nvq4"), SilentCodec(codec.config, codec.weights), EngineConfig()).start()
    heard = speak_together(silent, [request()])[0]
    silent.stop()
    spoken = new_engine()
    np.testing.assert_array_equal(heard.rows, speak_together(spoken, [request()])[0].rows)
    spoken.stop()
    assert not np.concatenate(heard.audio).any()


def test_ratios_are_times_of_the_baseline_over_times_of_the_engine() -> None:
    seconds = {
        "baseline_rows": 4.0, "engine_rows": 1.0, "baseline_audio": 6.0, "engine_audio": 2.0,
        "known_voice_audio": 2.0, "many_rows": 8.0, "many_audio": 12.0,
    }  # fmt: skip
    times = {
        job: [Timing(s, s / 10, s / 2), Timing(99, 99, 99), Timing(s / 9, s / 99, 0)] for job, s in seconds.items()
    }
    found = figures(times, n_rows=100, seconds=10.0, sequences=16)
    assert found["rows_per_s_one"] == 100
    assert found["rows_per_s_one_ratio"] == found["cpu_time_one_ratio"] == 4
    # The baseline needs 16 x 4 s, the engine 8 s.
    assert found["rows_per_s_many_ratio"] == 8
    assert found["rows_per_s_many"] == 200
    # 6 s against a tenth of 2 s.
    assert found["first_audio_ratio"] == pytest.approx(30)
    assert found["times_real_time"] == 5


def test_the_command_reports_every_figure_and_goal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_path = tmp_path / "report.json"
    lengths = ["--seconds", "0.08", "--sequences", "2", "--repetitions", "1", "--server-turns", "1"]
    assert main([*lengths, "--json", str(report_path)]) == 0
    report = json.loads(report_path.read_text(encoding="utf-8"))
    assert report["lengths"]["rows"] == 8
    assert all(value > 0 for value in report["figures"].values())
    assert report["goals"].keys() == {
        "rows_per_s_one_ratio", "rows_per_s_many_ratio", "first_audio_ratio", "first_audio_known_voice_ratio",
        "times_real_time", "server_first_audio_ms",
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert all(name in printed for name in report["figures"])


def test_turns_that_end_by_themselves_are_not_compared() -> None:
    # The random model ends within a few rows.
    with pytest.raises(SystemExit, match="ended by itself before 8 s"):
        main([*SMALL, "--seconds", "8", "--sequences", "2", "--repetitions", "1", "--server-turns", "0"])


def test_a_model_without_its_codec_is_refused() -> None:
    with pytest.raises(SystemExit, match="--model without --codec"):
        main(SMALL[:2])


async def test_first_audio_through_a_server_is_measured_for_first_and_second_turns() -> None:
    speech = new_speech()
    try:
        found = await server_first_audio_ms(speech, 2)
    finally:
        speech.close()
    assert {place: len(delays) for place, delays in found.items()} == {"first_turn": 2, "second_turn": 2}
    assert all(delay > 0 for delays in found.values() for delay in delays)


def test_floors_grow_slower_than_the_batch_and_shrink_with_the_context() -> None:
    model = load_model("delay-nvq4")
    one, long = (floors(model, prompt_rows, 100, 16) for prompt_rows in (50, 5000))
    assert one["floor_rows_per_s_one"] < one["floor_rows_per_s_many"] < 16.5 * one["floor_rows_per_s_one"]
    assert long["floor_rows_per_s_many"] < one["floor_rows_per_s_many"]
    assert 0 < one["floor_first_audio_ms"] < long["floor_first_audio_ms"]
