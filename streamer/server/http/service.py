"""The routes of the HTTP interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from streamer import __version__
from streamer.server.http.errors import answering
from streamer.server.http.openapi import openapi_document
from streamer.server.http.settings import HttpSettings, Served
from streamer.server.http.speech import SpeechEndpoint
from streamer.server.http.voices import VoiceEndpoints


class HttpService:
    """``/v1/audio/speech``, ``/v1/voices`` and ``/v1/openapi.json``.

    ``extra_paths`` go into the document. Authentication is up to who adds the routes. Raises
    :class:`~streamer.voices.store.StoreError` if the folder of uploaded voices can't be used; voices found there are
    added to ``state.speech.voices``.
    """

    def __init__(self, state: Served, settings: HttpSettings, extra_paths: Mapping[str, Any] | None = None) -> None:
        self._refused = settings.hooks.refused
        self._speech = SpeechEndpoint(state, settings)
        self._voices = VoiceEndpoints(state, settings)
        self.document = msgspec.json.encode(openapi_document(__version__, extra_paths))

    @property
    def n_speaking(self) -> int:
        """Speech requests under way."""
        return self._speech.running

    async def wait_idle(self) -> None:
        """Return when no speech request is under way: what a server that drains waits for."""
        await self._speech.at_rest.wait()

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        routes = [
            web.post("/v1/audio/speech", self._speech.handle),
            web.get("/v1/voices", self._voices.list),
            web.post("/v1/voices", self._voices.create),
            web.get("/v1/voices/{id}", self._voices.get),
            web.delete("/v1/voices/{id}", self._voices.remove),
            web.get("/v1/openapi.json", self._openapi),
        ]
        return [web.route(r.method, r.path, answering(r.handler, self._refused), **r.kwargs) for r in routes]

    async def _openapi(self, _: web.Request) -> web.Response:
        return web.Response(body=self.document, content_type="application/json")


def http_routes(state: Served, settings: HttpSettings) -> list[web.RouteDef]:
    """The routes of a :class:`HttpService`, for who needs nothing else of it."""
    return HttpService(state, settings).routes()
