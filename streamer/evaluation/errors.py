"""What stops an evaluation."""

from __future__ import annotations


class EvaluationError(Exception):
    """An evaluation that can't be done; the message is one line, ``code`` is stable.

    Codes: ``unreadable_file``, ``bad_line`` (names the line and the field), ``unknown_voice``, ``bad_recording``,
    ``judge_missing``, ``turn_failed``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
