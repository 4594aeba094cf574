"""The web player in headless Chromium, in front of a server with the embedded model."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from serving import RecordingEngine

from streamer.engine import EngineConfig
from streamer.server import DialogueServer, ServerConfig
from streamer.speech import Speech, SpeechConfig

if TYPE_CHECKING:
    from playwright.async_api import Browser, Locator, Page, WebSocket

CHROMIUM = Path("/usr/bin/chromium")
WAIT_MS = 20_000
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
# Notes what a user sees and hears: which turns were lit when, and how loud it ever was.
_OBSERVER = """
window.seen = {lit: [], peak: 0};
new MutationObserver((changes) => {
  for (const {target} of changes) {
    if (target.matches?.(".turn") && target.dataset.state === "speaking") {
      const text = target.querySelector(".turn-text").textContent;
      if (window.seen.lit.at(-1) !== text) window.seen.lit.push(text);
    }
  }
}).observe(document, {subtree: true, childList: true, attributes: true, attributeFilter: ["data-state"]});
window.loudness = (nSamples) => {
  const {analyser} = dialoguePage.take.player;
  const samples = new Float32Array(analyser.fftSize);
  analyser.getFloatTimeDomainData(samples);
  return Math.max(...samples.subarray(-nSamples).map(Math.abs));
};
(function listen() {
  if (window.dialoguePage?.take) window.seen.peak = Math.max(window.seen.peak, window.loudness(2048));
  requestAnimationFrame(listen);
})();
"""


@dataclass
class WebPage:
    """The open page; ``complaints`` are console errors, uncaught ones and requests to other hosts.

    ``sent``: the messages that left by the WebSocket.
    """

    page: Page
    sent: list[dict[str, Any]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def script(self) -> Locator:
        return self.page.get_by_label("Script", exact=True)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name)

    async def speak(self, script: str) -> None:
        await self.script.fill(script)
        await self.page.locator("#speak").click()

    async def until(self, condition: str) -> None:
        """Wait until this JavaScript is true; ``take`` and ``player`` are the page's."""
        code = f"() => {{ const take = dialoguePage.take, player = take?.player; return {condition}; }}"
        await self.page.wait_for_function(code, timeout=WAIT_MS)

    async def ask(self, expression: str) -> Any:
        code = f"() => {{ const take = dialoguePage.take, player = take?.player; return {expression}; }}"
        return await self.page.evaluate(code)

    async def until_spoken(self) -> None:
        """Wait until every turn was heard to its end."""
        await self.until("take?.turns.length && !take.busy")


def embedded_speech() -> Speech:
    """The embedded model ready to speak; its engine runs and keeps what it is asked."""
    config = SpeechConfig(engine=EngineConfig(max_sessions=8))
    speech = Speech.load(config)
    speech.engine = engine = RecordingEngine(speech.model, speech.codec, config.engine)
    engine.requests, engine.rows = [], {}
    engine.start()
    return speech


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Chromium with an empty profile."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        try:
            yield chromium
        finally:
            await chromium.close()


@contextlib.asynccontextmanager
async def serving_pages(speech: Speech, **settings: Any) -> AsyncIterator[DialogueServer]:
    """A server around ``speech``, on a free port."""
    async with DialogueServer(speech, ServerConfig(port=0, drain_s=0.0, **settings)) as server:
        yield server


@contextlib.asynccontextmanager
async def opened(
    chromium: Browser, port: int, *, complaints_expected: bool = False, voices: bool = True, **context: Any
) -> AsyncIterator[WebPage]:
    """The page of the server at ``port``, in a context of its own; ``voices``: wait until it knows them.

    On exit nothing may have gone wrong in the page's background unless ``complaints_expected``.
    """
    scene = await chromium.new_context(**{"viewport": {"width": 1280, "height": 860}, **context})
    web = WebPage(await scene.new_page())
    host = f"127.0.0.1:{port}"

    def look(url: str) -> None:
        if urlsplit(url).scheme not in ("blob", "data") and urlsplit(url).netloc != host:
            web.complaints.append(f"a request to {url}")

    web.page.on("console", lambda said: web.complaints.append(said.text) if said.type == "error" else None)
    web.page.on("pageerror", lambda error: web.complaints.append(str(error)))
    web.page.on("request", lambda request: look(request.url))

    def listen(socket: WebSocket) -> None:
        look(socket.url)
        socket.on("framesent", lambda text: web.sent.append(json.loads(text)))

    web.page.on("websocket", listen)
    await web.page.add_init_script(_OBSERVER)
    try:
        await web.page.goto(f"http://{host}/")
        if voices:
            await web.page.locator(".cast select:enabled").first.wait_for()
        yield web
        assert complaints_expected or web.complaints == []
    finally:
        await scene.close()
