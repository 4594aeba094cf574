"""From what a user types to the WebSocket address of a dialogue."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import quote, urlsplit, urlunsplit

from streamer_client.errors import HandshakeError
from streamer_protocol import PATH

_SCHEMES = {"ws": "ws", "http": "ws", "wss": "wss", "https": "wss"}


def dialogue_url(url: str) -> str:
    """The full address: http(s) becomes ws(s), a bare host gets ws://, an empty path becomes /v1/dialogue.

    Raises HandshakeError for what is no address.
    """
    try:
        parts = urlsplit(url if "://" in url else f"ws://{url}")
        usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise HandshakeError(f"{url!r} is not a server address; one looks like ws://127.0.0.1:8000{PATH}")
    path = PATH if parts.path in ("", "/") else parts.path
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, path, parts.query, ""))


def with_token(address: str, token: str) -> str:
    """The address that carries a client token, the way browsers have to send it."""
    parts = urlsplit(address)
    query = "&".join(filter(None, [parts.query, f"token={quote(token.strip(), safe='')}"]))
    return urlunsplit(parts._replace(query=query))


def without_secrets(address: str) -> str:
    """The address as it may be shown: no query, no password."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


def is_loopback(url: str) -> bool:
    """Whether the address is this machine's own, where a proxy has no business."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
