"""``python -m bench.first_audio``: can a first frame be heard that is decoded before all its codebooks are known?

The first frame of a turn needs n_vq rows, but after m rows its first m codebooks are there, and the codec decodes any
prefix. Held-out dialogues are spoken; then each turn's first frame is decoded early from m codebooks, the rest as
usual, and compared with waiting: by mel distance, level, the seam at the frame's end and, with ``--whisper``, words.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.early_frame import (
    SAMPLE_RATE,
    EarlyMeasures,
    EarlyTurn,
    decode_early,
    measure_early,
    mel_distances_db,
    opus_copy,
    rows_until_gapless,
)
from bench.in_process import Heard, Reader, speak_together
from bench.machine import describe_machine
from streamer.codec import DecodeStream
from streamer.dialogue import Dialogue, DialogueSettings, Spoken
from streamer.engine import Engine, EngineConfig
from streamer.evaluation import HELD_OUT, CastDialogue, read_dialogues
from streamer.evaluation.words import plain_words, word_errors
from streamer.speech import Speech, SpeechConfig

SILENT_DBFS = -40.0
# MOSS-TTSD's codebooks, and a row on an H100 a little above the floor of 5.5 ms.
_LARGE_N_VQ, _LARGE_STEP_MS = 16, 6.0
_SEED = 0

Words = Callable[[np.ndarray, int], list[str]]


def speak_dialogues(speech: Speech, engine: Engine, dialogues: Sequence[CastDialogue]) -> list[EarlyTurn]:
    """Every turn of every dialogue, in order; all dialogues at once, each with a codec stream for its whole length."""
    talks = [_Talk(speech, engine, dialogue) for dialogue in dialogues]
    spoken: list[EarlyTurn] = []
    try:
        for number in range(max(len(dialogue.turns) for dialogue in dialogues)):
            speaking = [talk for talk in talks if number < len(talk.cast.turns)]
            for talk in speaking:
                talk.begin(number)
            spoken += [talk.end(number) for talk in speaking]
    finally:
        for talk in talks:
            talk.reader.close()
    return sorted(spoken, key=lambda turn: (turn.dialogue, turn.turn))


class _Talk:
    """One dialogue while it is spoken."""

    def __init__(self, speech: Speech, engine: Engine, cast: CastDialogue) -> None:
        self.cast = cast
        self.reader = Reader(engine)
        self._stream: DecodeStream = speech.codec.decode_stream()
        self._before = np.zeros(0, np.float32)
        voices = {speaker: speech.voices.get(voice) for speaker, voice in cast.voices.items()}
        settings = DialogueSettings(
            voices, speech.model.default_sampling, _SEED + cast.number, history_seconds=speech.history_seconds
        )
        self._dialogue = Dialogue(speech.model.config, speech.tokenizer, settings)
        self._spoken: Spoken | None = None

    def begin(self, number: int) -> None:
        self._spoken = self._dialogue.begin(str(number), number, [self.cast.turns[number]])
        self.reader.submit(self._dialogue.request(self._spoken), 0.0)

    def end(self, number: int) -> EarlyTurn:
        heard: Heard = self.reader.wait()
        assert self._spoken is not None
        self._spoken.frames += heard.codes
        self._spoken.sent_ms = 80 * len(heard.codes)
        self._dialogue.end(self._spoken, whole=True)
        full, first_frames = decode_early(self._stream, torch.from_numpy(np.stack(heard.codes)))
        before, self._before = self._before, full[-first_frames.shape[1] :]
        return EarlyTurn(self.cast.number, number, self.cast.turns[number].text, before, full, first_frames)


def step_ms(speech: Speech, engine: Engine, dialogue: CastDialogue, repetitions: int = 3) -> float:
    """Time between the frames of a turn that is spoken alone, a row with its frame: the tenth percentile.

    That is the step's own time; what lies above is other processes getting in the way.
    """
    voices = {speaker: speech.voices.get(voice) for speaker, voice in dialogue.voices.items()}
    gaps_s: list[float] = []
    for seed in range(repetitions):
        settings = DialogueSettings(voices, speech.model.default_sampling, seed)
        talk = Dialogue(speech.model.config, speech.tokenizer, settings)
        heard = speak_together(engine, [talk.request(talk.begin("0", 0, [dialogue.turns[0]]))])[0]
        gaps_s += np.diff(heard.frame_times_s).tolist()
    return float(np.percentile(gaps_s, 10)) * 1000


def summarise(measures: Sequence[EarlyMeasures], waiting: Sequence[EarlyMeasures]) -> dict[str, float | None]:
    """Figures of one number of codebooks over all turns; ``waiting`` are the same turns' with all codebooks."""
    audible = [(m, w) for m, w in zip(measures, waiting, strict=True) if w.level_dbfs >= SILENT_DBFS]
    ratios = [m.seam_ratio for m in measures if m.seam_ratio is not None]
    differences_dbfs = [m.difference_dbfs for m in measures]
    return {
        **_mel_figures([(m.mel_80_db, m.mel_160_db) for m in measures], [w.level_dbfs >= SILENT_DBFS for w in waiting]),
        "difference_dbfs": statistics.median(differences_dbfs),
        "difference_dbfs_p95": float(np.percentile(differences_dbfs, 95)),
        "level_off_db": statistics.median(abs(m.level_dbfs - w.level_dbfs) for m, w in audible) if audible else None,
        "silent_share": float(np.mean([m.level_dbfs < SILENT_DBFS for m in measures])),
        "turned_audible": sum(
            m.level_dbfs >= SILENT_DBFS > w.level_dbfs for m, w in zip(measures, waiting, strict=True)
        ),
        "seam_ratio": statistics.median(ratios) if ratios else None,
        "seam_clicks": sum(m.seam_click for m in measures),
    }


