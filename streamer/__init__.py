"""Real-time spoken dialogue: a script goes in as text, multi-speaker speech comes out while it is made.

The names below are the public Python API. They are resolved on first use, so that ``import streamer``
(and with it the command line's ``--help``) does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamer.codec import AudioCodec as AudioCodec
    from streamer.codec import DecodeStream as DecodeStream
    from streamer.models import DelayModel as DelayModel
    from streamer.models import SamplingParams as SamplingParams
    from streamer.text import build_prompt as build_prompt
    from streamer.text import normalize_text as normalize_text
    from streamer.text import parse_script as parse_script

__version__ = "0.1.0"

_HOME = {
    "AudioCodec": "streamer.codec",
    "DecodeStream": "streamer.codec",
    "DelayModel": "streamer.models",
    "SamplingParams": "streamer.models",
    "build_prompt": "streamer.text",
    "normalize_text": "streamer.text",
    "parse_script": "streamer.text",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'streamer' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
