"""The voices a server knows."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from streamer.voices.voice import Codec, Voice, VoiceError


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
    """Voices by id: the server's own, given at construction, and those added later. Safe from any thread."""

    def __init__(self, voices: Iterable[Voice] = ()) -> None:
        # Never changed, only replaced: who reads holds no lock.
        self._voices: dict[str, Voice] = {}
        for voice in voices:
            if voice.id in self._voices:
                raise VoiceError("bad_voice_id", f"voice {voice.id}: two voices have this id")
            self._voices[voice.id] = voice
        self._own = frozenset(self._voices)
        self._changing = threading.Lock()

    @classmethod
    def from_folders(cls, folders: Iterable[str | Path], codec: Codec) -> VoiceRegistry:
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
        voices = self._voices
        try:
            return voices[voice_id]
        except KeyError:
            raise UnknownVoice(voice_id, voices) from None

    def list(self, *, added: bool = False) -> Sequence[Voice]:
        """The server's own voices, in the order of their folders, by id within each.

        With ``added`` those that were added follow, oldest first; nobody is to speak with one unasked.
        """
        return tuple(voice for voice in self._voices.values() if added or voice.id in self._own)

    def removable(self, voice_id: str) -> bool:
        """Whether a voice of this id was added, and so can be removed."""
        return voice_id in self._voices and voice_id not in self._own

    def add(self, voice: Voice) -> None:
        """Take in one more voice; VoiceError ``voice_exists`` if its id is taken."""
        with self._changing:
            if voice.id in self._voices:
                raise VoiceError("voice_exists", f"voice {voice.id}: there is a voice of this id already")
            self._voices = {**self._voices, voice.id: voice}

    def remove(self, voice_id: str) -> None:
        """Forget an added voice; who speaks with it now goes on.

        Raises UnknownVoice, and VoiceError ``voice_not_removable`` for one of the server's own.
        """
        with self._changing:
            self.get(voice_id)
            if voice_id in self._own:
                raise VoiceError("voice_not_removable", f"voice {voice_id}: this voice came with the server and stays")
            self._voices = {key: voice for key, voice in self._voices.items() if key != voice_id}
