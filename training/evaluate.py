"""``python -m training.evaluate``: the held-out dialogues, spoken by the real engine turn by turn, and judged.

Reports, for each voice and for all: word error rate (whisper-base), share of turns whose voice is nearest to its own
reference, cosine to that reference (Resemblyzer), share of turns that had to be stopped, and silence at both ends.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from streamer.dialogue import Dialogue, DialogueSettings
from streamer.engine import CodecStreamHandle, Engine, EngineEvent, Finished, FrameReady
from streamer.models import SamplingParams
from streamer.speech import Speech, SpeechConfig
from streamer.text import Turn, parse_script
from streamer.voices import Voice
from training.dialogues import HELD_OUT
from training.judges import Recogniser, Samples, SpeakerEncoder, plain_words, word_errors
from training.progress import progress_bar
from training.teachers import Teacher, load_teacher

_AT_ONCE = 8
_SILENCE = 0.01


@dataclass(frozen=True, slots=True)
class SpokenTurn:
    """What came out for one turn."""

    voice: str
    text: str
    samples: Samples
    stopped: bool


@dataclass(frozen=True, slots=True)
class JudgedTurn:
    """What the judges say of one turn."""

    voice: str
    text: str
    heard: str
    n_words: int
    n_errors: int
    right_voice: bool
    similarity: float
    stopped: bool
    seconds: float
    leading_seconds: float
    trailing_seconds: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Means over some turns; ``word_error_rate`` is errors by words."""

    turns: int
    word_error_rate: float
    speaker_accuracy: float
    similarity: float
    runaway_rate: float
    seconds: float
    leading_seconds: float
    trailing_seconds: float

    @classmethod
    def of(cls, turns: Sequence[JudgedTurn]) -> Summary:
        """Of at least one turn."""

        def mean(name: str) -> float:
            return float(np.mean([getattr(turn, name) for turn in turns]))

        return cls(
            turns=len(turns),
            word_error_rate=sum(t.n_errors for t in turns) / sum(t.n_words for t in turns),
            speaker_accuracy=mean("right_voice"),
            similarity=mean("similarity"),
            runaway_rate=mean("stopped"),
            seconds=mean("seconds"),
            leading_seconds=mean("leading_seconds"),
            trailing_seconds=mean("trailing_seconds"),
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Speak, judge, print the table and write the JSON file."""
    options = _parser().parse_args(arguments)
    speech = Speech.load(
        SpeechConfig(model=options.model, codec=options.codec, voices=tuple(options.voices), threads=options.threads)
    )
    changes = {
        "audio_temperature": options.temperature,
        "audio_top_k": options.top_k,
        "audio_top_p": options.top_p,
        "text_temperature": options.text_temperature,
    }
    sampling = replace(speech.model.default_sampling, **{k: v for k, v in changes.items() if v is not None})
    speech.engine.start()
    try:
        scripts = HELD_OUT[: options.dialogues]
        if options.upper_bound:
            spoken = recode_all(speech, scripts)
        else:
            spoken = speak_all(speech, scripts, sampling, options.seed, options.script)
    finally:
        speech.close()
    turns = judge_all(speech, spoken, Recogniser(options.whisper, options.threads))
    report = {
        "sampling": asdict(sampling),
        "seed": options.seed,
        "dialogues": len(scripts),
        "upper_bound": options.upper_bound,
        "summary": {name: asdict(summary) for name, summary in summaries(turns)},
        "turns": [asdict(turn) for turn in turns],
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print_table(summaries(turns))
    return 0


def speak_all(
    speech: Speech, scripts: Sequence[str], sampling: SamplingParams, seed: int, script_mode: bool = False
) -> list[SpokenTurn]:
    """Every dialogue, several at once; the voices of speakers 1 and 2 change from dialogue to dialogue.

    ``script_mode`` speaks a whole dialogue in one pass; its turns cannot be told apart, so each dialogue counts as
    one turn of its first voice.
    """

    def speak(number: int) -> list[SpokenTurn]:
        cast = cast_of(speech, number)
        settings = DialogueSettings(cast, sampling, seed + number, speech.history_seconds)
        dialogue = Dialogue(speech.model.config, speech.tokenizer, settings)
        turns = parse_script(scripts[number])
        jobs = [turns] if script_mode else [[turn] for turn in turns]
        stream = speech.engine.open_stream()
        try:
            return [
                speak_job(speech.engine, stream, dialogue, index, job, cast[job[0].speaker].id)
                for index, job in enumerate(jobs)
            ]
        finally:
            speech.engine.close_stream(stream)

    spoken: list[SpokenTurn] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool, progress_bar("speaking", len(scripts), "dialogues") as bar:
        for turns_of_one in pool.map(speak, range(len(scripts))):
            spoken.extend(turns_of_one)
            bar.advance(1)
    return spoken


def cast_of(speech: Speech, number: int) -> dict[int, Voice]:
    """Who speaks in a dialogue: each voice has its turn as speaker 1 and as speaker 2."""
    voices = list(speech.default_voices().values())[: len(speech.voices.list())]
    return {speaker: voices[(number + speaker - 1) % len(voices)] for speaker in (1, 2)}


def recode_all(speech: Speech, scripts: Sequence[str]) -> list[SpokenTurn]:
    """The same turns, read by the teachers and passed through the codec: what a perfect model would sound like."""
    teachers: dict[str, Teacher] = {}
    spoken: list[SpokenTurn] = []
    for number, script in enumerate(scripts):
        cast = cast_of(speech, number)
        for turn in parse_script(script):
            voice = cast[turn.speaker].id
            teacher = teachers.get(voice) or teachers.setdefault(voice, load_teacher(voice))
            codes = speech.codec.encode(teacher(turn.text, 0), pad_tail=True)
            spoken.append(SpokenTurn(voice, turn.text, speech.codec.decode(codes).cpu().numpy(), stopped=False))
    return spoken


def speak_job(
    engine: Engine, stream: CodecStreamHandle, dialogue: Dialogue, index: int, turns: Sequence[Turn], voice: str
) -> SpokenTurn:
    """The next turns of a dialogue in one generation, as the server makes them."""
    events: queue.SimpleQueue[EngineEvent] = queue.SimpleQueue()
    entry = dialogue.begin(str(index), index, turns)
    generation = engine.submit(dialogue.request(entry), stream, events.put)
    audio: list[np.ndarray] = []
    while not isinstance(event := events.get(), Finished):
        if isinstance(event, FrameReady):
            entry.frames.append(event.codes)
            audio.append(event.audio)
            engine.consumed(generation, 1)
    if event.reason == "error":
        raise RuntimeError(f"the engine failed: {event.error}")
    dialogue.end(entry, whole=True)
    samples = np.concatenate(audio) if audio else np.zeros(1, np.float32)
    return SpokenTurn(voice, " ".join(turn.text for turn in turns), samples, event.reason == "max_length")


def judge_all(speech: Speech, spoken: Sequence[SpokenTurn], recogniser: Recogniser) -> list[JudgedTurn]:
    """Judge every turn against its text and against the references, as the codec plays them."""
    rate = speech.codec.config.sampling_rate
    encoder = SpeakerEncoder()
    references = {
        voice.id: encoder.embed(speech.codec.decode(voice.codes).cpu().numpy(), rate) for voice in speech.voices.list()
    }
    judged: list[JudgedTurn] = []
    with progress_bar("judging", len(spoken), "turns") as bar:
        for turn in spoken:
            said, heard = plain_words(turn.text), recogniser.words(turn.samples, rate)
            own = encoder.embed(turn.samples, rate)
            likeness = {voice: float(own @ reference) for voice, reference in references.items()}
            leading, trailing = silence_seconds(turn.samples, rate)
            judged.append(
                JudgedTurn(
                    voice=turn.voice,
                    text=turn.text,
                    heard=" ".join(heard),
                    n_words=len(said),
                    n_errors=word_errors(said, heard),
                    right_voice=max(likeness, key=likeness.__getitem__) == turn.voice,
                    similarity=likeness[turn.voice],
                    stopped=turn.stopped,
                    seconds=len(turn.samples) / rate,
                    leading_seconds=leading,
                    trailing_seconds=trailing,
                )
            )
            bar.advance(1)
    return judged


def silence_seconds(samples: Samples, sample_rate: int) -> tuple[float, float]:
    """Silence before the first and after the last sample that is louder than -40 dBFS."""
    loud = np.flatnonzero(np.abs(samples) > _SILENCE)
    if len(loud) == 0:
        return len(samples) / sample_rate, 0.0
    return float(loud[0]) / sample_rate, float(len(samples) - 1 - loud[-1]) / sample_rate


def summaries(turns: Sequence[JudgedTurn]) -> Iterator[tuple[str, Summary]]:
    """All turns, then those of each voice."""
    yield "all", Summary.of(turns)
    for voice in sorted({turn.voice for turn in turns}):
        yield voice, Summary.of([turn for turn in turns if turn.voice == voice])


def print_table(rows: Iterator[tuple[str, Summary]]) -> None:
    """A line for each summary."""
    table = Table("voice", "turns", "WER", "right voice", "similarity", "stopped", "s/turn", "silence before", "after")
    for name, s in rows:
        shares = (s.word_error_rate, s.speaker_accuracy, s.similarity, s.runaway_rate, s.seconds)
        silences = (s.leading_seconds, s.trailing_seconds)
        table.add_row(name, str(s.turns), *(f"{value:.3f}" for value in (*shares, *silences)))
    Console(width=110).print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description="Speak the held-out dialogues.")
    add: Any = parser.add_argument
    add("--model", help="checkpoint folder (default: the embedded model)")
    add("--codec", help="codec folder (default: the one that goes with the model)")
    add("--voices", type=Path, action="append", default=[], help="folder of voices, needed with --model; repeatable")
    add("--whisper", type=Path, help="folder of a CTranslate2 whisper model (default: from its packages)")
    add("--dialogues", type=int, default=len(HELD_OUT), help="how many of the held-out dialogues")
    add("--script", action="store_true", help="whole dialogues in one pass rather than turn by turn")
    add("--upper-bound", action="store_true", help="judge the teachers through the codec instead of the model")
    add("--temperature", type=float, help="audio temperature (default: the checkpoint's)")
    add("--top-k", type=int, help="audio top-k (default: the checkpoint's)")
    add("--top-p", type=float, help="audio top-p (default: the checkpoint's)")
    add("--text-temperature", type=float, help="text temperature (default: the checkpoint's)")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=1)
    add("--json", type=Path, help="where to write every turn and the summary")
    return parser


if __name__ == "__main__":
    sys.exit(main())
