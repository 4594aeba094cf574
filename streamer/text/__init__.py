"""Dialogue text: scripts, normalisation, prompt rows."""

from __future__ import annotations

from streamer.text.delay_pattern import delay_codes, undelay_codes
from streamer.text.normalize import normalize_text
from streamer.text.prompt import PromptConfig, build_prompt
from streamer.text.script import (
    MAX_SPEAKERS,
    ScriptError,
    Turn,
    format_script,
    has_tag,
    is_speakable,
    merge_neighbours,
    parse_script,
)

__all__ = [
    "MAX_SPEAKERS",
    "PromptConfig",
    "ScriptError",
    "Turn",
    "build_prompt",
    "delay_codes",
    "format_script",
    "has_tag",
    "is_speakable",
    "merge_neighbours",
    "normalize_text",
    "parse_script",
    "undelay_codes",
]
