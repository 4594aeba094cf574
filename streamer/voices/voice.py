"""A voice: reference codes, what they say, and where they come from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from streamer.audio import load_audio, normalize_loudness
from streamer.checkpoint import CheckpointError

MIN_SECONDS, MAX_SECONDS = 1.0, 30.0
_ID = re.compile(r"[a-z0-9_-]{1,64}")


class VoiceError(CheckpointError):
    """A voice that can't be used. ``code`` is ``bad_voice_id``, ``bad_voice_file`` or ``bad_voice_codes``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class CodecShape(Protocol):
    """What a voice needs to know of a codec's config."""

    @property
    def n_codebooks(self) -> int: ...
    @property
    def codebook_size(self) -> int: ...
    @property
    def frame_samples(self) -> int: ...


class Codec(Protocol):
    """What turns a recording into codes: ``streamer.AudioCodec``."""

    @property
    def config(self) -> CodecShape: ...
    @property
    def fingerprint(self) -> str: ...
    def encode(self, waveform: npt.NDArray[np.float32]) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True, eq=False)
class Voice:
    """A speaker's reference. ``codes`` is (frames, codebooks) int64 on the CPU; ``transcript`` is its words.

    ``codec``: the fingerprint of the codec that made the codes; empty where that is not known.
    Raises VoiceError for an id that isn't ``[a-z0-9_-]{1,64}`` or codes of a wrong shape.
    """

    id: str
    codes: torch.Tensor = field(repr=False)
    transcript: str
    origin: str
    licence: str
    language: str = "en"
    description: str = ""
    codec: str = ""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise VoiceError("bad_voice_id", f"voice id {self.id[:80]!r}: use 1 to 64 of a-z, 0-9, _ and -")
        if self.codes.ndim != 2 or 0 in self.codes.shape or self.codes.dtype != torch.int64:
            found = f"{self.codes.dtype} {list(self.codes.shape)}"
            raise VoiceError(
                "bad_voice_codes", f"voice {self.id}: codes are {found}, expected int64 (frames, codebooks)"
            )

    @classmethod
    def from_audio(
        cls,
        id: str,
        path: str | Path | bytes,
        transcript: str,
        codec: Codec,
        *,
        origin: str = "",
        licence: str = "",
        language: str = "en",
        description: str = "",
    ) -> Voice:
        """A voice from a recording of 1 to 30 s, brought nearer to -20 dBFS as the models expect.

        Raises streamer.audio.AudioFileError for the recording and VoiceError for the id.
        """
        samples = normalize_loudness(load_audio(path, MAX_SECONDS, MIN_SECONDS))
        # A last frame that is not whole is filled with silence; the codec would make it meaningless codes.
        samples = np.pad(samples, (0, -len(samples) % codec.config.frame_samples))
        codes = codec.encode(samples).to("cpu", torch.int64)
        return cls(id, codes, transcript, origin, licence, language, description, codec.fingerprint)

    @classmethod
    def from_file(cls, path: Path) -> Voice:
        """Read ``<id>.json``; VoiceError names the file and the key that is wrong."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise VoiceError("bad_voice_file", f"{path}: not readable as JSON ({error})") from error
        return cls(id=path.stem, **_checked_fields(path, raw))

    def save(self, folder: Path) -> Path:
        """Write ``<id>.json``, one line for each frame, and return its path."""
        texts = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("id", "codes")}
        lines = ",\n".join(f"  {json.dumps(frame)}" for frame in self.codes.tolist())
        head = json.dumps(texts, ensure_ascii=False, indent=1).removesuffix("\n}")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.id}.json"
        path.write_text(f'{head},\n "codes": [\n{lines}\n ]\n}}\n', encoding="utf-8")
        return path

    def check(self, codec: Codec) -> None:
        """VoiceError unless the codes could be this codec's."""
        shape, codebooks, highest = codec.config, self.codes.shape[1], int(self.codes.max())
        if codebooks > shape.n_codebooks or highest >= shape.codebook_size or int(self.codes.min()) < 0:
            raise VoiceError(
                "bad_voice_codes",
                f"voice {self.id}: {codebooks} codebooks with codes up to {highest}; the codec has "
                f"{shape.n_codebooks} of {shape.codebook_size} entries",
            )
        # The shape alone would let through codes that are noise to a codec trained anew.
        if self.codec and codec.fingerprint and self.codec != codec.fingerprint:
            raise VoiceError(
                "bad_voice_codes",
                f"voice {self.id}: made with another codec ({self.codec[:32]!r}, this one is {codec.fingerprint!r}); "
                "make it anew from its recording",
            )

    def reference(self, n_vq: int) -> torch.Tensor:
        """The first ``n_vq`` codebooks, (frames, n_vq); VoiceError where there are fewer."""
        if self.codes.shape[1] < n_vq:
            raise VoiceError(
                "bad_voice_codes",
                f"voice {self.id}: made with {self.codes.shape[1]} codebooks, the model needs {n_vq}",
            )
        return self.codes[:, :n_vq]


def _checked_fields(path: Path, raw: Any) -> dict[str, Any]:
    texts = {f.name for f in fields(Voice)} - {"id", "codes"}
    if not isinstance(raw, Mapping) or set(raw) - texts - {"codes"}:
        extra = f" (unknown: {sorted(set(raw) - texts - {'codes'})})" if isinstance(raw, Mapping) else ""
        raise VoiceError("bad_voice_file", f"{path}: expected an object with codes, {', '.join(sorted(texts))}{extra}")
    for key in ("codes", "transcript", "origin", "licence"):
        if key not in raw:
            raise VoiceError("bad_voice_file", f"{path}: {key!r} is missing")
    for key in texts & raw.keys():
        if not isinstance(raw[key], str):
            raise VoiceError("bad_voice_file", f"{path}: {key!r} is not a string")
    return {**raw, "codes": _tensor(path, raw["codes"])}


def _tensor(path: Path, frames: Any) -> torch.Tensor:
    error = VoiceError("bad_voice_file", f"{path}: 'codes' is not a list of frames of equally many integers")
    if not isinstance(frames, list) or not all(isinstance(frame, list) for frame in frames):
        raise error
    if len({len(frame) for frame in frames}) != 1 or any(type(code) is not int for f in frames for code in f):
        raise error
    try:
        return torch.tensor(frames, dtype=torch.int64)
    except (OverflowError, RuntimeError, ValueError) as overflow:
        raise error from overflow
