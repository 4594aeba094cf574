"""``python -m training.train_codec --corpus DIR --run DIR --steps N --out DIR``: trains the audio codec.

Starts from a published checkpoint, from a config alone, or from ``<run>/state.pt`` where there is one. Every batch
depends on the seed and the step alone, so a run that was stopped ends as if it had not been. Losses go to
``<run>/log.jsonl``; ``--export-only`` writes the checkpoint of the run as it is.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from streamer.checkpoint import CheckpointError
from training.codec_checkpoint import CODEC, export_codec, fresh_codec, load_codec
from training.codec_data import CorpusError, SpeechCorpus
from training.codec_network import CodecNetwork
from training.codec_trainer import CodecRunError, CodecTrainer, TrainConfig
from training.progress import progress_bar
from training.teachers import SAMPLE_RATE

STATE, LOG, CONFIG = "state.pt", "log.jsonl", "config.json"
_FRESH_BYPASS_STEPS = 200
_HELD_OUT_RECORDINGS = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Train until the run has its steps, then export."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.export_only and (options.corpus is None or options.steps is None):
        parser.error("--corpus and --steps are needed to train")
    for name in ("steps", "clips", "frames", "held_out_steps"):
        if (value := getattr(options, name)) is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} is {value}, expected at least 1")
    try:
        if not options.export_only:
            train(options)
        export_run(options.run, options.out)
    except (CheckpointError, CodecRunError, CorpusError) as error:
        print(f"train_codec: {error}", file=sys.stderr)
        return 2
    return 0


def train(options: argparse.Namespace) -> None:
    """The run that the options describe, from wherever it stopped."""
    if options.from_config and options.decoder_only:
        raise CodecRunError("codec_run_fresh", "--decoder-only needs a codec to keep: give --codec, not --from-config")
    _check_joining(options)
    config = TrainConfig(
        options.steps,
        options.learning_rate,
        options.clips,
        options.frames,
        options.decoder_only,
        _FRESH_BYPASS_STEPS if options.from_config else 0,
        options.adversarial,
        options.discriminator_steps,
        tuple(options.joining),
        options.seed,
    )
    state = None
    if (options.run / STATE).exists():
        state = torch.load(options.run / STATE, map_location="cpu", weights_only=True)
    network = begin(options) if state is None else fresh_codec(options.run, options.seed)
    if network.config.sampling_rate != SAMPLE_RATE:
        found = network.config.sampling_rate
        raise CodecRunError("codec_run_rate", f"the codec works at {found} Hz, the corpus is at {SAMPLE_RATE} Hz")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    compiled = device.type == "cuda" if options.compile is None else options.compile
    before = load_codec(options.before) if options.before else None
    trainer = CodecTrainer(network, config, device, before=before, compiled=compiled)
    weights = parse_voices(options.voices) if options.voices else None
    frame_samples = network.config.frame_samples
    if state is None:
        corpus = SpeechCorpus(options.corpus, frame_samples, weights)
    else:
        trainer.resume(state)
        print(f"{options.run / STATE}: goes on from step {trainer.step}", flush=True)
        # Shards that came since would change what is drawn and what is held out.
        corpus = SpeechCorpus(options.corpus, frame_samples, state["weights"], state["n_shards"])
    if unknown := set(config.joining) - set(corpus.weights):
        raise CodecRunError("codec_run_joining", f"--joining: {min(unknown)!r} is not among the corpus's voices")
    print(f"{corpus.hours:.1f} h of speech, voices {', '.join(corpus.weights)}", flush=True)
    run(trainer, corpus, options.run, options.held_out_steps, options.save_minutes * 60)


def _check_joining(options: argparse.Namespace) -> None:
    if options.joining and options.from_config:
        message = "--joining needs a codec that knows other voices: give --codec, not --from-config"
    elif options.joining and options.decoder_only and not options.before:
        message = "--decoder-only with --joining needs --before, the codec of the others' codes"
    elif options.before and not options.joining:
        message = "--before says what codes to keep while voices join: it goes with --joining"
    else:
        return
    raise CodecRunError("codec_run_joining", message)


def begin(options: argparse.Namespace) -> CodecNetwork:
    """The network that a new run starts from, whose config goes into the run's folder."""
    options.run.mkdir(parents=True, exist_ok=True)
    if options.from_config is None:
        network = load_codec(options.codec)
        shutil.copyfile(options.codec / CONFIG, options.run / CONFIG)
        return network
    if not options.from_config.is_file():
        raise CodecRunError("codec_run_config", f"--from-config: {options.from_config} is not a file")
    shutil.copyfile(options.from_config, options.run / CONFIG)
    return fresh_codec(options.run, options.seed)