def yardstick(turns: Sequence[EarlyTurn], waiting: Sequence[EarlyMeasures]) -> dict[str, float | None]:
    """The mel distances that Opus at the server's bit rate makes in the same places."""
    distances = [mel_distances_db(turn, opus_copy(turn)) for turn in turns]
    return _mel_figures(distances, [w.level_dbfs >= SILENT_DBFS for w in waiting])


def _mel_figures(distances: Sequence[tuple[float, float]], audible: Sequence[bool]) -> dict[str, float | None]:
    """Medians and 95th percentiles over all turns, and the median where the first frame is no silence."""
    heard = [first for (first, _), loud in zip(distances, audible, strict=True) if loud]
    first, both = np.array(distances).T
    return {
        "mel_80_db": float(np.median(first)),
        "mel_80_db_p95": float(np.percentile(first, 95)),
        "mel_80_db_audible": statistics.median(heard) if heard else None,
        "mel_160_db": float(np.median(both)),
        "mel_160_db_p95": float(np.percentile(both, 95)),
    }


def savings(n_vq: int, measured_step_ms: float) -> dict[str, Any]:
    """What emitting after m rows saves: as measured here, and computed for 16 codebooks at 6 ms a row.

    ``saved_ms``: by m, all the same whether a gap follows. ``least_rows``: the fewest after which none does;
    ``saved_without_gap_ms``: what that saves.
    """
    return {
        name: {
            "n_vq": books,
            "step_ms": step,
            "saved_ms": {m: (books - m) * step for m in range(1, books + 1)},
            "least_rows": rows_until_gapless(books, step),
            "saved_without_gap_ms": (books - rows_until_gapless(books, step)) * step,
        }
        for name, books, step in (("here", n_vq, measured_step_ms), ("large", _LARGE_N_VQ, _LARGE_STEP_MS))
    }


def word_error_rates(turns: Sequence[EarlyTurn], books: Sequence[int], words: Words) -> dict[str, dict[str, float]]:
    """The word error rate over all turns, and in how many other words are heard than after waiting.

    By numbers of codebooks, of which all is waiting, and for the turns as Opus gives them: a recogniser hears other
    words after any small change, and that is how often it does after one that nobody minds.
    """
    n_vq = len(turns[0].first_frames)
    heard = {str(k): [words(turn.early(k), SAMPLE_RATE) for turn in turns] for k in sorted({*books, n_vq})}
    heard["opus"] = [words(opus_copy(turn), SAMPLE_RATE) for turn in turns]
    said = [plain_words(turn.text) for turn in turns]
    return {
        name: {
            "word_error_rate": sum(map(word_errors, said, found)) / sum(map(len, said)),
            "turns_heard_otherwise": sum(a != b for a, b in zip(found, heard[str(n_vq)], strict=True)),
        }
        for name, found in heard.items()
    }


