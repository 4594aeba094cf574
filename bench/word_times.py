"""``python -m bench.word_times``: how far off are the borders that the alignment head shows, and what do words cost?

The embedded model speaks the held-out dialogues turn by turn, so that their borders are known. The same frames then
stand after a prompt with the whole script, as in one pass, and the borders found in what the head looks at, frame by
frame, are held against the true ones. For the cost one turn is spoken with and without its words, again and again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from statistics import median

import numpy as np
import torch

from bench.in_process import Reader
from bench.machine import describe_machine
from streamer.dialogue import FRAME_MS, Dialogue, DialogueSettings
from streamer.engine import Engine, GenerationRequest
from streamer.evaluation.dialogues import HELD_OUT, CastDialogue, read_dialogues
from streamer.models import BLOCK_ROWS
from streamer.models.alignment import AlignmentReader
from streamer.speech import Speech, SpeechConfig
from streamer.text import Turn, build_prompt, format_script
from streamer.text.positions import script_rows
from streamer.word_times import TurnBorders, turn_begins


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one JSON document: the machine, the errors in ms, and the speed with words by that without."""
    options = _parser().parse_args(arguments)
    speech = Speech.load(SpeechConfig())
    speech.engine.start()
    try:
        voices = [voice.id for voice in speech.voices.list()]
        errors_ms: list[int] = []
        for dialogue in read_dialogues(HELD_OUT, voices, options.dialogues):
            turns = speak_turns(speech, dialogue)
            found = read_borders(speech, dialogue, np.concatenate(turns))
            true = list(accumulate(len(codes) for codes in turns))[:-1]
            errors_ms += [abs(f - t) * FRAME_MS for f, t in zip(found, true, strict=True)]
        ratio = cost_ratio(speech, options.repeats)
    finally:
        speech.close()
    report = {
        "machine": describe_machine(),
        "borders": len(errors_ms),
        "mean_ms": round(float(np.mean(errors_ms)), 1),
        "median_ms": float(np.median(errors_ms)),
        "p90_ms": float(np.percentile(errors_ms, 90)),
        "speed_with_words": round(ratio, 4),
    }
    print(json.dumps(report, indent=1))
    return 0


def speak_turns(speech: Speech, dialogue: CastDialogue) -> list[np.ndarray]:
    """The codes (frames, n_vq) of each turn, each a continuation of those before it."""
    history = _history(speech, dialogue)
    reader = _reader(speech)
    spoken_turns = []
    try:
        for index, turn in enumerate(dialogue.turns):
            spoken = history.begin(str(index), index, [turn])
            reader.submit(history.request(spoken), time.perf_counter())
            spoken.frames.extend(reader.wait().codes)
            spoken.sent_ms = len(spoken.frames) * FRAME_MS
            history.end(spoken, whole=True)
            spoken_turns.append(np.stack(spoken.frames))
    finally:
        reader.close()
    return spoken_turns


def read_borders(speech: Speech, dialogue: CastDialogue, codes: np.ndarray) -> list[int]:
    """The first frame of every turn but the first, as found in codes (frames, n_vq) spoken in one pass."""
    script = format_script(dialogue.turns)
    borders = TurnBorders(turn_begins(script))
    found = [begin for char in attended_characters(speech, dialogue, script, codes) for begin in borders.push(char)]
    return [begin.frame for begin in (*found, *borders.finish(len(codes)))]


def attended_characters(speech: Speech, dialogue: CastDialogue, script: str, codes: np.ndarray) -> Iterable[int]:
    """The character of the script that the heads look at as each frame begins."""
    model = speech.model
    c = model.config
    references = [
        speech.voices.get(dialogue.voices[n]).reference(c.n_vq) if n in dialogue.voices else None for n in range(1, 6)
    ]
    rows = build_prompt(speech.tokenizer, c, script, references=references[: max(dialogue.voices)], prompt_audio=codes)
    text = script_rows(speech.tokenizer, c, rows, script)
    n_blocks = -(-len(rows) // BLOCK_ROWS)
    pool, queries = model.new_pool(n_blocks), model.new_queries(len(rows))
    model.prefill(rows, pool, torch.arange(n_blocks), 0, queries)
    reader = AlignmentReader(c.language, c.alignment_heads, pool, 1, model.dtype)
    reader.follow(0, range(n_blocks), (text.start, text.end))
    # A frame is drawn from the row before it: the first one from the row of audio_start.
    for query in queries[len(rows) - len(codes) - 1 : -1]:
        yield text.character(text.start + int(reader.read([0], query[None])))


def cost_ratio(speech: Speech, repeats: int) -> float:
    """Rows/s of one turn with its words by rows/s without: the median of ``repeats`` pairs of turns.

    Seconds are of processor time, which others on the machine don't lengthen.
    """
    turn = Turn(1, "We walked along the river until the sun went down, and then we took the last bus home together.")
    voice = speech.voices.list()[0].id
    dialogue = CastDialogue(0, "", (turn,), {1: voice})
    history = _history(speech, dialogue)
    plain = history.request(history.begin("0", 0, [turn]))
    text = script_rows(speech.tokenizer, speech.model.config, plain.prompt_rows, format_script([turn]))
    with_words = replace(plain, text_rows=(text.start, text.end))
    reader = _reader(speech)

    def rows_per_s(request: GenerationRequest) -> float:
        began_s = time.process_time()
        reader.submit(request, time.perf_counter())
        n_rows = len(reader.wait().rows)
        return n_rows / (time.process_time() - began_s)

    try:
        rows_per_s(plain)
        return median(rows_per_s(with_words) / rows_per_s(plain) for _ in range(repeats))
    finally:
        reader.close()


def _reader(speech: Speech) -> Reader:
    assert isinstance(speech.engine, Engine)
    return Reader(speech.engine)


def _history(speech: Speech, dialogue: CastDialogue) -> Dialogue:
    voices = {number: speech.voices.get(voice) for number, voice in dialogue.voices.items()}
    sampling, seconds = speech.model.default_sampling, speech.history_seconds
    settings = DialogueSettings(voices, sampling, seed=dialogue.number, history_seconds=seconds)
    return Dialogue(speech.model.config, speech.tokenizer, settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.word_times", description="Measure word and turn times.")
    parser.add_argument("--dialogues", type=int, help="how many of the held-out ones (default: all)")
    parser.add_argument("--repeats", type=int, default=15, help="pairs of turns for the cost")
    return parser


if __name__ == "__main__":
    sys.exit(main())
