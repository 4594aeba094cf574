"""HTTP beside the socket: OpenAI's speech endpoint, voices, and the document that describes them."""

from streamer.server.http.service import HttpService, http_routes
from streamer.server.http.settings import HttpHooks, HttpSettings

__all__ = ["HttpHooks", "HttpService", "HttpSettings", "http_routes"]
