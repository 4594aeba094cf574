"""API keys: named, hashed at rest, one JSON object a line; and who a caller is once a key has been checked."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec

KEY_PREFIX = "ds_"
Scope = Literal["dialogue", "speech", "voices:read", "voices:write", "tokens", "metrics"]
SCOPES: frozenset[Scope] = frozenset(get_args(Scope))
DEFAULT_SCOPES: tuple[Scope, ...] = ("dialogue", "speech", "voices:read")
MAX_SESSIONS = 1_000_000

_KEY = re.compile(r"ds_[A-Za-z0-9_-]{43}")
_log = logging.getLogger(__name__)

KeyName = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+(?![\s\S])")]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: ``name`` is that of the API key, also for a token made with it; ``expires_at_s`` is Unix time."""

    name: str
    kind: Literal["key", "token", "open"]
    scopes: frozenset[Scope]
    max_sessions: int | None
    expires_at_s: float | None


class KeyRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line of the file. ``max_sessions`` takes the place of the server's limit of sessions for each key."""

    name: KeyName
    hash: Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}(?![\s\S])")]
    created: datetime
    scopes: tuple[Scope, ...] = DEFAULT_SCOPES
    max_sessions: Annotated[int, msgspec.Meta(ge=1, le=MAX_SESSIONS)] | None = None

    @property
    def identity(self) -> Identity:
        """Who calls with this key."""
        return Identity(self.name, "key", frozenset(self.scopes), self.max_sessions, None)


KeyFileErrorCode = Literal["invalid_keys_file", "invalid_key", "unknown_key", "duplicate_key"]


class KeyFileError(Exception):
    """The file of keys can't be used or changed so; the message says what was wrong, where, and what to do."""

    def __init__(self, code: KeyFileErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class KeyRing:
    """The keys of a file, read anew whenever it has changed: a revoked key stops working at once.

    A file that is gone holds no keys. One that can't be read any more is reported to the log, and its last good
    content goes on. Not for several threads.
    """

    @classmethod
    def from_file(cls, path: Path) -> KeyRing:
        """Raises KeyFileError if the file is missing or wrong."""
        ring = cls(path)
        ring._seen = _signature(path)
        if ring._seen is None:
            text = f"keys file {path}: there is none; make one with `streamer keys add NAME --file {path}`"
            raise KeyFileError("invalid_keys_file", text)
        ring._records = {record.name: record for record in read_keys(path)}
        return ring

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: dict[str, KeyRecord] = {}
        self._seen: tuple[int, ...] | None = None

    def check(self, key: str) -> Identity | None:
        """Who has this key, or None."""
        self._refresh()
        if _KEY.fullmatch(key) is None:
            return None
        digest = _hash(key)
        found: KeyRecord | None = None
        # All are compared, and in constant time: how long it takes says nothing about any of them.
        for record in self._records.values():
            if hmac.compare_digest(record.hash, digest):
                found = record
        return None if found is None else found.identity

    def record(self, name: str) -> KeyRecord | None:
        """The key of this name as it stands now, or None."""
        self._refresh()
        return self._records.get(name)

    def __len__(self) -> int:
        self._refresh()
        return len(self._records)

    def _refresh(self) -> None:
        signature = _signature(self._path)
        if signature == self._seen:
            return
        # Noted first, so that a broken file is reported once and not with every request.
        self._seen = signature
        try:
            self._records = {record.name: record for record in read_keys(self._path)}
        except KeyFileError as error:
            _log.error("the keys stay as they were: %s", error)


def read_keys(path: Path) -> list[KeyRecord]:
    """The keys in the file's order; none if there is no file. Raises KeyFileError, which never quotes a line."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o022:
                text = f"keys file {path}: others can write it; run `chmod 600 {path}`"
                raise KeyFileError("invalid_keys_file", text)
            lines = file.read().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        text = f"keys file {path}: {error.strerror}; name a file that this user can read"
        raise KeyFileError("invalid_keys_file", text) from error
    records: dict[str, KeyRecord] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = msgspec.json.decode(line, type=KeyRecord)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            text = f"keys file {path}, line {number}: {error}; mend or remove the line"
            raise KeyFileError("invalid_keys_file", text) from None
        if record.name in records:
            text = f"keys file {path}, line {number}: there is a key {record.name} already; remove one of them"
            raise KeyFileError("invalid_keys_file", text)
        records[record.name] = record
    return list(records.values())


def add_key(
    path: Path, name: str, scopes: Iterable[Scope] = DEFAULT_SCOPES, max_sessions: int | None = None
) -> tuple[str, KeyRecord]:
    """Make a key and write it down; gives the key, which is kept nowhere, and its line. Raises KeyFileError."""
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    created = datetime.now(timezone.utc).replace(microsecond=0)
    with _locked(path):
        records = read_keys(path)
        if any(record.name == name for record in records):
            text = f"keys file {path}: there is a key {name} already; revoke it first or take another name"
            raise KeyFileError("duplicate_key", text)
        fields = {"name": name, "hash": _hash(key), "created": created, "scopes": sorted(set(scopes))}
        try:
            record = msgspec.convert(fields | {"max_sessions": max_sessions}, KeyRecord)
        except msgspec.ValidationError as error:
            raise KeyFileError("invalid_key", f"the key {name!r} can't be made: {error}") from None
        _write(path, [*records, record])
    return key, record


def revoke_key(path: Path, name: str) -> None:
    """Forget a key; raises KeyFileError if there is none of that name."""
    with _locked(path):
        records = read_keys(path)
        kept = [record for record in records if record.name != name]
        if len(kept) == len(records):
            names = ", ".join(record.name for record in records) or "none"
            raise KeyFileError("unknown_key", f"keys file {path}: there is no key {name}; it has {names}")
        _write(path, kept)


def _hash(key: str) -> str:
    # A key is 256 random bits: there is nothing to guess, so a slow, salted hash would only cost time.
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other commands from changing the file; the lock is on its folder, since the file itself gets replaced."""
    try:
        folder = os.open(path.resolve().parent, os.O_RDONLY)
    except OSError as error:
        text = f"keys file {path}: {error.strerror}; make its folder first"
        raise KeyFileError("invalid_keys_file", text) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write(path: Path, records: list[KeyRecord]) -> None:
    """Replace the file as a whole, keeping owner and mode, so that a server under another user still reads it."""
    path = path.resolve()
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
            with contextlib.suppress(FileNotFoundError):
                old = path.stat()
                if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
                os.fchmod(file.fileno(), old.st_mode & 0o644)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        draft.unlink(missing_ok=True)
        text = f"keys file {path}: {error.strerror}; nothing was changed"
        raise KeyFileError("invalid_keys_file", text) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
