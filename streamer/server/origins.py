"""Which web pages may talk to the server: the allow-list of origins, CORS, and a guard against DNS rebinding."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from streamer.server.auth import is_loopback_address
from streamer.server.refusals import forbidden

# Pages of other origins may call these; keys, and so /v1/tokens, have no business in a browser.
CORS_PATHS = re.compile(r"/v1/(audio/speech|voices|voices/[^/]+)")
_NAME = r"([a-z0-9._-]+|\[[0-9a-f:.]+\])"
# Other schemes than the web's are those of apps that are pages inside.
_ORIGIN = re.compile(rf"([a-z][a-z0-9+.-]*)://{_NAME}(?::([0-9]{{1,5}}))?")
_HOST = re.compile(rf"{_NAME}(?::[0-9]{{1,5}})?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_PREFLIGHT_HEADERS = {
    hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, POST, DELETE",
    # The star does not stand for Authorization.
    hdrs.ACCESS_CONTROL_ALLOW_HEADERS: "Authorization, Content-Type, *",
    hdrs.ACCESS_CONTROL_MAX_AGE: "600",
}


class OriginError(ValueError):
    """A configured origin or host name is none; the message names it and shows the form."""

    code = "invalid_origin"


class OriginPolicy:
    """Decides by the headers Host and Origin.

    ``origins``: pages allowed besides those of the server itself, as ``https://app.example.com``; ``*`` allows all.
    ``host_names``: names the server is reached by; given, or if ``loopback`` says that it listens on loopback
    addresses alone, a request for any other name is refused, since a page of an attacker's could have pointed that
    name here. Raises OriginError.
    """

    def __init__(self, origins: Iterable[str] = (), host_names: Iterable[str] = (), *, loopback: bool) -> None:
        origins = list(origins)
        self._any = "*" in origins
        self._origins = frozenset(_normal_origin(origin) for origin in origins if origin != "*")
        self._host_names = frozenset(_normal_name(name) for name in host_names)
        self._loopback = loopback

    def objection(self, request: web.Request) -> str | None:
        """Why the request is refused, or None if it is not. Without Origin and Host it did not come from a browser."""
        host = request.headers.get(hdrs.HOST)
        if host is not None and not self._host_allowed(host):
            return f"the server does not go by the name {_shown(host)}; its host names are a setting"
        if len(request.headers.getall(hdrs.ORIGIN, [])) > 1:
            return "the request has several origins"
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or self._any or origin.lower() in self._origins or _same_origin(origin, host, request.secure):
            return None
        return f"pages of {_shown(origin)} may not use this server; the allowed origins are a setting"

    def _host_allowed(self, host: str) -> bool:
        if not self._loopback and not self._host_names:
            return True
        match = _HOST.fullmatch(host.lower())
        if match is None:
            return False
        name = match.group(1)
        if name in self._host_names or name == "localhost" or is_loopback_address(name.strip("[]")):
            return True
        # A name can be pointed anywhere, an address can't; but no other address leads to a loopback interface.
        return not self._loopback and _is_address(name.strip("[]"))


def origin_middleware(policy: OriginPolicy) -> Middleware:
    """Refuses by ``policy`` and answers preflights; goes before authentication, which preflights can't pass."""

    @web.middleware
    async def check_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
        objection = policy.objection(request)
        if objection is not None:
            return forbidden(objection)
        if _is_preflight(request):
            return web.Response(status=204, headers=_PREFLIGHT_HEADERS)
        return await handler(request)

    return check_origin


def install_origins(app: web.Application, policy: OriginPolicy, position: int = 0) -> None:
    """Put the policy at ``position`` among the middlewares of ``app`` and its CORS headers on every answer."""
    app.middlewares.insert(position, origin_middleware(policy))

    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        # As a signal, since a streamed answer has left by the time that a middleware sees it.
        if CORS_PATHS.fullmatch(request.path) is None:
            return
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and policy.objection(request) is None:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = hdrs.RETRY_AFTER

    app.on_response_prepare.append(add_headers)


def _is_preflight(request: web.Request) -> bool:
    return (
        request.method == hdrs.METH_OPTIONS
        and hdrs.ORIGIN in request.headers
        and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        and CORS_PATHS.fullmatch(request.path) is not None
    )


def _same_origin(origin: str, host: str | None, secure: bool) -> bool:
    """Whether a page that the server itself gave out calls; browsers leave a default port out of both headers."""
    scheme, _, place = origin.lower().partition("://")
    # Behind a proxy that ends TLS we see http and the page https; the other way round is never the same.
    schemes = ("https",) if secure else ("http", "https")
    return host is not None and scheme in schemes and place == host.lower()


def _normal_origin(text: str) -> str:
    match = _ORIGIN.fullmatch(text.lower())
    if match is None or int(match.group(3) or 0) > 65535:
        form = (
            "`https://app.example.com` or `http://localhost:3000`: scheme, host, port if it is not the usual, no path"
        )
        raise OriginError(f"the origin {text!r} is not of the form {form}")
    scheme, name, port = match.groups()
    return f"{scheme}://{name}" + (f":{port}" if port and port != _DEFAULT_PORTS.get(scheme) else "")


def _normal_name(text: str) -> str:
    if re.fullmatch(_NAME, text.lower()) is None:
        raise OriginError(f"the host name {text!r} is not of the form `speech.example.com`: no scheme, no port")
    return text.lower()


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _shown(header: str) -> str:
    return repr(header[:100])
