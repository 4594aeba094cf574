"""``python -m bench.reference``: this engine against a plain loop over Hugging Face modules, in one run.

Same weights, same machine, one thread, the checkpoint's own sampling, turns of the same length, both sides in
alternation so that what else the machine does falls on both. Where a figure's name does not say ``known_voice``, no
cache has seen the prompt.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import streamer
from bench.floors import floors
from bench.hf_loop import HuggingFaceLoop
from bench.in_process import SilentCodec, speak_together
from bench.machine import describe_machine
from streamer.codec import AudioCodec
from streamer.engine import Engine, EngineConfig, GenerationRequest
from streamer.models import DelayModel, load_tokenizer
from streamer.text import build_prompt

if TYPE_CHECKING:
    from streamer.speech import Speech

ASSETS = Path(streamer.__file__).parent / "assets"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# Spoken in a little more than ten seconds by the embedded model.
TEXT = (
    "Number {number}. Today I want to tell you about the train that was late again, about the plumber who came on "
    "Tuesday, and about the puzzle that took us three weeks, and then we can have lunch."
)
FRAMES_PER_SECOND = 12.5
_MOST_EARLY_ENDS = 20
_ROWS_A_TURN = 1024


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that is to be reached: at least ``limit``, or at most where ``at_most``."""

    name: str
    limit: float
    at_most: bool = False

    def reached(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit


GOALS = (
    Goal("rows_per_s_one_ratio", 2),
    Goal("rows_per_s_many_ratio", 15),
    Goal("first_audio_ratio", 20),
    Goal("first_audio_known_voice_ratio", 20),
    Goal("times_real_time", 4),
    Goal("server_first_audio_ms", 150, at_most=True),
)


@dataclass(frozen=True, slots=True)
class Lengths:
    """``seconds`` of audio in a turn, ``sequences`` at once, and how often everything is done."""

    seconds: float
    sequences: int
    repetitions: int
    server_turns: int


@dataclass(frozen=True, slots=True)
class Timing:
    """Turns spoken together: seconds until all were over and until the first one's first audio; CPU seconds used."""

    whole_s: float
    first_audio_s: float
    cpu_s: float


Times = dict[str, list[Timing]]
"""The timings of each job, one for each repetition."""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Both sides' models with the same weights, and what they share. references: (frames, n_vq) each, maybe none."""

    model: DelayModel
    baseline: HuggingFaceLoop
    codec: AudioCodec
    tokenizer: Any
    references: Sequence[torch.Tensor]

    @classmethod
    def load(cls, model: str | None, codec: str | None, device: torch.device, dtype: torch.dtype) -> Parts:
        """The embedded model with its voices and codec, or checkpoints by folder or hub id, without voices."""
        path = model or str(ASSETS / "model")
        loaded = DelayModel.from_pretrained(path, device=device, dtype=dtype)
        # Not by the voices' own reader: it wants audio libraries, which machines with an accelerator may lack.
        voices = () if model else sorted((ASSETS / "voices").glob("*.json"))
        codes = [json.loads(voice.read_text(encoding="utf-8"))["codes"] for voice in voices]
        return cls(
            model=loaded,
            baseline=HuggingFaceLoop.from_pretrained(path, device=device, dtype=dtype),
            codec=AudioCodec.from_pretrained(codec or ASSETS / "codec", device=device, dtype=dtype),
            tokenizer=load_tokenizer(path),
            references=[torch.tensor(frames)[:, : loaded.config.n_vq] for frames in codes],
        )


class Comparison:
    """The jobs to be timed. ``close`` when done."""

    def __init__(self, parts: Parts, lengths: Lengths) -> None:
        self._parts = parts
        self._lengths = lengths
        n_vq = parts.model.config.n_vq
        self.n_rows = round(lengths.seconds * FRAMES_PER_SECOND) + n_vq - 1
        self.seconds = (self.n_rows - n_vq + 1) / FRAMES_PER_SECOND
        n_slots = max(lengths.sequences, EngineConfig().max_batch)
        config = EngineConfig(max_batch=n_slots, max_sessions=n_slots, kv_rows=n_slots * _ROWS_A_TURN, max_lead_s=None)
        codec = parts.codec
        self._spoken = Engine(parts.model, codec, config).start()
        self._silent = Engine(parts.model, SilentCodec(codec.config, codec.weights), config).start()
        self._numbers = itertools.count()
        self._early_ends = 0

    @property
    def n_prompt_rows(self) -> int:
        """Length of a prompt."""
        return len(self._prompt(0))

    def close(self) -> None:
        """Stop the engines."""
        self._spoken.stop()
        self._silent.stop()

    def measure(self) -> Times:
        """Everything once to warm up, then each repetition in the other's reverse order."""
        many = self._lengths.sequences
        jobs: dict[str, Callable[[], Timing]] = {
            "baseline_rows": lambda: self._baseline_turn(None),
            "engine_rows": lambda: self._engine_turns(self._silent, 1),
            "baseline_audio": lambda: self._baseline_turn(self._parts.codec),
            "engine_audio": lambda: self._engine_turns(self._spoken, 1),
            "known_voice_audio": lambda: self._engine_turns(self._spoken, 1, known_voice=True),
            "many_rows": lambda: self._engine_turns(self._silent, many),
            "many_audio": lambda: self._engine_turns(self._spoken, many),
        }
        times: Times = {name: [] for name in jobs}
        for repetition in range(-1, self._lengths.repetitions):
            for name in list(jobs)[:: 1 if repetition % 2 else -1]:
                found = jobs[name]()
                if repetition >= 0:
                    times[name].append(found)
        return times

    def _baseline_turn(self, codec: AudioCodec | None) -> Timing:
        while True:
            number = next(self._numbers)
            prompt = self._prompt(number)
            began_s, cpu_began_s = time.perf_counter(), time.process_time()
            rows = self._parts.baseline.generate(prompt, seed=number, max_rows=self.n_rows)
            if codec is not None:
                self._parts.baseline.audio(rows, codec)
            whole_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_began_s
            if self._whole([len(rows)]):
                # Its audio is there when everything is.
                return Timing(whole_s, whole_s, cpu_s)

    def _engine_turns(self, engine: Engine, n_turns: int, known_voice: bool = False) -> Timing:
        sampling = self._parts.model.default_sampling
        while True:
            numbers = [next(self._numbers) for _ in range(n_turns)]
            requests = [GenerationRequest(self._prompt(n, known_voice), sampling, n, self.n_rows) for n in numbers]
            cpu_began_s = time.process_time()
            heard = speak_together(engine, requests)
            cpu_s = time.process_time() - cpu_began_s
            if self._whole([len(turn.rows) for turn in heard]):
                return Timing(max(turn.wall_s for turn in heard), heard[0].frame_times_s[0], cpu_s)

    def _whole(self, n_rows: list[int]) -> bool:
        """Whether no turn ended early: only turns of one length are compared."""
        if min(n_rows) == self.n_rows:
            return True
        self._early_ends += 1
        if self._early_ends > _MOST_EARLY_ENDS:
            raise SystemExit(
                f"bench.reference: {_MOST_EARLY_ENDS} times a turn ended by itself before {self.seconds:g} s, "
                f"the last after {min(n_rows)} of {self.n_rows} rows; ask for less with --seconds"
            )
        return False

    def _prompt(self, number: int, known_voice: bool = False) -> torch.Tensor:
        """A prompt that ends in audio_start. Its text is its own, and so is its reference unless ``known_voice``."""
        parts, config = self._parts, self._parts.model.config
        references = None
        if parts.references:
            reference = parts.references[0 if known_voice else number % len(parts.references)]
            references = [reference.roll(0 if known_voice else 1 + number // len(parts.references), dims=0)]
        rows = build_prompt(parts.tokenizer, config, f"[S1] {TEXT.format(number=number)}", references=references)
        start = rows.new_full((1, rows.shape[1]), config.audio_pad_code)
        start[0, 0] = config.audio_start_token_id
        return torch.cat((rows, start))


def figures(times: Times, n_rows: int, seconds: float, sequences: int) -> dict[str, float]:
    """Rates and ratios of medians. The baseline speaks ``sequences`` turns in as many times its time for one."""
    whole_s = {job: statistics.median(t.whole_s for t in found) for job, found in times.items()}
    first_s = {job: statistics.median(t.first_audio_s for t in found) for job, found in times.items()}
    cpu_s = {job: statistics.median(t.cpu_s for t in found) for job, found in times.items()}
    plain_s, spoken_s = whole_s["baseline_rows"], whole_s["baseline_audio"]
    return {
        "baseline_rows_per_s": n_rows / plain_s,
        "rows_per_s_one": n_rows / whole_s["engine_rows"],
        "rows_per_s_one_ratio": plain_s / whole_s["engine_rows"],
        "rows_per_s_many": sequences * n_rows / whole_s["many_rows"],
        "rows_per_s_many_ratio": sequences * plain_s / whole_s["many_rows"],
        "baseline_rows_per_s_with_audio": n_rows / spoken_s,
        "rows_per_s_one_with_audio": n_rows / whole_s["engine_audio"],
        "rows_per_s_one_with_audio_ratio": spoken_s / whole_s["engine_audio"],
        "rows_per_s_many_with_audio": sequences * n_rows / whole_s["many_audio"],
        "rows_per_s_many_with_audio_ratio": sequences * spoken_s / whole_s["many_audio"],
        "baseline_first_audio_ms": spoken_s * 1000,
        "first_audio_ms": first_s["engine_audio"] * 1000,
        "first_audio_ratio": spoken_s / first_s["engine_audio"],
        "first_audio_known_voice_ms": first_s["known_voice_audio"] * 1000,
        "first_audio_known_voice_ratio": spoken_s / first_s["known_voice_audio"],
        "times_real_time": seconds / whole_s["engine_audio"],
        "times_real_time_many": sequences * seconds / whole_s["many_audio"],
        # What others do on a shared machine lengthens the clock's time, hardly the processor's.
        "cpu_time_one_ratio": cpu_s["baseline_rows"] / cpu_s["engine_rows"],
        "cpu_time_many_ratio": sequences * cpu_s["baseline_rows"] / cpu_s["many_rows"],
        "cpu_time_many_with_audio_ratio": sequences * cpu_s["baseline_audio"] / cpu_s["many_audio"],
        "cpu_time_times_real_time": seconds / cpu_s["engine_audio"],
    }


async def server_first_audio_ms(speech: Speech, n_dialogues: int) -> dict[str, list[float]]:
    """From sending a turn over a real socket on loopback to its first packet: first turns and second turns.

    Server and client share this process. One dialogue before the measured ones brings the voices into the prefix
    cache, where they are in a server that has spoken before.
    """
    from streamer.evaluation import HELD_OUT, read_dialogues
    from streamer.server import DialogueServer, ServerConfig
    from streamer_client import Audio, TurnCompleted, connect

    dialogues = read_dialogues(HELD_OUT, ["any"])
    found: dict[str, list[float]] = {"first_turn": [], "second_turn": []}
    async with DialogueServer(speech, ServerConfig(port=0, drain_s=0)) as server:
        for number in range(n_dialogues + 1):
            turns = dialogues[number % len(dialogues)].turns[:2]
            async with connect(server.url, seed=number) as dialogue:
                for place, turn in zip(found, turns, strict=False):
                    sent_s = time.perf_counter()
                    await dialogue.turn("S1" if turn.speaker == 1 else "S2", turn.text)
                    first_ms = None
                    async for event in dialogue.events():
                        if isinstance(event, Audio) and first_ms is None:
                            first_ms = (time.perf_counter() - sent_s) * 1000
                        if isinstance(event, TurnCompleted):
                            break
                    if number and first_ms is not None:
                        found[place].append(first_ms)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 0; the goals are printed beside the figures, not enforced."""
    options = _parser().parse_args(arguments)
    if options.model and not options.codec:
        raise SystemExit("bench.reference: --model without --codec; name the codec that goes with it")
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    dtype = DTYPES[options.dtype or ("bfloat16" if device.type == "cuda" else "float32")]
    machine = describe_machine(device)
    lengths = Lengths(options.seconds, options.sequences, options.repetitions, options.server_turns)
    parts = Parts.load(options.model, options.codec, device, dtype)
    comparison = Comparison(parts, lengths)
    try:
        times = comparison.measure()
    finally:
        comparison.close()
    found = figures(times, comparison.n_rows, comparison.seconds, lengths.sequences)
    if device.type == "cpu":
        found |= floors(parts.model, comparison.n_prompt_rows, comparison.n_rows, lengths.sequences)
    if lengths.server_turns:
        found |= _served(options, str(dtype).removeprefix("torch."))
    report = {
        "machine": machine,
        "model": {"name": parts.model.name, "dtype": str(dtype).removeprefix("torch.")},
        "sampling": asdict(parts.model.default_sampling),
        "lengths": {**asdict(lengths), "rows": comparison.n_rows},
        "figures": found,
        "goals": {goal.name: goal.reached(found[goal.name]) for goal in GOALS if goal.name in found},
        "times": {job: [asdict(timing) for timing in timings] for job, timings in times.items()},
    }
    print(table_of(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def table_of(report: dict[str, Any]) -> str:
    """The report as text: the machine, then a line for each figure, with its goal where it has one."""
    goals = {goal.name: goal for goal in GOALS}
    lengths = report["lengths"]
    lines = [
        ", ".join(f"{key} {value}" for key, value in report["machine"].items() if value is not None),
        f"model {report['model']['name']} ({report['model']['dtype']}), turns of {lengths['rows']} rows = "
        f"{lengths['seconds']:g} s, many = {lengths['sequences']}, medians of {lengths['repetitions']}",
    ]
    for name, value in report["figures"].items():
        line = f"{name:36} {value:10.2f}"
        if name in goals:
            sign = "<=" if goals[name].at_most else ">="
            line += f"   goal {sign} {goals[name].limit:g}: {'reached' if report['goals'][name] else 'MISSED'}"
        lines.append(line)
    return "\n".join(lines)


def _served(options: argparse.Namespace, dtype: str) -> dict[str, float]:
    from streamer.speech import Speech, SpeechConfig

    config = SpeechConfig(options.model, options.codec, device=options.device, dtype=dtype, threads=options.threads)
    speech = Speech.load(config)
    speech.engine.start()
    try:
        delays_ms = asyncio.run(server_first_audio_ms(speech, options.server_turns))
    finally:
        speech.close()
    return {
        "server_first_audio_ms": statistics.median(delays_ms["first_turn"]),
        "server_first_audio_second_turn_ms": statistics.median(delays_ms["second_turn"]),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.reference", description=__doc__)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the embedded model)")
    parser.add_argument("--codec", help="codec folder or hub id (default: the embedded one)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda (default: cpu)")
    parser.add_argument("--dtype", choices=list(DTYPES), help="default: float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a turn (default: 10)")
    parser.add_argument("--sequences", type=int, default=16, help="turns at once (default: 16)")
    parser.add_argument("--repetitions", type=int, default=5, help="default: 5")
    parser.add_argument("--server-turns", type=int, default=8, help="dialogues through a server, 0 for none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the report")
    return parser


if __name__ == "__main__":
    sys.exit(main())
