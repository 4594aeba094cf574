"""The web player: the built page and its files, out of the package's memory."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from aiohttp import hdrs, web

from streamer.server.refusals import refusal

PAGES = Path(__file__).parents[1] / "assets" / "web"
# A page can do no more than the player needs: its own files and sockets, WebAssembly for the Opus decoder, its own
# recordings. `'self'` of connect-src stands for the WebSocket too.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "worker-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "media-src blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
# The index names the others, and those carry a hash of what is in them.
_FRESH = "no-cache"
_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file as it is sent; ``zipped`` is the same in gzip."""

    body: bytes
    zipped: bytes
    content_type: str
    cache: str
    etag: str


def read_pages(folder: Path = PAGES) -> dict[str, PageFile]:
    """The files to serve by their path, such as ``assets/index-4f2c.js``; empty if there is no build."""
    paths = (path for path in sorted(folder.rglob("*")) if path.suffix in _TYPES and path.is_file())
    return {path.relative_to(folder).as_posix(): _read(path) for path in paths}


def page_routes(folder: Path = PAGES) -> list[web.RouteDef]:
    """``GET /`` and ``GET /assets/...``: the web player. They are open to all; what the page calls asks for keys."""
    files = read_pages(folder)

    async def index(request: web.Request) -> web.Response:
        return _answer(request, files.get("index.html"))

    async def asset(request: web.Request) -> web.Response:
        return _answer(request, files.get(f"assets/{request.match_info['name']}"))

    return [web.get("/", index), web.get("/assets/{name}", asset)]


def _read(path: Path) -> PageFile:
    body = path.read_bytes()
    return PageFile(
        body=body,
        zipped=gzip.compress(body, 9, mtime=0),
        content_type=_TYPES[path.suffix],
        cache=_FRESH if path.suffix == ".html" else _FOR_EVER,
        etag=hashlib.sha256(body).hexdigest()[:32],
    )


def _answer(request: web.Request, file: PageFile | None) -> web.Response:
    if file is None:
        text = "the web player has no such file; reload the page, and if / itself is missing, reinstall the server"
        return refusal(404, "not_found", text, "invalid_request_error")
    headers = {**_HEADERS, hdrs.CACHE_CONTROL: file.cache, hdrs.ETAG: f'"{file.etag}"', hdrs.VARY: hdrs.ACCEPT_ENCODING}
    if any(known.value == file.etag for known in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    headers[hdrs.CONTENT_TYPE] = file.content_type
    if "gzip" not in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
        return web.Response(body=file.body, headers=headers)
    headers[hdrs.CONTENT_ENCODING] = "gzip"
    return web.Response(body=file.zipped, headers=headers)
