"""The body of an HTTP refusal, in the shape that OpenAI's clients read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from aiohttp import web

RefusalType = Literal[
    "authentication_error", "permission_error", "invalid_request_error", "rate_limit_error", "server_error"
]


def refusal(
    status: int,
    code: str,
    message: str,
    type_: RefusalType,
    *,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """``{"error": {"message", "type", "param", "code"}}`` with this status. ``param`` names the field at fault."""
    body = {"error": {"message": message, "type": type_, "param": param, "code": code}}
    return web.json_response(body, status=status, headers=headers)


def forbidden(message: str) -> web.Response:
    """403: known or not, the caller may not do this."""
    return refusal(403, "forbidden", message, "permission_error")
