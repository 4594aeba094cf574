"""What may be changed while the pipeline runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from pipecat.services.settings import TTSSettings
from pipecat.utils.types import NOT_GIVEN, NotGiven, is_given


@dataclass
class DialogueTTSSettings(TTSSettings):
    """Settings of `DialogueTTSService`.

    `voices`: voice id for each speaker of the dialogue, "S1" to "S5"; who is left out gets the server's choice.
    `speaker`: who speaks the next turn; changing it keeps the dialogue. `voice`: Pipecat's name for the voice of
    `speaker`. `language`: BCP 47. New voices or another language begin a new dialogue, with no history, once nothing
    is left to speak. `model` is the server's affair and only shown.
    """

    voices: dict[str, str] | NotGiven = field(default_factory=lambda: NOT_GIVEN)
    speaker: str | NotGiven = field(default_factory=lambda: NOT_GIVEN)

    def apply_update(self, delta: TTSSettings) -> dict[str, Any]:
        """As Pipecat's, with `voice` and `voices` kept in step; returns the values before, of what changed."""
        changed = super().apply_update(cast("DialogueTTSSettings", delta))  # any TTSSettings will do
        voices = dict(self.voices) if is_given(self.voices) else {}
        speaker = self.speaker if is_given(self.speaker) else "S1"
        if is_given(delta.voice) and delta.voice is not None and voices.get(speaker) != delta.voice:
            changed.setdefault("voices", self.voices)
            voices[speaker] = delta.voice
        self.voices, self.speaker, self.voice = voices, speaker, voices.get(speaker)
        return changed
