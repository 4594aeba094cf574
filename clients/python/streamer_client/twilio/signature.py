"""Whether a request really comes from Twilio."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping


def valid_signature(auth_token: str, signature: str, url: str, parameters: Mapping[str, str] | None = None) -> bool:
    """Check the header `X-Twilio-Signature` of a webhook or of a media stream's WebSocket handshake.

    `url` is the public one, as Twilio was told it, scheme and query included; `parameters` are those of a POST form.
    https://www.twilio.com/docs/usage/security
    """
    signed = url + "".join(name + value for name, value in sorted((parameters or {}).items()))
    digest = hmac.new(auth_token.encode(), signed.encode(), hashlib.sha1).digest()
    return hmac.compare_digest(base64.b64encode(digest), signature.encode())
