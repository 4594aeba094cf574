"""Who may do what: the middleware that names every caller, and the check before a server is exposed."""

from __future__ import annotations

import re
import socket
import time
import warnings
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from streamer.server.keys import KEY_PREFIX, SCOPES, Identity, KeyRing, Scope
from streamer.server.rate import AddressLimits
from streamer.server.refusals import forbidden, refusal
from streamer.server.signing import TokenError
from streamer.server.tokens import ClientTokens

# What each route asks for; None is open to all. A route of /v1 that is not here is refused to everyone.
SCOPE_BY_ROUTE: dict[tuple[str, str], Scope | None] = {
    ("GET", "/v1/dialogue"): "dialogue",
    ("POST", "/v1/audio/speech"): "speech",
    ("GET", "/v1/voices"): "voices:read",
    ("GET", "/v1/voices/{}"): "voices:read",
    ("POST", "/v1/voices"): "voices:write",
    ("DELETE", "/v1/voices/{}"): "voices:write",
    ("POST", "/v1/tokens"): "tokens",
    ("GET", "/v1/openapi.json"): None,
    ("GET", "/v1/asyncapi.json"): None,
    ("GET", "/metrics"): "metrics",
}
# Browsers can't set a header on a WebSocket's handshake; nothing else has a reason to put credentials into a URL.
TOKEN_IN_URL_PATH = "/v1/dialogue"
OPEN_IDENTITY = Identity("open", "open", SCOPES, None, None)
# A scraper on the same machine.
LOCAL_IDENTITY = Identity("local", "open", frozenset({"metrics"}), None, None)

_PARAMETER = re.compile(r"\{[^}]*\}")
_PROXY_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Real-IP")
_FAILURES_PER_S = 0.5
_FAILURES_AT_ONCE = 20


class Unauthenticated(Exception):
    """The caller could not be named; the message tells it why and what to send."""


class ExposureError(Exception):
    """The server would be open to other machines; the message says what to do instead."""

    code = "exposed_without_keys"


