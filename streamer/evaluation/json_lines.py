"""Files with a JSON object on each line, and errors that name the line and the field."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from streamer.evaluation.errors import EvaluationError

Line = TypeVar("Line", bound=msgspec.Struct)


def read_json_lines(path: Path, kind: type[Line]) -> list[tuple[str, Line]]:
    """``("file, line 3", object)`` for every line that isn't blank.

    Raises EvaluationError ``unreadable_file`` for a file that can't be read or is empty, ``bad_line`` for a line that
    isn't a ``kind``.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise EvaluationError("unreadable_file", f"{path}: {reason}") from error
    decoder = msgspec.json.Decoder(kind)
    found: list[tuple[str, Line]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            found.append((where, decoder.decode(line)))
        except msgspec.DecodeError as error:
            known = ", ".join(kind.__struct_encode_fields__)
            raise EvaluationError("bad_line", f"{where}: {error}; a line is an object with {known}") from error
    if not found:
        raise EvaluationError("unreadable_file", f"{path}: no lines in it")
    return found
