"""Signed, expiring claims: what resume tokens and client tokens are made of."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from itsdangerous import BadData, URLSafeSerializer

MAX_TOKEN_CHARS = 256
MIN_SECRET_BYTES = 32

TokenErrorCode = Literal["invalid_token", "expired_token"]


class TokenError(Exception):
    """A token that does not hold; ``code`` is ``invalid_token`` or ``expired_token``. The message never quotes it."""

    def __init__(self, code: TokenErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class SecretError(Exception):
    """The secret file can't be used; the message names it and says what to do."""

    code = "invalid_secret_file"


class Signer:
    """Signs claims for a purpose; what is signed for one purpose does not hold for another.

    HMAC-SHA256 by itsdangerous, under a key derived from ``secret`` (at least 32 bytes) and the purpose. Claims can be
    read by whoever holds the token. One signature can be spelled in several ways: the text of a token names nothing,
    put an id among the claims for that. ``clock`` gives Unix seconds.
    """

    def __init__(self, secret: bytes, *, clock: Callable[[], float] = time.time) -> None:
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"the secret has {len(secret)} bytes, expected at least {MIN_SECRET_BYTES}")
        self.clock = clock
        signer = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}
        self._serializer = URLSafeSerializer(secret, signer_kwargs=signer)

    def sign(self, purpose: str, claims: dict[str, Any], ttl_s: float) -> str:
        """A URL-safe token of at most 256 characters that holds for ``ttl_s`` from now.

        ValueError if the claims are too long for that, or if ``ttl_s`` is not above 0 and finite.
        """
        if not 0 < ttl_s < math.inf:
            raise ValueError(f"ttl_s is {ttl_s}, expected more than 0")
        # The end is signed, not the beginning: a clock set back then makes no new token look like one from the future.
        expires_ms = math.ceil((self.clock() + ttl_s) * 1000)
        token = str(self._serializer.dumps([expires_ms, claims], salt=_salt(purpose)))
        if len(token) > MAX_TOKEN_CHARS:
            raise ValueError(f"the token for {purpose} has {len(token)} characters, at most {MAX_TOKEN_CHARS} may be")
        return token

    def verify(self, purpose: str, token: str) -> dict[str, Any]:
        """The claims of a token, or TokenError; nothing else is raised, whatever ``token`` holds."""
        # A text that is not ASCII can't even be given to the signature check.
        if not isinstance(token, str) or not token.isascii() or not 0 < len(token) <= MAX_TOKEN_CHARS:
            raise TokenError("invalid_token", "the token is not one of this server")
        try:
            payload = self._serializer.loads(token, salt=_salt(purpose))
        except BadData:
            raise TokenError("invalid_token", "the token is not one of this server") from None
        match payload:
            case [int(expires_ms), dict(claims)]:
                pass
            case _:
                # Signed with our secret, by some other version.
                raise TokenError("invalid_token", "the token is of another version of this server")
        if self.clock() * 1000 >= expires_ms:
            raise TokenError("expired_token", "the token has expired; ask for a new one")
        return claims


def load_secret(path: Path | None) -> bytes:
    """The secret that tokens are signed with: random if ``path`` is None, else the file's content.

    A missing file is made, readable by its owner alone; of several processes that start at once, all get the same.
    Raises SecretError.
    """
    if path is None:
        return secrets.token_bytes(MIN_SECRET_BYTES)
    try:
        if not path.exists():
            _create(path)
        with path.open("rb") as file:
            _refuse_readable_by_others(path, os.fstat(file.fileno()))
            secret = file.read(4097).rstrip(b"\r\n")
    except OSError as error:
        raise SecretError(f"secret file {path}: {error.strerror}; name a file that this user can read") from error
    if not MIN_SECRET_BYTES <= len(secret) <= 4096:
        raise SecretError(
            f"secret file {path}: {len(secret)} bytes, expected 32 to 4096 random ones; delete it to have one made"
        )
    return secret


def _salt(purpose: str) -> bytes:
    return b"streamer." + purpose.encode()


def _create(path: Path) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_urlsafe(MIN_SECRET_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        # A link fails where a rename would replace: the first process wins, whole, and the others read its file.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


def _refuse_readable_by_others(path: Path, status: os.stat_result) -> None:
    # A file that is root's and ours to read through the group is how containers mount secrets.
    forbidden = 0o027 if status.st_uid == 0 != os.geteuid() else 0o077
    if status.st_mode & forbidden:
        mode = status.st_mode & 0o777
        raise SecretError(f"secret file {path}: others can reach it (mode {mode:o}); run `chmod 600 {path}`")
