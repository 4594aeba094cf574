"""Voices: id, reference codes, transcript."""

from __future__ import annotations

from streamer.voices.registry import UnknownVoice, VoiceRegistry
from streamer.voices.voice import CodecShape, Encoder, Voice, VoiceError

__all__ = ["CodecShape", "Encoder", "UnknownVoice", "Voice", "VoiceError", "VoiceRegistry"]
