"""Client tokens: short-lived credentials that a backend fetches with its API key and hands to a browser."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from streamer.server.keys import Identity, KeyRecord, KeyRing, Scope
from streamer.server.refusals import forbidden, refusal
from streamer.server.signing import Signer, TokenError

MAX_TTL_S = 3600
_PURPOSE = "client"
_MAX_BODY_BYTES = 4096
# Enough of the hash to tell two keys of one name apart, which is all it is for.
_FINGERPRINT_CHARS = 12

ClientScope = Literal["dialogue", "speech", "voices:read", "voices:write", "metrics"]
# With whole words a token could pass its 256 characters.
_LETTERS: dict[ClientScope, str] = {
    "dialogue": "d",
    "speech": "s",
    "voices:read": "r",
    "voices:write": "w",
    "metrics": "m",
}


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/tokens``: what the token may do, a part of what the key may, and for how long."""

    scopes: Annotated[tuple[ClientScope, ...], msgspec.Meta(min_length=1, max_length=16)] = ("dialogue",)
    ttl_s: Annotated[int, msgspec.Meta(ge=1, le=MAX_TTL_S)] = 300


class TokenResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The token and when it ends, in Unix seconds."""

    token: str
    expires_at: int
    scopes: tuple[ClientScope, ...]


class ClientTokens:
    """Makes client tokens and says who comes with one. A token ends with its key: revoked, replaced or narrowed."""

    def __init__(self, signer: Signer, keys: KeyRing, *, body_timeout_s: float = 10.0) -> None:
        self._signer = signer
        self._keys = keys
        self._body_timeout_s = body_timeout_s

    def issue(self, record: KeyRecord, request: TokenRequest) -> TokenResponse:
        """A token under the name of this key; the caller has checked that the key has the scopes."""
        scopes = tuple(sorted(set(request.scopes)))
        claims = {"k": record.name, "f": _fingerprint(record), "s": "".join(_LETTERS[scope] for scope in scopes)}
        expires_at_s = int(self._signer.clock() + request.ttl_s)
        token = self._signer.sign(_PURPOSE, claims | {"e": expires_at_s}, request.ttl_s)
        return TokenResponse(token=token, expires_at=expires_at_s, scopes=scopes)

    def identity(self, token: str) -> Identity:
        """Who comes with this token; raises TokenError."""
        claims = self._signer.verify(_PURPOSE, token)
        match claims:
            case {"k": str(name), "f": str(fingerprint), "s": str(letters), "e": int(expires_at_s)}:
                pass
            case _:
                raise TokenError("invalid_token", "the token is of another version of this server")
        record = self._keys.record(name)
        if record is None or _fingerprint(record) != fingerprint:
            raise TokenError("invalid_token", "the API key that this token was made with is no longer valid")
        held: frozenset[Scope] = frozenset(scope for scope, letter in _LETTERS.items() if letter in letters)
        return Identity(name, "token", held & frozenset(record.scopes), record.max_sessions, float(expires_at_s))

    async def handle(self, request: web.Request) -> web.Response:
        """``POST /v1/tokens``; the scope ``tokens`` has been checked by then."""
        identity: Identity = request["identity"]
        record = self._keys.record(identity.name)
        if identity.kind != "key" or record is None:
            return forbidden("only an API key can make client tokens, a client token can't")
        try:
            body = await asyncio.wait_for(_body(request), self._body_timeout_s)
        except asyncio.TimeoutError:
            text = f"the body was not there within {self._body_timeout_s:g} s"
            return refusal(408, "request_timeout", text, "invalid_request_error", headers={"Connection": "close"})
        if len(body) > _MAX_BODY_BYTES:
            text = f"the body is larger than {_MAX_BODY_BYTES} bytes"
            return refusal(413, "message_too_large", text, "invalid_request_error", headers={"Connection": "close"})
        try:
            wanted = msgspec.json.decode(body, type=TokenRequest) if body.strip() else TokenRequest()
        except msgspec.ValidationError as error:
            param = next((name for name in ("scopes", "ttl_s") if f"$.{name}" in str(error)), None)
            return refusal(400, "invalid_message", f"POST /v1/tokens: {error}", "invalid_request_error", param=param)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return refusal(400, "invalid_json", f"POST /v1/tokens: {error}", "invalid_request_error")
        excess = sorted(set(wanted.scopes) - identity.scopes)
        if excess:
            return forbidden(f"the key {identity.name} has no scope {excess[0]} to pass on")
        answer = msgspec.json.encode(self.issue(record, wanted))
        return web.Response(body=answer, content_type="application/json", headers={"Cache-Control": "no-store"})


async def handle_without_keys(_: web.Request) -> web.Response:
    """``POST /v1/tokens`` of a server that asks for no keys."""
    return forbidden("this server has no API keys: connect without a token")


def token_routes(tokens: ClientTokens | None) -> list[web.RouteDef]:
    """The route of ``POST /v1/tokens``; None for a server without keys."""
    return [web.post("/v1/tokens", handle_without_keys if tokens is None else tokens.handle)]


def _fingerprint(record: KeyRecord) -> str:
    return record.hash.removeprefix("sha256:")[:_FINGERPRINT_CHARS]


async def _body(request: web.Request) -> bytes:
    """The body, of which no more than one byte over the limit is read."""
    try:
        return await request.content.readexactly(_MAX_BODY_BYTES + 1)
    except asyncio.IncompleteReadError as end:
        return end.partial
