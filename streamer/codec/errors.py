"""Errors that a caller of the codec can meet; each carries a stable ``code``."""

from __future__ import annotations


class CodecInputError(ValueError):
    """Codes, a waveform or a slot that the codec can't take; the message says which part and why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class StreamPoolFull(RuntimeError):
    """Every slot of a :class:`~streamer.codec.StreamPool` is held."""

    code = "codec_pool_full"

    def __init__(self, capacity: int) -> None:
        super().__init__(f"all {capacity} codec streams are in use: close one, or make the pool larger")
