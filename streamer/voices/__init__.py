"""Voices: id, reference codes, transcript."""

from __future__ import annotations

from streamer.voices.registry import UnknownVoice, VoiceRegistry
from streamer.voices.voice import Codec, CodecShape, Voice, VoiceError

__all__ = ["Codec", "CodecShape", "UnknownVoice", "Voice", "VoiceError", "VoiceRegistry"]
