"""Keys and tokens at the door: who gets in where, and what those are told who don't."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, WSServerHandshakeError, web

from streamer.server.auth import (
    SCOPE_BY_ROUTE,
    Guard,
    auth_middleware,
)
from streamer.server.keys import SCOPES, KeyRing, Scope, add_key, revoke_key
from streamer.server.origins import OriginPolicy, install_origins
from streamer.server.rate import AddressLimits
from streamer.server.redaction import redact
from streamer.server.signing import MAX_TOKEN_CHARS, Signer
from streamer.server.tokens import ClientTokens, TokenRequest, token_routes

PATHS = {"/v1/voices/{}": "/v1/voices/mine"}
ROUTES = [(method, PATHS.get(route, route), scope) for (method, route), scope in SCOPE_BY_ROUTE.items()]


class Door:
    """A served application behind keys, and a client."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.now_s = 1_700_000_000.0
        self.signer = Signer(b"s" * 32, clock=lambda: self.now_s)
        self.ring = None if path is None else KeyRing.from_file(path)
        self.tokens = None if self.ring is None else ClientTokens(self.signer, self.ring)
        self.failures = AddressLimits(1, 10_000)
        self.guard = Guard(self.ring, self.tokens, failures=self.failures, clock=lambda: self.now_s)
        self.client: ClientSession
        self.port = 0

    def key(self, name: str, *scopes: Scope, max_sessions: int | None = None) -> str:
        assert self.path is not None
        return add_key(self.path, name, scopes, max_sessions)[0]

    async def call(
        self, method: str, path: str, credential: str | None = None, **options: Any
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, body and headers of an answer."""
        headers = {} if credential is None else {"Authorization": f"Bearer {credential}"}
        headers |= options.pop("headers", {})
        async with self.client.request(method, path, headers=headers, **options) as response:
            text = await response.text()
            return response.status, json.loads(text) if text.startswith("{") else {}, dict(response.headers)

    async def token(self, key: str, **body: Any) -> str:
        status, answer, _ = await self.call("POST", "/v1/tokens", key, json=body)
        assert status == 200, answer
        return str(answer["token"])

    async def leave_after(self, data: bytes) -> None:
        """Send these bytes and be gone."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        writer.close()
        await writer.wait_closed()

    async def raw(self, data: bytes) -> bytes:
        """What the server says to these bytes, up to the end of its first header."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        finally:
            writer.close()
            await writer.wait_closed()


async def whoami(request: web.Request) -> web.Response:
    identity = request.get("identity")
    if identity is None:
        return web.json_response({"name": None})
    fields = ("name", "kind", "max_sessions", "expires_at_s")
    return web.json_response({"scopes": sorted(identity.scopes), **{name: getattr(identity, name) for name in fields}})


@contextlib.asynccontextmanager
async def door(tmp_path: Path | None) -> AsyncIterator[Door]:
    """Behind keys, or open if there is no folder for them."""
    path = None if tmp_path is None else tmp_path / "keys.jsonl"
    if path is not None:
        add_key(path, "first", SCOPES)
    site = Door(path)
    app = web.Application(middlewares=[auth_middleware(site.guard)])
    install_origins(app, OriginPolicy(loopback=True))
    app.add_routes(token_routes(site.tokens))
    served = [(method, route) for method, route in SCOPE_BY_ROUTE if route != "/v1/tokens"]
    served += [("HEAD", "/v1/voices")]
    app.add_routes([web.route(method, route.replace("{}", "{id}"), whoami) for method, route in served])
    app.add_routes([web.get(route, whoami) for route in ("/", "/healthz", "/readyz", "/player.js", "/v1/undeclared")])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        site.port = runner.addresses[0][1]
        async with ClientSession(f"http://127.0.0.1:{site.port}") as site.client:
            yield site
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES, ids=[f"{m} {p}" for m, p, _ in ROUTES])
async def test_each_route_asks_for_its_scope_and_no_other(
    tmp_path: Path, method: str, path: str, scope: Scope | None
) -> None:
    async with door(tmp_path) as site:
        # As if through a proxy, so that /metrics does not count as called from this machine.
        far: dict[str, Any] = {"headers": {"X-Forwarded-For": "198.51.100.1"}}
        if scope is None:
            assert (await site.call(method, path))[0] == 200
            return
        status, body, headers = await site.call(method, path, **far)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        error = body["error"]
        assert (error["code"], error["type"], error["param"]) == ("unauthorized", "authentication_error", None)
        right, lacking = site.key("right", scope, "dialogue"), site.key("lacking", *(SCOPES - {scope}))
        assert (await site.call(method, path, right, **far))[0] == 200
        status, body, _ = await site.call(method, path, lacking, **far)
        assert (status, body["error"]["code"], body["error"]["type"]) == (403, "forbidden", "permission_error")
        assert f"lacking lacks the scope {scope}" in body["error"]["message"]


async def test_what_needs_no_key(tmp_path: Path) -> None:
    async with door(tmp_path) as site:
        for path in ("/", "/healthz", "/readyz", "/player.js", "/metrics"):
            assert (await site.call("GET", path))[0] == 200
        for header in ("Forwarded", "X-Forwarded-For", "X-Real-IP"):
            assert (await site.call("GET", "/metrics", headers={header: "x"}))[0] == 401


async def test_no_spelling_of_a_path_goes_around_the_key(tmp_path: Path) -> None:
    async with door(tmp_path) as site:
        guarded = ["/v1/voices", "/v1/%76oices", "/v1/voices?x", "/v1/voices/a%2Fb", "/%76%31/voices", "//x/v1/voices"]
        absent = [
            "/x/../v1/voices",
            "/v1/voices/",
            "/v1//voices",
            "//v1/voices",
            "/V1/voices",
            "/v1",
            "http://x/v1/voices",
        ]
        for target in guarded + absent:
            request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            status = (await site.raw(request.encode())).split()[1]
            assert status in (b"401", b"404"), target
        head = b"HEAD /v1/voices HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert (await site.raw(head)).split()[1] == b"401"
        assert (await site.call("HEAD", "/v1/voices", site.key("web", "voices:read")))[0] == 200


async def test_what_no_route_serves_is_told_to_callers_with_a_key_only(tmp_path: Path) -> None:
    async with door(tmp_path) as site:
        key = site.key("web", "dialogue")
        for method, path, status in (("GET", "/v1/nothing", 404), ("PUT", "/v1/voices", 405)):
            assert (await site.call(method, path))[0] == 401
            assert (await site.call(method, path, key))[0] == status
        assert (await site.call("GET", "/nothing"))[0] == 404


@pytest.mark.parametrize("with_keys", [True, False])
async def test_a_route_that_nobody_declared_is_closed(tmp_path: Path, with_keys: bool) -> None:
    async with door(tmp_path if with_keys else None) as site:
        key = site.key("all", *SCOPES) if with_keys else None
        status, body, _ = await site.call("GET", "/v1/undeclared", key)
        assert status == 403
        assert "not declared to anyone" in body["error"]["message"]


async def test_without_keys_everybody_is_let_in(tmp_path: Path) -> None:
    async with door(None) as site:
        for credential in (None, "anything", "ds_" + "A" * 43):
            status, body, _ = await site.call("GET", "/v1/voices", credential)
            assert (status, body["name"], body["kind"]) == (200, "open", "open")
        status, body, _ = await site.call("POST", "/v1/tokens")
        assert (status, body["error"]["code"]) == (403, "forbidden")
        assert "without a token" in body["error"]["message"]


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic YTpi", "ds_x", "Bearer ds_x", "Bearer x.y", "Bearer \xff", "Bearer a b"]
)
async def test_wrong_credentials_are_refused(tmp_path: Path, header: str) -> None:
    async with door(tmp_path) as site:
        request = f"GET /v1/voices HTTP/1.1\r\nHost: localhost\r\nAuthorization: {header}\r\nConnection: close\r\n\r\n"
        answer = await site.raw(request.encode("latin-1"))
        assert answer.split()[1] == b"401"
        assert b"WWW-Authenticate: Bearer\r\n" in answer


async def test_two_credentials_are_refused_and_the_scheme_has_no_case(tmp_path: Path) -> None:
    async with door(tmp_path) as site:
        key = site.key("web", *SCOPES)
        line = f"Authorization: bEARER {key}\r\n"
        request = "GET /v1/voices HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        assert (await site.raw(f"{request}{line}\r\n".encode())).split()[1] == b"200"
        assert (await site.raw(f"{request}{line}{line}\r\n".encode())).split()[1] in (b"400", b"401")
        token = await site.token(key)
        assert (await site.call("GET", f"/v1/dialogue?token={token}", key))[0] == 401
        assert (await site.call("GET", f"/v1/dialogue?token={token}&token={token}"))[0] == 401


async def test_a_token_lives_as_long_as_it_says_under_the_name_of_its_key(tmp_path: Path) -> None:
    async with door(tmp_path) as site:
        key = site.key("web", "tokens", "dialogue", "voices:read", max_sessions=5)
        status, answer, headers = await site.call("POST", "/v1/tokens", key)
        assert (status, headers["Cache-Control"]) == (200, "no-store")
        assert answer["expires_at"] == site.now_s + 300
        assert answer["scopes"] == ["dialogue"]
        token = answer["token"]
        _, body, _ = await site.call("GET", f"/v1/dialogue?token={token}")
        assert body == {"name": "web", "kind": "token", "scopes": ["dialogue"], "max_sessions": 5,
                        "expires_at_s": site.now_s + 300}  # fmt: skip
        assert (await site.call("GET", "/v1/dialogue", token))[0] == 200
        assert (await site.call("GET", "/v1/voices", token))[0] == 403
        site.now_s += 300
        status, body, _ = await site.call("GET", "/v1/dialogue", token)
        assert status == 401
        assert "expired" in body["error"]["message"]


async def test_a_token_in_a_url_is_for_the_socket_and_a_key_never(tmp_path: Path) -> None:
    async with door(tmp_path) as site:
        key = site.key("web", *SCOPES)
        token = await site.token(key, scopes=["dialogue", "voices:read"])
        assert (await site.call("GET", f"/v1/voices?token={token}"))[0] == 401
        assert (await site.call("GET", "/v1/voices", token))[0] == 200
        for credential in (None, key, token):
            status, body, _ = await site.call("GET", f"/v1/dialogue?token={key}", credential)
            assert status == 401
            assert "an API key in a URL is not taken" in body["error"]["message"]
            assert key not in str(body)


async def test_a_browsers_handshake_without_a_valid_token_fails(tmp_path: Path) -> None:
    async with door(tmp_path) as site:
        for query in ("", "?token=", "?token=nonsense"):
            with pytest.raises(WSServerHandshakeError) as caught:
                await site.client.ws_connect(f"/v1/dialogue{query}")
            assert caught.value.status == 401


async def test_a_token_can_do_no_more_than_its_key_and_makes_no_tokens(tmp_path: Path) -> None:
    async with door(tmp_path) as site:
        key = site.key("web", "tokens", "dialogue")
        status, body, _ = await site.call("POST", "/v1/tokens", key, json={"scopes": ["dialogue", "speech"]})
        assert (status, body["error"]["code"]) == (403, "forbidden")
        assert "no scope speech" in body["error"]["message"]
        token = await site.token(key)
        assert (await site.call("POST", "/v1/tokens", token))[0] == 403
        no_dialogue = site.key("narrow", "tokens", "speech")
        assert (await site.call("POST", "/v1/tokens", no_dialogue))[0] == 403


@pytest.mark.parametrize("end", ["revoked", "replaced", "narrowed"])
async def test_a_token_ends_with_its_key(tmp_path: Path, end: str) -> None:
    async with door(tmp_path) as site:
        assert site.path is not None
        token = await site.token(site.key("web", "tokens", "dialogue"))
        assert (await site.call("GET", "/v1/dialogue", token))[0] == 200
        if end == "narrowed":
            site.path.write_text(site.path.read_text().replace('["dialogue","tokens"]', '["tokens"]'))
        else:
            revoke_key(site.path, "web")
        if end == "replaced":
            site.key("web", "tokens", "dialogue")
        assert (await site.call("GET", "/v1/dialogue", token))[0] == (403 if end == "narrowed" else 401)


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        (b"{", None, "truncated"),
        (b"[]", None, "object"),
        (b"\xff", None, "malformed"),
        (b'{"scopes": "dialogue"}', "scopes", "array"),
        (b'{"scopes": []}', "scopes", "length >= 1"),
        (b'{"scopes": ["tokens"]}', "scopes", "tokens"),
        (b'{"scopes": ["all"]}', "scopes", "all"),
        (b'{"ttl_s": 0}', "ttl_s", ">= 1"),
        (b'{"ttl_s": 3601}', "ttl_s", "<= 3600"),
        (b'{"ttl_s": 1.5}', "ttl_s", "int"),
        (b'{"ttl": 5}', None, "`ttl`"),
    ],
)
async def test_a_request_for_a_token_that_is_wrong_names_the_field(
    tmp_path: Path, body: bytes, param: str | None, said: str
) -> None:
    async with door(tmp_path) as site:
        key = site.key("web", *SCOPES)
        status, answer, _ = await site.call("POST", "/v1/tokens", key, data=body)
        error = answer["error"]
        assert (status, error["type"]) == (400, "invalid_request_error")
        assert error["code"] == ("invalid_json" if said in ("truncated", "malformed") else "invalid_message")
        assert error["param"] == param
        assert said in error["message"]


async def test_a_request_for_a_token_is_read_within_bounds(tmp_path: Path) -> None:
    async with door(tmp_path) as site:
        key = site.key("web", *SCOPES)
        assert (await site.call("POST", "/v1/tokens", key, data=b" " * 5000))[0] == 413
        head = f"POST /v1/tokens HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        chunked = "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        good = await site.raw(f'{head}{chunked}5\r\n{{"ttl\r\n8\r\n_s": 5 }}\r\n0\r\n\r\n'.encode())
        assert good.split()[1] == b"200"
        assert (await site.raw(f"{head}{chunked}zz\r\n".encode())).split()[1] == b"400"
        assert site.tokens is not None
        site.tokens._body_timeout_s = 0.05
        late = f"{head}Connection: close\r\nContent-Length: 100\r\n\r\n"
        assert (await site.raw(late.encode())).split()[1] == b"408"
        # A peer that leaves in the middle, and the server goes on.
        await site.leave_after(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert (await site.call("GET", "/healthz"))[0] == 200


def test_the_longest_token_is_short_enough(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    _, record = add_key(path, "aB3_" * 16, SCOPES)
    tokens = ClientTokens(Signer(b"s" * 32), KeyRing.from_file(path))
    request = TokenRequest(scopes=("dialogue", "speech", "voices:read", "voices:write", "metrics"), ttl_s=3600)
    response = tokens.issue(record, request)
    assert len(response.token) <= MAX_TOKEN_CHARS
    assert tokens.identity(response.token).scopes == set(request.scopes)


async def test_failures_are_slowed_down_but_whoever_has_a_key_gets_in(tmp_path: Path) -> None:
    async with door(tmp_path) as site:
        site.guard._failures = AddressLimits(0.5, 3)
        key = site.key("web", "voices:read")
        statuses = [(await site.call("GET", "/v1/voices", f"wrong-{n}"))[0] for n in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        status, body, headers = await site.call("GET", "/v1/voices")
        assert (status, body["error"]["code"], headers["Retry-After"]) == (429, "rate_limited", "3")
        assert (await site.call("GET", "/v1/voices", key))[0] == 200
        site.now_s += 3
        assert (await site.call("GET", "/v1/voices"))[0] == 401


async def test_no_secret_gets_into_logs_or_answers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with door(tmp_path) as site:
        key, weak = site.key("web", *SCOPES), site.key("weak", "dialogue")
        token = await site.token(key)
        other = Signer(b"x" * 32).sign("client", {"k": "web"}, 30)
        revoked = site.key("old", "dialogue")
        assert site.path is not None
        revoke_key(site.path, "old")
        answers = [
            await site.call("GET", "/v1/voices", revoked),
            await site.call("GET", "/v1/voices", weak),
            await site.call("GET", "/v1/voices", other),
            await site.call("GET", "/v1/voices", token),
            await site.call("GET", f"/v1/dialogue?token={key}"),
            await site.call("GET", f"/v1/dialogue?token={other}"),
            await site.call("GET", f"/v1/dialogue?token={token}&token={token}"),
            await site.call("POST", "/v1/tokens", token),
            await site.call("POST", "/v1/tokens", key, json={"scopes": [key]}, headers={"Origin": "https://evil.com"}),
            await site.call("GET", "/v1/voices", key, headers={"Host": "evil.com"}),
        ]
        site.now_s += 301
        answers.append(await site.call("GET", f"/v1/dialogue?token={token}"))
        assert {status for status, _, _ in answers} == {401, 403}
        site.guard._failures = AddressLimits(1e-6, 1)
        answers += [await site.call("GET", "/v1/voices", other) for _ in range(2)]
        assert answers[-1][0] == 429
        site.path.write_text(f"{key}\n")
        answers.append(await site.call("GET", "/v1/voices", revoked))
        # No HTTP at all, with a key in it: the web library quotes such bytes.
        broken = await site.raw(f"GET /v1/dialogue?token={token} HTTP/1.1\r\nAuthorization {key}\r\n\r\n".encode())
        said = redact(str(answers[-1])) + str(answers)
        ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("streamer"))
        formatted = logging.Formatter()
        whole = redact("\n".join(formatted.format(record) for record in caplog.records))
    assert broken.split()[1] == b"400"
    assert "the keys stay as they were" in ours
    for secret in (key, weak, revoked, token, other):
        assert secret not in said
        assert secret not in ours
        assert secret not in whole
