"""Everything that needs a GPU, in one call: ``python -m bench.gpu`` (``--tiny`` runs it small, on any machine).

Full-size MOSS-TTSD and codec with random weights: copy bandwidth; kernels against plain torch and graphs against the
eager step, row for row; step time by batch size against the floor that the bandwidth sets, in parts, with 8-bit weights
and keys too; a profile of one step; real-time streams with their time to first audio and underruns.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.machine import describe_machine
from bench.random_models import CODEC_FULL, CODEC_TINY, LANGUAGE_8B, LANGUAGE_TINY, random_codec, random_model
from bench.streams import speak_in_real_time
from streamer.codec import AudioCodec
from streamer.codec.weights import StageWeights
from streamer.engine.captured import CapturedStep
from streamer.models import DelayModel, SlotDecoder
from streamer.models.linear import WeightFormat
from streamer_kernels.dispatch import ENVIRONMENT_VARIABLE

PROMPT_ROWS = 300
CONTEXT_ROWS = 600
Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scale:
    """What is measured: batch sizes, numbers of streams, how long they speak."""

    tiny: bool
    device: torch.device
    dtype: torch.dtype
    n_vq: int
    batches: tuple[int, ...]
    streams: tuple[int, ...]
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    """Print each part as it is done, and write them all as JSON; 1 where a check failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="small models, on a CPU if there is no GPU")
    parser.add_argument("--seconds", type=float, default=20.0, help="audio each real-time stream asks for")
    parser.add_argument("--json", type=Path, help="write the report here as well")
    arguments = parser.parse_args(argv)
    if not (arguments.tiny or torch.cuda.is_available()):
        print("torch sees no GPU; --tiny runs the same on a CPU, at small size", file=sys.stderr)
        return 2
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scale = (
        Scale(True, device, torch.float32, 4, (1, 3), (1, 3), min(arguments.seconds, 2.0))
        if arguments.tiny
        else Scale(False, device, torch.bfloat16, 16, (1, 8, 32, 64, 128), (1, 64, 128, 160), arguments.seconds)
    )
    report: Report = {"machine": describe_machine(device)}
    parts: dict[str, Callable[[Scale, Report], Any]] = {
        "copy_gb_s": copy_bandwidth,
        "same_rows": same_rows,
        "steps": step_times,
        "prefill_ms": prefill_times,
        "profile": profile_step,
        "streams": streams,
    }
    for name, part in parts.items():
        began = time.perf_counter()
        report[name] = part(scale, report)
        print(f"{name} ({time.perf_counter() - began:.0f} s): {json.dumps(report[name], indent=1)}", flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if all(report["same_rows"].values()) else 1


def copy_bandwidth(scale: Scale, _: Report) -> float:
    """GB/s that a copy within the device's memory reaches, bytes read and bytes written counted."""
    n_bytes = 2**22 if scale.tiny else 2**30
    source = torch.zeros(n_bytes, dtype=torch.uint8, device=scale.device)
    target = torch.empty_like(source)
    return 2e-6 * n_bytes / time_ms(scale, lambda: target.copy_(source))


def same_rows(scale: Scale, _: Report) -> dict[str, bool]:
    """Whether kernels draw what plain torch draws, and graphs what the eager step draws: rows of a small model."""
    model = random_model(LANGUAGE_TINY, 4, scale.device, torch.float32)
    codec = random_codec(CODEC_TINY, scale.device, torch.float32)
    rows = random_prompt(model, 40)

    def decode(captured: bool) -> list[np.ndarray]:
        decoder, step, places = open_slots(model, codec, 3, captured=captured, prompt=rows)
        found = []
        for _ in range(60):
            if step is not None:
                found.append(step.run([0, 1, 2], places).rows)
            else:
                slots = torch.arange(3, device=scale.device)
                found.append(decoder.draw(slots).rows.cpu().numpy())
                decoder.forward(slots)
        return found

    plain = with_kernels("naive", lambda: decode(captured=False))
    return {
        "kernels": np.array_equal(plain, decode(captured=False)),
        "graphs": np.array_equal(decode(captured=True), decode(captured=False)),
    }


def step_times(scale: Scale, report: Report) -> list[Report]:
    """A step of each batch size, in milliseconds, and its ratio to the bandwidth floor."""
    language, size = (LANGUAGE_TINY, CODEC_TINY) if scale.tiny else (LANGUAGE_8B, CODEC_FULL)
    codec = random_codec(size, scale.device, scale.dtype)
    found = []
    formats: tuple[WeightFormat, ...] = ("native", "fp8")
    for weights in formats:
        model = random_model(language, scale.n_vq, scale.device, scale.dtype, weights)
        kv_types = (scale.dtype,) if weights == "native" else (scale.dtype, torch.float8_e4m3fn)
        for kv_type in kv_types:
            for batch in scale.batches:
                floor_ms = floor_bytes(model, codec, batch, weights, kv_type) / report["copy_gb_s"] / 1e6
                entry: Report = {"weights": weights, "kv": str(kv_type).removeprefix("torch."), "batch": batch}
                entry |= measure_step(scale, model, codec, batch, kv_type, eager=weights == "native")
                found.append(entry | {"floor_ms": floor_ms, "by_floor": entry["step_ms"] / floor_ms})
        del model
    return found


def measure_step(
    scale: Scale, model: DelayModel, codec: AudioCodec, batch: int, kv_type: torch.dtype, *, eager: bool
) -> Report:
    """One batch size: with and without the codec beside the model, and without graphs."""
    slots = list(range(batch))
    entry: Report = {}
    for name, overlap in (("step_ms", True), ("step_ms_one_stream", False)):
        _, step, places = open_slots(model, codec, batch, captured=True, overlap=overlap, kv_type=kv_type)
        assert step is not None
        entry[name] = time_ms(scale, functools.partial(step.run, slots, places))
        del step
    if eager:
        decoder, _, _ = open_slots(model, codec, batch, captured=False, kv_type=kv_type)
        names = torch.arange(batch, device=scale.device)

        def decode() -> None:
            decoder.draw(names)
            decoder.forward(names, n_blocks=CONTEXT_ROWS // 16 + 8)

        entry["eager_model_ms"] = time_ms(scale, decode)
        entry["eager_model_plain_torch_ms"] = with_kernels("naive", lambda: time_ms(scale, decode))
    return entry


def floor_bytes(model: DelayModel, codec: AudioCodec, batch: int, weights: str, kv_type: torch.dtype) -> float:
    """Bytes that a step can't do without: all weights once, and the keys and values of each sequence and stream."""
    c, item = model.config, model.dtype.itemsize
    language = c.language
    heads = (language.n_heads + 2 * language.n_kv_heads) * language.head_dim
    per_layer = language.hidden_size * (heads + language.n_heads * language.head_dim + 3 * language.intermediate_size)
    total = language.n_layers * per_layer * (1 if weights == "fp8" else item)
    total += c.n_vq * (c.audio_vocab_size + 1) * language.hidden_size * item
    kv_row = 2 * language.n_layers * language.n_kv_heads * language.head_dim * kv_type.itemsize
    total += batch * CONTEXT_ROWS * kv_row
    for stage in codec.weights.decoder:
        if isinstance(stage, StageWeights):
            width, steps = stage.config.model_dim, stage.config.context_steps
            matrices = 4 * width * width + 2 * width * stage.config.feedforward_dim
            total += len(stage.layers) * (matrices + batch * 2 * steps * width) * stage.layers[0].qkv.element_size()
    return float(total)


def prefill_times(scale: Scale, _: Report) -> dict[str, float]:
    """Milliseconds for prompts of some lengths, in one piece."""
    language = LANGUAGE_TINY if scale.tiny else LANGUAGE_8B
    model = random_model(language, scale.n_vq, scale.device, scale.dtype)
    pool, table = model.new_pool(65), torch.arange(64, device=scale.device)
    prompt = random_prompt(model, 1024)
    lengths = (16, 64) if scale.tiny else (64, 256, 1024)

    def prefill(n_rows: int) -> torch.Tensor:
        return model.prefill(prompt[:n_rows], pool, table, 0)

    return {str(n_rows): time_ms(scale, functools.partial(prefill, n_rows)) for n_rows in lengths}


def profile_step(scale: Scale, _report: Report) -> list[Report]:
    """Where the time of one step goes: the dearest kernels, by their share."""
    language, size = (LANGUAGE_TINY, CODEC_TINY) if scale.tiny else (LANGUAGE_8B, CODEC_FULL)
    model = random_model(language, scale.n_vq, scale.device, scale.dtype)
    codec = random_codec(size, scale.device, scale.dtype)
    batch = scale.batches[-2]
    _, step, places = open_slots(model, codec, batch, captured=True, overlap=False)
    assert step is not None
    slots = list(range(batch))
    step.run(slots, places)
    with torch.profiler.profile() as profile:
        for _ in range(5):
            step.run(slots, places)
    on_cuda = scale.device.type == "cuda"
    events = [(e.self_device_time_total if on_cuda else e.self_cpu_time_total, e) for e in profile.key_averages()]
    total = sum(us for us, _ in events) or 1.0
    events.sort(key=lambda pair: -pair[0])
    return [
        {"kernel": e.key[:90], "share": round(us / total, 4), "us_a_step": round(us / 5, 1), "calls": e.count // 5}
        for us, e in events[:20]
    ]


def streams(scale: Scale, _: Report) -> list[Report]:
    """Real-time streams through the whole engine: time to first audio, continuity, speed."""
    language, size = (LANGUAGE_TINY, CODEC_TINY) if scale.tiny else (LANGUAGE_8B, CODEC_FULL)
    model = random_model(language, scale.n_vq, scale.device, scale.dtype)
    codec = random_codec(size, scale.device, scale.dtype)
    prompt = random_prompt(model, 40 if scale.tiny else PROMPT_ROWS).cpu()
    return [speak_in_real_time(model, codec, prompt, count, scale.seconds) for count in scale.streams]


def open_slots(
    model: DelayModel,
    codec: AudioCodec,
    batch: int,
    *,
    captured: bool,
    overlap: bool = True,
    kv_type: torch.dtype | None = None,
    prompt: torch.Tensor | None = None,
) -> tuple[SlotDecoder, CapturedStep | None, list[int]]:
    """``batch`` sequences ready to decode, after the prompt or, without one, after CONTEXT_ROWS rows of nothing."""
    rows = random_prompt(model, CONTEXT_ROWS) if prompt is None else prompt
    blocks_each = len(rows) // 16 + 20
    pool = model.new_pool(batch * blocks_each + 1, dtype=kv_type)
    decoder = SlotDecoder(model, pool, batch, max_rows=blocks_each * 16)
    for slot in range(batch):
        blocks = list(range(slot * blocks_each, (slot + 1) * blocks_each))
        hidden = torch.ones(model.config.language.hidden_size, device=model.device, dtype=model.dtype)
        if prompt is not None:
            hidden = model.prefill(rows, pool, torch.tensor(blocks, device=model.device), 0)[-1]
        decoder.open(slot, rows, blocks, hidden, model.default_sampling, seed=slot, max_rows=10**6)
    if not captured:
        return decoder, None, []
    pool_of_streams = codec.stream_pool(batch)
    step = CapturedStep(decoder, pool_of_streams, batch, overlap=overlap, sizes=(batch,))
    return decoder, step, [pool_of_streams.open() for _ in range(batch)]


def random_prompt(model: DelayModel, n_rows: int) -> torch.Tensor:
    """(n_rows, 1+n_vq) rows that end inside audio."""
    c = model.config
    generator = torch.Generator().manual_seed(2)
    rows = torch.randint(0, c.audio_vocab_size, (n_rows, 1 + c.n_vq), generator=generator)
    rows[:, 0] = c.audio_assistant_gen_slot_token_id
    rows[0, 0] = c.audio_start_token_id
    return rows.to(model.device)


def with_kernels(choice: str, work: Callable[[], Any]) -> Any:
    """The work's result with one implementation of the kernels forced."""
    before = os.environ.get(ENVIRONMENT_VARIABLE)
    os.environ[ENVIRONMENT_VARIABLE] = choice
    try:
        return work()
    finally:
        os.environ.pop(ENVIRONMENT_VARIABLE)
        if before is not None:
            os.environ[ENVIRONMENT_VARIABLE] = before


def time_ms(scale: Scale, work: Callable[[], Any]) -> float:
    """Median of some runs, each waited for."""
    repeats = 3 if scale.tiny else 20
    for _ in range(2 if scale.tiny else 5):
        work()
    times = []
    for _ in range(repeats):
        synchronize(scale.device)
        began = time.perf_counter()
        work()
        synchronize(scale.device)
        times.append((time.perf_counter() - began) * 1000)
    return float(np.median(times))


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
