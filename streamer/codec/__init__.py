"""The streaming audio codec: waveform to codes and back, exact in chunks of any length and in batches."""

from __future__ import annotations

from streamer.codec.audio_codec import AudioCodec, DecodeStream
from streamer.codec.config import CodecConfig
from streamer.codec.errors import CodecInputError, StreamPoolFull
from streamer.codec.pool import StreamPool

__all__ = ["AudioCodec", "CodecConfig", "CodecInputError", "DecodeStream", "StreamPool", "StreamPoolFull"]
