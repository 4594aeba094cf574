"""Decoding a recording that a stranger sent, in a child process with little memory, little time and no files.

``python -m streamer.audio.decode_child`` is the child: the recording comes in by its standard input, float32 samples
go out by its standard output. A decoder that a hostile file brings down takes nothing but that process with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from streamer.audio.files import SAMPLE_RATE, AudioFileError, Samples, load_audio

# The first byte of what the child says, before the samples or before a JSON object.
_SAMPLES, _ERROR = b"S", b"E"
_CODES = ("unreadable", "empty", "too_short", "too_long", "not_finite", "silent")
_MAX_ERROR_BYTES = 4096
_MAX_MESSAGE_CHARS = 300
# One thread each: the libraries would reserve address space for every core.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """How long a recording may be, and what decoding it may take.

    ``memory_bytes`` is the child's whole address space, ``cpu_s`` its time on a processor, ``wall_s`` its time by the
    clock from start to end.
    """

    max_seconds: float
    min_seconds: float = 0.0
    memory_bytes: int = 2**30
    cpu_s: int = 10
    wall_s: float = 20.0


async def decode_apart(recording: bytes, limits: DecodeLimits) -> Samples:
    """What :func:`streamer.audio.load_audio` gives, made by a child process: float32 (samples,) mono at 24 kHz.

    Raises AudioFileError, ``unreadable`` too for a recording that takes more memory or time than it may.
    """
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, json.dumps(asdict(limits))),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        env=_environment(),
        # Python looks for modules where it stands, and here no stranger can have put one.
        cwd=Path(sys.executable).anchor,
    )
    try:
        answer = await asyncio.wait_for(_converse(child, recording, limits), limits.wall_s)
    except asyncio.TimeoutError:
        answer = b""
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        await child.wait()
    return _read_answer(answer, limits)


def confine(limits: DecodeLimits) -> None:
    """Give up, for the rest of this process' life, what decoding doesn't need."""
    # Not on every system, and only the child needs it.
    import resource

    bounds = {
        resource.RLIMIT_AS: limits.memory_bytes,
        resource.RLIMIT_CPU: limits.cpu_s,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        # No file can be opened any more; the pipes are open already.
        resource.RLIMIT_NOFILE: 0,
    }
    for kind, bound in bounds.items():
        resource.setrlimit(kind, (bound, bound))


def main() -> int:
    """The child: limits as JSON in the first argument."""
    limits = DecodeLimits(**json.loads(sys.argv[1]))
    confine(limits)
    try:
        samples = load_audio(sys.stdin.buffer.read(), limits.max_seconds, limits.min_seconds)
        answer = _SAMPLES + samples.astype("<f4").tobytes()
    except AudioFileError as error:
        answer = _ERROR + json.dumps({"code": error.code, "message": error.message[:_MAX_MESSAGE_CHARS]}).encode()
    except MemoryError:
        return 1
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    return 0


def _environment() -> dict[str, str]:
    """Where modules and libraries are found, and nothing that could be secret."""
    environment = {**_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(p for p in sys.path if Path(p).is_absolute())}
    if "LD_LIBRARY_PATH" in os.environ:
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return environment


async def _converse(child: Process, recording: bytes, limits: DecodeLimits) -> bytes:
    """What the child answered; empty if it died or said more than a child in order can."""
    assert child.stdin is not None
    assert child.stdout is not None
    most_bytes = _MAX_ERROR_BYTES + 4 * int((limits.max_seconds + 1) * SAMPLE_RATE)
    # A child that died reads no more, and what it said before says why.
    with contextlib.suppress(ConnectionError):
        child.stdin.write(recording)
        await child.stdin.drain()
    child.stdin.close()
    answer = bytearray()
    while piece := await child.stdout.read(2**16):
        answer += piece
        if len(answer) > most_bytes:
            return b""
    return bytes(answer) if await child.wait() == 0 else b""


def _read_answer(answer: bytes, limits: DecodeLimits) -> Samples:
    """Judge it as a stranger's: whoever takes over the child writes what he likes."""
    kind, content = answer[:1], answer[1:]
    if kind == _SAMPLES and len(content) % 4 == 0:
        samples = np.frombuffer(content, "<f4").astype(np.float32)
        if np.isfinite(samples).all() and limits.min_seconds <= len(samples) / SAMPLE_RATE <= limits.max_seconds + 1:
            return samples
    if kind == _ERROR and (error := _read_error(content)) is not None:
        raise error
    raise AudioFileError("unreadable", "audio: could not be decoded within the time and memory that it may take")


def _read_error(content: bytes) -> AudioFileError | None:
    try:
        error = json.loads(content)
        code, message = error["code"], error["message"]
    except (ValueError, TypeError, KeyError):
        return None
    return AudioFileError(code, str(message)[:_MAX_MESSAGE_CHARS]) if code in _CODES else None


if __name__ == "__main__":
    sys.exit(main())
