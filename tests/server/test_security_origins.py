"""Which pages may call: origins, host names, CORS; over real sockets, with the headers that browsers send."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest
from aiohttp import ClientSession, WSServerHandshakeError, web

from streamer.server.origins import OriginError, OriginPolicy, install_origins

PAGE = "https://app.example.com"


class Site:
    """A served application and a client; ``opened`` counts the WebSockets that got through."""

    client: ClientSession

    def __init__(self) -> None:
        self.opened = 0
        self.port = 0

    async def dialogue(self, request: web.Request) -> web.WebSocketResponse:
        self.opened += 1
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.close()
        return ws

    async def speech(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"audio")
        return response

    async def voices(self, _: web.Request) -> web.Response:
        return web.Response(text="voices")

    async def status(self, path: str = "/v1/voices", **headers: str) -> int:
        async with self.client.get(path, headers=headers) as response:
            if response.status == 403:
                error = (await response.json())["error"]
                assert (error["code"], error["type"], error["param"]) == ("forbidden", "permission_error", None)
            return response.status


@contextlib.asynccontextmanager
async def served(
    origins: Sequence[str] = (), host_names: Sequence[str] = (), loopback: bool = True
) -> AsyncIterator[Site]:
    site = Site()
    app = web.Application()
    app.add_routes(
        [
            web.get("/v1/dialogue", site.dialogue),
            web.post("/v1/audio/speech", site.speech),
            web.get("/v1/voices", site.voices),
            web.get("/healthz", site.voices),
        ]
    )
    install_origins(app, OriginPolicy(origins, host_names, loopback=loopback))
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        site.port = runner.addresses[0][1]
        async with ClientSession(f"http://127.0.0.1:{site.port}") as site.client:
            yield site
    finally:
        await runner.cleanup()


async def test_a_strange_page_is_refused_before_the_handshake() -> None:
    async with served() as site:
        with pytest.raises(WSServerHandshakeError) as caught:
            await site.client.ws_connect("/v1/dialogue", headers={"Origin": PAGE})
        assert caught.value.status == 403
        assert site.opened == 0
        await (await site.client.ws_connect("/v1/dialogue")).close()
        own = f"http://127.0.0.1:{site.port}"
        await (await site.client.ws_connect("/v1/dialogue", headers={"Origin": own})).close()
        assert site.opened == 2


async def test_which_origins_are_the_servers_own() -> None:
    async with served(host_names=["speech.example.com"]) as site:
        mine = {"Host": "speech.example.com"}
        assert await site.status(Origin="https://speech.example.com", **mine) == 200
        assert await site.status(Origin="HTTP://Speech.Example.com", **mine) == 200
        for other in (
            "https://speech.example.com.evil.com", "https://evil.com", "https://speech.example.com:444", "null", "",
            "speech.example.com", "ftp://speech.example.com", "https://speech.example.com/", "https://x@speech.example.com",
        ):  # fmt: skip
            assert await site.status(Origin=other, **mine) == 403, other


async def test_configured_origins_are_allowed_whatever_their_spelling() -> None:
    async with served(["HTTPS://App.example.com:443", "http://localhost:3000", "capacitor://localhost"]) as site:
        for origin in (PAGE, PAGE.upper(), "http://localhost:3000", "capacitor://localhost"):
            assert await site.status(Origin=origin) == 200
        for origin in ("http://app.example.com", "https://app.example.com:8443", "http://localhost:3001"):
            assert await site.status(Origin=origin) == 403


async def test_several_origins_are_none() -> None:
    async with served([PAGE]) as site:
        twice = [("Origin", PAGE), ("Origin", "https://evil.com")]
        async with site.client.get("/v1/voices", headers=twice) as response:
            assert response.status == 403


async def test_a_star_allows_every_page_but_no_name_that_was_pointed_here() -> None:
    async with served(["*"]) as site:
        assert await site.status(Origin="https://anything.example") == 200
        assert await site.status(Origin="null") == 200
        assert await site.status(Host="evil.com") == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:9", 200),
        ("127.9.9.9", 200),
        ("[::1]:8000", 200),
        ("speech.example.com", 200),
        ("evil.com", 403),
        ("evil.com:8000", 403),
        ("localhost.evil.com", 403),
        ("127.0.0.1.evil.com", 403),
        ("10.0.0.5", 403),
        ("[::2]", 403),
        ("localhost@evil.com", 403),
        ("[::1", 403),
        (" ", 403),
    ],
)
async def test_on_loopback_a_name_that_was_pointed_here_is_refused(host: str, status: int) -> None:
    async with served(host_names=["Speech.example.com"]) as site:
        for path in ("/v1/voices", "/healthz"):
            assert await site.status(path, Host=host) == status


async def test_off_loopback_addresses_and_configured_names_are_taken() -> None:
    async with served(host_names=["speech.example.com"], loopback=False) as site:
        for host in ("speech.example.com", "10.0.0.5:8000", "[2001:db8::1]", "localhost"):
            assert await site.status(Host=host) == 200
        assert await site.status(Host="evil.com") == 403
    async with served(loopback=False) as site:
        assert await site.status(Host="any.name") == 200


async def test_a_page_that_is_allowed_gets_its_preflight_and_its_answer() -> None:
    async with served([PAGE]) as site:
        asking = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        for path in ("/v1/audio/speech", "/v1/voices", "/v1/voices/mine"):
            async with site.client.options(path, headers=asking) as preflight:
                assert preflight.status == 204
                assert preflight.headers["Access-Control-Allow-Origin"] == PAGE
                assert "DELETE" in preflight.headers["Access-Control-Allow-Methods"]
                assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
        async with site.client.post("/v1/audio/speech", headers={"Origin": PAGE}) as streamed:
            assert await streamed.read() == b"audio"
            assert streamed.headers["Access-Control-Allow-Origin"] == PAGE
            assert streamed.headers["Vary"] == "Origin"
        async with site.client.get("/v1/voices/nothing/here", headers={"Origin": PAGE}) as elsewhere:
            assert "Access-Control-Allow-Origin" not in elsewhere.headers


async def test_a_page_that_is_not_allowed_gets_neither() -> None:
    async with served([PAGE]) as site:
        asking = {"Origin": "https://evil.com", "Access-Control-Request-Method": "POST"}
        async with site.client.options("/v1/audio/speech", headers=asking) as preflight:
            assert preflight.status == 403
            assert "Access-Control-Allow-Origin" not in preflight.headers
        async with site.client.options("/v1/dialogue", headers={**asking, "Origin": PAGE}) as preflight:
            assert preflight.status == 405
            assert "Access-Control-Allow-Origin" not in preflight.headers
        async with site.client.get("/v1/voices") as plain:
            assert "Access-Control-Allow-Origin" not in plain.headers


@pytest.mark.parametrize(
    "origin",
    ["app.example.com", "https://", "https://a.b/path", "https://a.b/", "https://a.b:99999", "https://é.de", ""],
)
def test_a_configured_origin_that_is_none_is_named(origin: str) -> None:
    with pytest.raises(OriginError, match=r"https://app\.example\.com"):
        OriginPolicy([PAGE, origin], loopback=True)


@pytest.mark.parametrize("name", ["https://a.b", "a.b:80", "a b", "", "a.b/"])
def test_a_configured_host_name_that_is_none_is_named(name: str) -> None:
    with pytest.raises(OriginError, match=r"speech\.example\.com"):
        OriginPolicy(host_names=[name], loopback=True)
