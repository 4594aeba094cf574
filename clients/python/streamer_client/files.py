"""Audio events to a file: Ogg Opus with the packets as received, or 16-bit WAV."""

from __future__ import annotations

import wave
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from streamer_client.audio import OpusDecoder, float_to_pcm
from streamer_client.errors import ClientError
from streamer_client.events import Audio
from streamer_protocol import AudioFormat, AudioKind, OggOpusWriter

SUFFIXES = (".opus", ".ogg", ".wav")


class AudioFileWriter:
    """Writes the `Audio` events of one dialogue, in order, to `path`; its suffix chooses the kind of file.

    `.opus` and `.ogg` take Opus packets and store them untouched. `.wav` takes every format; Opus is decoded.
    A file whose writer was never closed still plays, up to the last second or so. Raises ClientError if the
    suffix does not fit, OpusUnavailable if decoding is needed but libopus is missing, OSError as `open` does.
    """

    def __init__(self, path: str | Path, audio: AudioFormat) -> None:
        self._sink = _sink(Path(path), audio)

    def write(self, event: Audio) -> None:
        """Append one audio event."""
        self._sink.write(event)

    def close(self) -> None:
        """Finish the file; safe to call twice."""
        self._sink.close()

    def __enter__(self) -> AudioFileWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Sink(Protocol):
    def write(self, event: Audio) -> None: ...
    def close(self) -> None: ...


def _sink(path: Path, audio: AudioFormat) -> _Sink:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        found = suffix or "without a suffix"
        raise ClientError(f"{path.name}: cannot write {found}; use one of {', '.join(SUFFIXES)}")
    if suffix == ".wav":
        decoder = OpusDecoder(audio.sample_rate) if audio.format == "opus" else None
        return _WavSink(path.open("wb"), audio.sample_rate, decoder)
    if audio.format != "opus":
        raise ClientError(f"{path.name}: the dialogue's audio is {audio.format}; write .wav or ask for opus")
    return _OggSink(path.open("wb"), audio.sample_rate)


class _OggSink:
    def __init__(self, file: BinaryIO, sample_rate: int) -> None:
        self._file = file
        self._ogg = OggOpusWriter(sample_rate)

    def write(self, event: Audio) -> None:
        pages = self._ogg.packet(event.payload, round(event.duration_ms * 48), flush=event.last)
        if pages:
            self._file.write(pages)
            self._file.flush()

    def close(self) -> None:
        if not self._file.closed:
            self._file.write(self._ogg.close())
            self._file.close()


class _WavSink:
    def __init__(self, file: BinaryIO, sample_rate: int, decoder: OpusDecoder | None) -> None:
        self._file = file
        self._decoder = decoder
        self._wave = wave.Wave_write(file)
        self._wave.setnchannels(1)
        self._wave.setsampwidth(2)
        self._wave.setframerate(sample_rate)

    def write(self, event: Audio) -> None:
        # writeframes, not writeframesraw: it corrects the lengths in the header each time.
        self._wave.writeframes(self._pcm(event))
        self._file.flush()

    def _pcm(self, event: Audio) -> bytes:
        if event.kind is AudioKind.PCM_S16LE:
            return event.payload
        if self._decoder is not None and event.decoded is None:
            return float_to_pcm(self._decoder.decode(event.payload))
        return float_to_pcm(event.pcm)

    def close(self) -> None:
        if not self._file.closed:
            self._wave.close()
            self._file.close()