class Guard:
    """Names callers by what they send. Without ``keys`` everyone is :data:`OPEN_IDENTITY`, whatever they send.

    ``tokens`` must belong to the same ``keys``. ``clock`` is a steady one, in seconds; it paces failures only.
    """

    def __init__(
        self,
        keys: KeyRing | None,
        tokens: ClientTokens | None,
        *,
        failures: AddressLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._failures = failures or AddressLimits(_FAILURES_PER_S, _FAILURES_AT_ONCE)
        self._clock = clock

    def identify(self, request: web.Request) -> Identity:
        """Who calls; raises Unauthenticated."""
        if self._keys is None:
            return OPEN_IDENTITY
        credential = _credential(request)
        if not credential.startswith(KEY_PREFIX):
            return self._by_token(credential)
        identity = self._keys.check(credential)
        if identity is None:
            raise Unauthenticated("the API key is wrong or was revoked")
        return identity

    def refuse(self, request: web.Request, reason: Unauthenticated) -> web.Response:
        """401, or 429 for an address that fails too often.

        Right credentials are taken from such an address all the same: keys can't be guessed, and whoever shares it
        with a broken client must not be shut out.
        """
        wait_s = self._failures.take(request.remote, self._clock())
        if wait_s > 0:
            text = f"too many failed attempts, try again later; {reason}"
            headers = {"Retry-After": str(int(wait_s) + 1)}
            return refusal(429, "rate_limited", text, "rate_limit_error", headers=headers)
        headers = {"WWW-Authenticate": "Bearer"}
        return refusal(401, "unauthorized", str(reason), "authentication_error", headers=headers)

    def _by_token(self, token: str) -> Identity:
        if self._tokens is None:
            raise Unauthenticated("this server takes API keys only")
        try:
            return self._tokens.identity(token)
        except TokenError as error:
            raise Unauthenticated(str(error)) from None


def auth_middleware(guard: Guard) -> Middleware:
    """Sets ``request["identity"]`` on every request of /v1 and /metrics that it lets through; the rest is open."""

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        route = _route(request)
        protected = route.startswith("/v1/") or route == "/metrics"
        key = (hdrs.METH_GET if request.method == hdrs.METH_HEAD else request.method, route)
        if not protected or (key in SCOPE_BY_ROUTE and SCOPE_BY_ROUTE[key] is None):
            return await handler(request)
        if route == "/metrics" and _from_this_machine(request):
            _name(request, LOCAL_IDENTITY)
            return await handler(request)
        try:
            identity = guard.identify(request)
        except Unauthenticated as reason:
            return guard.refuse(request, reason)
        # What no route serves is answered 404 or 405 by the router, to those who may know.
        if request.match_info.route.resource is not None:
            scope = SCOPE_BY_ROUTE.get(key)
            if scope is None:
                return forbidden(f"{request.method} {route} is not declared to anyone")
            if scope not in identity.scopes:
                return forbidden(f"{identity.name} lacks the scope {scope} for {request.method} {route}")
        _name(request, identity)
        return await handler(request)

    return authenticate


def check_exposure(host: str, has_keys: bool, insecure: bool) -> None:
    """Raises ExposureError if the server would listen where other machines reach it, and ask nobody for a key.

    ``host`` is an address or a name, of which every address counts; an empty one means all interfaces.
    """
    if has_keys or insecure or is_loopback(host):
        return
    raise ExposureError(
        f"listening on {host or 'all interfaces'} would let other machines in without a key: "
        "make a key with `streamer keys add NAME --file keys.jsonl` and start with `--keys keys.jsonl`, "
        "or listen on 127.0.0.1, or say --insecure if the network itself keeps strangers out"
    )


def is_loopback(host: str) -> bool:
    """Whether this machine alone reaches ``host``. A name that can't be resolved counts as reached by others."""
    try:
        found = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return False
    return all(is_loopback_address(str(entry[4][0])) for entry in found)


def is_loopback_address(address: str) -> bool:
    """Whether ``address`` is a literal of 127.0.0.0/8 or ::1, also written as an IPv4 address within IPv6."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped.is_loopback
    return parsed.is_loopback


def _name(request: web.Request, identity: Identity) -> None:
    # aiohttp warns of the first plain key in a process; its typed ones are newer than the versions we run with.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", web.NotAppKeyWarning)
        request["identity"] = identity


def _route(request: web.Request) -> str:
    """The route that will serve it, so that no spelling of a path goes around the table; else the path as it came."""
    resource = request.match_info.route.resource
    return request.path if resource is None else _PARAMETER.sub("{}", resource.canonical)


def _from_this_machine(request: web.Request) -> bool:
    """Called from here, not through a proxy that runs here."""
    return is_loopback_address(request.remote or "") and not any(name in request.headers for name in _PROXY_HEADERS)


def _credential(request: web.Request) -> str:
    """The one key or token that came with the request; raises Unauthenticated."""
    in_url = request.query.getall("token", []) if _route(request) == TOKEN_IN_URL_PATH else []
    # Before anything else: whoever sent it has to learn that the key is in logs and histories by now.
    if any(value.startswith(KEY_PREFIX) for value in in_url):
        raise Unauthenticated(
            "an API key in a URL is not taken, for URLs end up in logs: send it as `Authorization: Bearer`, or make a "
            "client token with POST /v1/tokens; revoke this key if the URL was kept anywhere"
        )
    in_headers = request.headers.getall(hdrs.AUTHORIZATION, [])
    if len(in_headers) + len(in_url) > 1:
        raise Unauthenticated("credentials came more than once; send one Authorization header or one `token`")
    if in_url:
        return in_url[0]
    if not in_headers:
        raise Unauthenticated("no credentials came; send `Authorization: Bearer` with an API key or a client token")
    scheme, _, value = in_headers[0].partition(" ")
    if scheme.lower() != "bearer" or not value.strip():
        raise Unauthenticated("the Authorization header is not of the scheme Bearer")
    return value.strip()
