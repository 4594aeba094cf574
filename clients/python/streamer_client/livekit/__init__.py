"""Text-to-speech for LiveKit Agents; needs the extra `livekit`.

    session = AgentSession(stt=..., llm=..., tts=TTS("ws://127.0.0.1:8000", voice="heart"))

Speech begins with the first speakable piece of the LLM's answer; an interruption stops the server at once.
"""

from __future__ import annotations

try:
    import livekit.agents  # noqa: F401
except ImportError as error:
    raise ImportError(
        "streamer_client.livekit needs livekit-agents: pip install 'dialogue-streamer[livekit]'"
    ) from error

from streamer_client.livekit.streams import ChunkedStream, SynthesizeStream
from streamer_client.livekit.tts import TTS

__all__ = ["TTS", "ChunkedStream", "SynthesizeStream"]