def main(arguments: list[str] | None = None) -> int:
    """Speak, measure, print."""
    options = _parser().parse_args(arguments)
    config = SpeechConfig(options.model, options.codec, device=options.device, threads=options.threads)
    speech = Speech.load(config)
    machine = describe_machine(speech.model.device)
    sizes = EngineConfig(max_sessions=options.dialogues + 1, max_lead_s=None)
    engine = Engine(speech.model, speech.codec, sizes).start()
    try:
        cast = read_dialogues(HELD_OUT, [voice.id for voice in speech.voices.list()], options.dialogues)
        step = step_ms(speech, engine, cast[0])
        turns = speak_dialogues(speech, engine, cast)
    finally:
        engine.stop()
        speech.close()
    report = {"machine": machine, "model": speech.model.name, "dialogues": len(cast), **report_of(turns, step)}
    if options.whisper:
        from streamer.evaluation.judges import Recogniser

        words = Recogniser(options.whisper, options.threads).words
        # Where a difference can be heard at all, it is here.
        judged = sorted(turns, key=lambda turn: measure_early(turn)[0].difference_dbfs)[-options.judged_turns :]
        report |= {"judged_turns": len(judged), "words": word_error_rates(judged, options.judged_codebooks, words)}
    print(table_of(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def report_of(turns: Sequence[EarlyTurn], row_ms: float) -> dict[str, Any]:
    """All that needs no judge: figures by number of codebooks, Opus's as a yardstick, and what is saved."""
    by_turn = [measure_early(turn) for turn in turns]
    by_books = list(zip(*by_turn, strict=True))
    waiting = by_books[-1]
    return {
        "turns": len(turns),
        "summary": {k: summarise(measures, waiting) for k, measures in enumerate(by_books, start=1)},
        "opus": yardstick(turns, waiting),
        "saved": savings(len(by_books), row_ms),
        "measures": [[asdict(m) for m in measures] for measures in by_turn],
    }


def table_of(report: dict[str, Any]) -> str:
    """The report as text."""
    lines = [
        ", ".join(f"{key} {value}" for key, value in report["machine"].items() if value is not None),
        f"{report['turns']} turns of {report['dialogues']} dialogues; silent: below {SILENT_DBFS:g} dBFS",
    ]
    rows = {**{str(k): summary for k, summary in report["summary"].items()}, "opus": report["opus"]}
    columns = list(rows["1"])
    lines.append("codebooks " + " ".join(f"{name:>{max(len(name), 7)}}" for name in columns))
    for k, summary in rows.items():
        cells = (_cell(summary.get(name)).rjust(max(len(name), 7)) for name in columns)
        lines.append(f"{k:9} " + " ".join(cells))
    for name, found in report.get("words", {}).items():
        share, others = found["word_error_rate"], found["turns_heard_otherwise"]
        lines.append(f"{name:9} WER {share:.4f}, {others} of {report['judged_turns']} turns heard otherwise")
    for name, saved in report["saved"].items():
        each = ", ".join(f"{m}: {ms:.0f}" for m, ms in saved["saved_ms"].items())
        lines.append(
            f"{name}: n_vq {saved['n_vq']}, {saved['step_ms']:.2f} ms a row; saved ms by rows {each}; without a gap "
            f"from {saved['least_rows']} rows on, which saves {saved['saved_without_gap_ms']:.0f} ms"
        )
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.2f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.first_audio", description=__doc__)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the embedded model)")
    parser.add_argument("--codec", help="codec folder or hub id (default: the one that goes with the model)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="threads (default: 1)")
    parser.add_argument("--dialogues", type=int, default=40, help="how many of the held-out ones (default: 40, all)")
    parser.add_argument("--whisper", type=Path, metavar="DIR", help="CTranslate2 whisper model, for word errors")
    parser.add_argument("--judged-turns", type=int, default=40, help="so many, those that differ most (default: 40)")
    parser.add_argument("--judged-codebooks", type=int, nargs="+", default=[2, 4], metavar="M")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the report")
    return parser


if __name__ == "__main__":
    sys.exit(main())
