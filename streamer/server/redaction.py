"""What must not get into logs: keys, tokens, credentials."""

from __future__ import annotations

import re

_HIDDEN = "[redacted]"
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # Authorization: Basic dXNlcjpwYXNz, whatever the scheme, to the end of the value.
    (re.compile(r"(?i)(authorization[\"']?[ \t]*[:=,][ \t]*(?:b(?=[\"']))?[\"']?)[^\"'\r\n]+"), rf"\1{_HIDDEN}"),
    (re.compile(r"(?i)(bearer(?:\s|%20)+)[^\s\"',;&]+"), rf"\1{_HIDDEN}"),
    # token=…, resume_token=…, "token": "…", token%3D…
    (re.compile(r"(?i)(token[\"']?\s*(?:=|:|%3D)\s*(?:b(?=[\"']))?[\"']?)[^\s\"',;&}]+"), rf"\1{_HIDDEN}"),
    # An API key, or a piece of one; a word such as seconds_of_audio is none.
    (re.compile(r"(?<![a-z])ds_[A-Za-z0-9_-]{8,}|ds_[A-Za-z0-9_-]{43}"), f"ds_{_HIDDEN}"),
    # A signed token that stands alone: without its signature of 32 bytes it is worth nothing.
    (re.compile(r"(?<=[A-Za-z0-9_-]{8})\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"), f".{_HIDDEN}"),
)


def redact(text: str) -> str:
    """``text`` without bearer values, API keys, ``token=`` values and signed tokens; rather too much than too little.

    Lines of a log go through it last, when they are whole. Time is linear in the length.
    """
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
