"""The voices a server knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from streamer.voices.voice import CodecShape, Voice, VoiceError


class UnknownVoice(KeyError):
    """A voice id that the registry doesn't have; the message lists the ids it has."""

    code = "unknown_voice"

    def __init__(self, voice_id: str, known: Iterable[str]) -> None:
        super().__init__(voice_id)
        self.voice_id = voice_id
        self.message = f"no voice {voice_id[:80]!r}; known voices: {', '.join(known) or 'none'}"

    def __str__(self) -> str:
        return self.message


class VoiceRegistry:
    """Voices by id. Reading is safe from any thread, as nothing changes after construction."""

    def __init__(self, voices: Iterable[Voice] = ()) -> None:
        self._voices: dict[str, Voice] = {}
        for voice in voices:
            if voice.id in self._voices:
                raise VoiceError("bad_voice_id", f"voice {voice.id}: two voices have this id")
            self._voices[voice.id] = voice

    @classmethod
    def from_folders(cls, folders: Iterable[str | Path], codec: CodecShape) -> VoiceRegistry:
        """The voices of all ``*.json`` files, by name within each folder, checked against the codec.

        Raises VoiceError for a folder that isn't there, a file that isn't a voice, and an id given twice.
        """
        voices: list[Voice] = []
        for folder in map(Path, folders):
            if not folder.is_dir():
                raise VoiceError("bad_voice_file", f"{folder}: no such folder of voices")
            for path in sorted(folder.glob("*.json")):
                voice = Voice.from_file(path)
                voice.check(codec)
                voices.append(voice)
        return cls(voices)

    def get(self, voice_id: str) -> Voice:
        """The voice of this id; UnknownVoice otherwise."""
        try:
            return self._voices[voice_id]
        except KeyError:
            raise UnknownVoice(voice_id, self._voices) from None

    def list(self) -> Sequence[Voice]:
        """All voices, in the order of their folders, by id within each."""
        return tuple(self._voices.values())
