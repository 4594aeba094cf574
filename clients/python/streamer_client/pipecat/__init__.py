"""Pipecat: the dialogue streamer as the text-to-speech service of an agent. Needs the extra `pipecat`.

tts = DialogueTTSService(url="ws://127.0.0.1:8000", settings=DialogueTTSService.Settings(voice="heart"))
"""

try:
    import pipecat  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(
        "streamer_client.pipecat needs Pipecat: pip install 'dialogue-streamer[pipecat]' (Python 3.11 or later)"
    ) from error

from streamer_client.pipecat.service import DialogueTTSService
from streamer_client.pipecat.settings import DialogueTTSSettings

__all__ = ["DialogueTTSService", "DialogueTTSSettings"]
