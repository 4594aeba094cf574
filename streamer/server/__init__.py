"""The network side: aiohttp around the dialogue engine."""

from streamer.server.app import DialogueServer, serve
from streamer.server.config import ServerConfig

__all__ = ["DialogueServer", "ServerConfig", "serve"]
