"""The HTTP interface alone, around the small random model, on a free port of loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from serving import AT_REST, WAIT_S, new_speech

from streamer.performance import TurnReport
from streamer.server.http import HttpHooks, HttpService, HttpSettings
from streamer.speech import Speech
from streamer_protocol import Limits

VOICES = Path(__file__).parents[1] / "data" / "voices"
LIMITS = Limits(
    max_text_chars=300,
    max_queued_turns=4,
    max_turn_audio_ms=2400,
    max_message_bytes=4096,
    max_upload_bytes=400_000,
    max_upload_ms=5000,
    max_speakers=3,
)


@dataclass
class HttpServer:
    """A running server: its speech, its service, an HTTP client, and what its hooks were told."""

    speech: Speech
    draining: bool = False
    port: int = 0
    service: HttpService = field(init=False)
    client: aiohttp.ClientSession = field(init=False)
    settings: HttpSettings = field(init=False)
    reports: list[TurnReport] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    sent_bytes: int = 0
    sessions: int = 0
    max_sessions: int = 100

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def hooks(self) -> HttpHooks:
        return HttpHooks(
            caller=lambda _: "the-key",
            admit=lambda _: self._admit(),
            dismiss=lambda _: self._dismiss(),
            completed=lambda _, report: self.reports.append(report),
            refused=self.refused.append,
            sent=self._add_sent,
        )

    def _admit(self) -> bool:
        if self.sessions >= self.max_sessions:
            return False
        self.sessions += 1
        return True

    def _dismiss(self) -> None:
        self.sessions -= 1

    def _add_sent(self, n_bytes: int) -> None:
        self.sent_bytes += n_bytes

    async def error(self, method: str, path: str, status: int, **request: Any) -> dict[str, Any]:
        """The error that this request is answered with."""
        async with self.client.request(method, self.url + path, **request) as answer:
            assert answer.status == status, await answer.text()
            assert answer.content_type == "application/json"
            body: dict[str, Any] = await answer.json()
        assert body.keys() == {"error"}
        assert body["error"].keys() == {"message", "type", "param", "code"}
        error: dict[str, Any] = body["error"]
        return error


@contextlib.asynccontextmanager
async def http_running(
    settings: HttpSettings | None = None, speech: Speech | None = None, **sizes: Any
) -> AsyncIterator[HttpServer]:
    """Serve; on exit nothing may be held any more."""
    server = HttpServer(await asyncio.to_thread(lambda: new_speech(**sizes)) if speech is None else speech)
    server.settings = replace(settings or HttpSettings(limits=LIMITS), hooks=server.hooks())
    runner: web.AppRunner | None = None
    try:
        server.service = HttpService(server, server.settings)
        app = web.Application()
        app.add_routes(server.service.routes())
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.port = runner.addresses[0][1]
        async with aiohttp.ClientSession() as server.client:
            yield server
        await assert_given_back(server)
    finally:
        if runner is not None:
            await runner.cleanup()
        await asyncio.to_thread(server.speech.close)


async def becomes(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""

    async def look() -> None:
        while not condition():
            await asyncio.to_thread(lambda: None)

    await asyncio.wait_for(look(), WAIT_S)


async def assert_given_back(server: HttpServer) -> None:
    """No request runs, and no slot, block, codec stream or encoder is held."""
    await asyncio.wait_for(server.service.wait_idle(), WAIT_S)
    engine = server.speech.engine
    assert await asyncio.to_thread(engine.wait_idle, WAIT_S)
    assert engine.holdings() == AT_REST
    assert not server.speech.encoders
    assert (server.service.n_speaking, server.sessions) == (0, 0)
