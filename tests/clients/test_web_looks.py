"""The web player's looks: colours in both themes, phone width; and what the server says of its files."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio
from clients.web_page import CHROMIUM, browser, opened
from serving import running

from streamer.server import DialogueServer
from streamer.server.pages import PAGES
from streamer_protocol import Limits

if TYPE_CHECKING:
    from playwright.async_api import Browser

FIVE = "[S1] One. [S2] Two. [S3] Three. [S4] Four. [S5] Five."
# Every turn as if it was heard now, and the contrast of each text in it with what is behind it.
_CONTRASTS = """
() => {
  const pen = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const over = (colours) => {
    pen.clearRect(0, 0, 1, 1);
    for (const colour of colours) { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); }
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const grounds = (element) =>
    element ? [...grounds(element.parentElement), getComputedStyle(element).backgroundColor] : [];
  const found = {};
  for (const turn of document.querySelectorAll(".turn")) turn.dataset.state = "speaking";
  const texts = ".badge, .turn-who, .turn-state, .turn-meta, .turn-text, h1, .hint, .brand, .connection, button, label";
  for (const element of document.querySelectorAll(texts)) {
    if (!element.checkVisibility() || element.disabled) continue;
    const behind = grounds(element);
    const text = light(over([...behind, getComputedStyle(element).color]));
    const ground = light(over(behind));
    found[`${element.tagName}.${element.className}#${element.id} ${element.textContent.trim().slice(0, 20)}`] =
      (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
  }
  return found;
}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[DialogueServer]:
    async with running(Limits(), drain_s=0.0) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    pytest.importorskip("playwright", reason="needs playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}")
    async with browser() as started:
        yield started


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_every_text_can_be_read_in_both_themes(server: DialogueServer, chromium: Browser, theme: Any) -> None:
    async with opened(chromium, server.port, color_scheme=theme, reduced_motion="reduce") as web:
        dark = sum(map(int, (await web.ask("getComputedStyle(document.body).backgroundColor"))[4:-1].split(", "))) < 380
        assert dark == (theme == "dark")
        await web.speak(FIVE)
        await web.until("take?.turns.length === 5")
        # Another script, so that all kinds of text are on the page.
        await web.script.fill(FIVE)
        await web.page.locator("body").click(position={"x": 2, "y": 2})
        contrasts: dict[str, float] = await web.page.evaluate(_CONTRASTS)
        assert len([name for name in contrasts if "turn-who" in name]) == 5
        assert {name: ratio for name, ratio in contrasts.items() if ratio < 4.5} == {}
        await web.button("Stop").click()


async def test_the_switch_changes_the_colours_and_is_remembered(server: DialogueServer, chromium: Browser) -> None:
    async with opened(chromium, server.port, color_scheme="light", reduced_motion="reduce") as web:
        ground = "getComputedStyle(document.body).backgroundColor"
        light = await web.ask(ground)
        await web.button("Use dark colours").click()
        dark = await web.ask(ground)
        assert dark != light
        await web.page.reload()
        assert await web.ask(ground) == dark
        await web.button("Use light colours").click()
        assert await web.ask(ground) == light


@pytest.mark.parametrize("width", [320, 360])
async def test_a_phone_never_scrolls_sideways(server: DialogueServer, chromium: Browser, width: int) -> None:
    viewport = {"width": width, "height": 740}
    async with opened(chromium, server.port, viewport=viewport, has_touch=True, is_mobile=True) as web:
        fits = "document.documentElement.scrollWidth <= innerWidth && visualViewport.scale === 1"
        assert await web.ask(fits)
        # A word as long as a line and more.
        await web.script.fill(f"[S1] {'A' * 120}. [S5] Yes.")
        assert await web.ask(fits)
        await web.page.locator("#speak").click()
        await web.until("take?.turns.length === 2")
        assert await web.ask(fits)
        await web.until("!document.querySelector('#stop').disabled")
        for name in ("#speak", "#stop", "#save-opus", "#save-wav"):
            box = await web.page.locator(name).bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            overflow = f"document.querySelector('{name}').scrollWidth > document.querySelector('{name}').clientWidth"
            assert not await web.ask(overflow)
        await web.page.locator("#stop").click()
        await web.button("Add a voice").click()
        assert await web.ask(fits)


async def test_the_files_come_with_the_right_headers(server: DialogueServer) -> None:
    origin = f"http://127.0.0.1:{server.port}"
    async with aiohttp.ClientSession(auto_decompress=False) as client:
        async with client.get(f"{origin}/") as index:
            assert (index.status, index.content_type) == (200, "text/html")
            assert index.headers["Cache-Control"] == "no-cache"
            policy = index.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe-inline" not in policy
            assert index.headers["X-Content-Type-Options"] == "nosniff"
            assert index.headers["Referrer-Policy"] == "no-referrer"
            etag = index.headers["ETag"]
            page = gzip.decompress(await index.read()).decode()
        # Nothing of the page comes from anywhere else.
        assert "http://" not in page.replace("http://www.w3.org/", "")
        assert "https://" not in page
        async with client.get(f"{origin}/", headers={"If-None-Match": etag}) as again:
            assert (again.status, await again.read()) == (304, b"")
        async with client.head(f"{origin}/") as head:
            assert (head.status, await head.read()) == (200, b"")
        kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
        files = [path for path in (PAGES / "assets").iterdir() if path.suffix in kinds]
        assert {path.suffix for path in files} == set(kinds)
        for path in files:
            async with client.get(f"{origin}/assets/{path.name}", headers={"Accept-Encoding": "identity"}) as file:
                assert (file.status, file.content_type) == (200, kinds[path.suffix])
                assert "immutable" in file.headers["Cache-Control"]
                assert await file.read() == path.read_bytes()
        for wrong in ("nothing.js", "..%2Findex.html", "%2e%2e%2Fsource.sha256"):
            async with client.get(f"{origin}/assets/{wrong}") as missing:
                assert missing.status == 404


async def test_large_files_travel_compressed(server: DialogueServer) -> None:
    largest = max((PAGES / "assets").iterdir(), key=lambda path: path.stat().st_size)
    url = f"http://127.0.0.1:{server.port}/assets/{largest.name}"
    async with aiohttp.ClientSession() as client, client.get(url) as file:
        assert file.headers["Content-Encoding"] == "gzip"
        assert int(file.headers["Content-Length"]) < largest.stat().st_size
        assert await file.read() == largest.read_bytes()
