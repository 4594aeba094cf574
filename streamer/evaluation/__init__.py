"""How well a model speaks: dialogues through a real server, judged turn by turn; ``docs/evaluation.md`` says how."""

from __future__ import annotations

from streamer.evaluation.dialogues import (
    HELD_OUT,
    SHIPPED,
    CastDialogue,
    cast_voices,
    held_out_sentences,
    read_dialogues,
)
from streamer.evaluation.endings import Ending, ending_of
from streamer.evaluation.errors import EvaluationError
from streamer.evaluation.judges import Judges, load_judges, missing_judge
from streamer.evaluation.judging import JudgedTurn, judge_turns
from streamer.evaluation.pitch import final_pitch_semitones
from streamer.evaluation.recordings import RecordingLine, read_recordings, through_codec
from streamer.evaluation.report import Gates, Summary, report_of, summaries, table_of
from streamer.evaluation.speaking import SpeakingSettings, SpokenTurn, speak_dialogues

__all__ = [
    "HELD_OUT",
    "SHIPPED",
    "CastDialogue",
    "Ending",
    "EvaluationError",
    "Gates",
    "JudgedTurn",
    "Judges",
    "RecordingLine",
    "SpeakingSettings",
    "SpokenTurn",
    "Summary",
    "cast_voices",
    "ending_of",
    "final_pitch_semitones",
    "held_out_sentences",
    "judge_turns",
    "load_judges",
    "missing_judge",
    "read_dialogues",
    "read_recordings",
    "report_of",
    "speak_dialogues",
    "summaries",
    "table_of",
    "through_codec",
]
