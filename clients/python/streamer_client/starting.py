"""The first message of a dialogue, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from streamer_protocol import AudioFormat, Mode, Sampling, SessionStart, Speaker
from streamer_protocol.parsing import encode_client


def session_start(
    name: str,
    voices: Mapping[str, str] | None,
    audio: AudioFormat | None,
    mode: Mode,
    language: str | None,
    words: bool,
    seed: int | None,
    sampling: Sampling | None,
) -> SessionStart:
    """What `connect` was asked for. Raises LocalProtocolError for an argument out of range."""
    start = SessionStart(
        context=name,
        voices=cast("dict[Speaker, str]", dict(voices or {})),  # the names are checked below
        audio=audio or AudioFormat(),
        mode=mode,
        language=language,
        words=words,
        seed=seed,
        sampling=sampling or Sampling(),
    )
    encode_client(start)
    return start