def run(trainer: CodecTrainer, corpus: SpeechCorpus, folder: Path, held_out_steps: int, save_seconds: float) -> None:
    """All steps that are left, with a line of ``log.jsonl`` for each and a state saved now and then."""
    total = trainer.config.steps
    folder.mkdir(parents=True, exist_ok=True)
    began = saved = time.monotonic()
    first, smooth = trainer.step, 0.0
    with (folder / LOG).open("a", encoding="utf-8") as log, progress_bar("steps", total, "steps") as bar:

        def write(line: dict[str, object]) -> None:
            log.write(json.dumps({"step": trainer.step, **line}) + "\n")
            log.flush()

        if trainer.step == 0:
            write({"held_out": _rounded(trainer.measure(corpus, _HELD_OUT_RECORDINGS))})
        bar.advance(trainer.step)
        while trainer.step < total:
            report = trainer.train(corpus)
            line: dict[str, object] = {name: round(value, 4) for name, value in report.items()}
            if trainer.step % held_out_steps == 0 or trainer.step == total:
                line["held_out"] = _rounded(trainer.measure(corpus, _HELD_OUT_RECORDINGS))
            write(line)
            smooth = report["spectral"] if not smooth else 0.98 * smooth + 0.02 * report["spectral"]
            rate = (trainer.step - first) / (time.monotonic() - began)
            bar.advance(1, f"spectral {smooth:.3f}, {rate:.2f} steps/s")
            if time.monotonic() - saved > save_seconds:
                trainer.save(folder / STATE, corpus)
                saved = time.monotonic()
    trainer.save(folder / STATE, corpus)


def export_run(run_folder: Path, out: Path) -> None:
    """The run's codec as a checkpoint in the published format."""
    path = run_folder / STATE
    if not path.exists():
        raise CodecRunError("codec_run_no_state", f"{path}: no such file; the run has not saved its state yet")
    state = torch.load(path, map_location="cpu", weights_only=True)
    export_codec(state["network"], run_folder / CONFIG, out)
    size_mb = (out / "model.safetensors").stat().st_size / 1e6
    print(f"{out}: step {state['step']}, {size_mb:.1f} MB", flush=True)


def parse_voices(text: str) -> dict[str, float]:
    """``"heart=1,joe=2"`` as weights by voice; CodecRunError for what is not of that form."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        voice, _, value = part.partition("=")
        try:
            weights[voice.strip()] = float(value)
        except ValueError:
            value = ""
        if not value or not voice.strip() or not 0 < weights[voice.strip()] < float("inf"):
            raise CodecRunError(
                "codec_run_voices", f"--voices: {part!r} is not of the form voice=weight with a weight above 0"
            )
    return weights


def _rounded(measured: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {voice: {name: round(value, 4) for name, value in values.items()} for voice, values in measured.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.train_codec", description="Train the audio codec.")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="where state and log go")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoint folder to write")
    parser.add_argument(
        "--corpus", type=Path, nargs="+", metavar="DIR", help="folders of training.corpus and training.raised"
    )
    parser.add_argument("--steps", type=int, help="length of the whole run, which shapes its schedule")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--codec", type=Path, default=CODEC, metavar="DIR", help="checkpoint to start from (default: the embedded one)"
    )
    start.add_argument("--from-config", type=Path, metavar="FILE", help="config.json to start from with fresh weights")
    parser.add_argument("--decoder-only", action="store_true", help="keep encoder and quantizer: codes stay valid")
    parser.add_argument(
        "--joining", nargs="+", default=[], metavar="VOICE", help="learn these voices; the codes of the others stay"
    )
    parser.add_argument(
        "--before",
        type=Path,
        metavar="DIR",
        help="the codec of the others' codes, if --codec is another",
    )
    parser.add_argument("--adversarial", action="store_true", help="train against discriminators too")
    parser.add_argument(
        "--discriminator-steps", type=int, default=500, help="steps that discriminators learn without a say"
    )
    parser.add_argument("--voices", metavar="VOICE=WEIGHT,...", help="how often each is drawn (default: all alike)")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--clips", type=int, default=8, help="clips a step")
    parser.add_argument("--frames", type=int, default=24, help="frames of a clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out-steps", type=int, default=200, help="steps from one measurement to the next")
    parser.add_argument("--save-minutes", type=float, default=3.0)
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="torch.compile (default: where there is a GPU)"
    )
    parser.add_argument("--export-only", action="store_true", help="write the run's checkpoint as it is now")
    return parser


if __name__ == "__main__":
    sys.exit(main())
