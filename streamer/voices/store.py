"""Uploaded voices on disk: codes in files, everything else in an SQLite index, whole after a crash at any moment.

A voice exists once its row is committed. Its file is written under a temporary name, synced and renamed before that,
so a crash leaves at worst a file without a row, which the next start removes. SQLite keeps its plain rollback journal:
there are few writes and nobody reads meanwhile, so a write-ahead log would bring two more files and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import logging
import os
import re
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from streamer.voices.voice import Voice, VoiceError

_log = logging.getLogger(__name__)
_VERSION = 2
_SCHEMA = f"""
CREATE TABLE voices (
    id TEXT PRIMARY KEY,
    file TEXT NOT NULL UNIQUE,
    sha256 TEXT NOT NULL,
    transcript TEXT NOT NULL,
    origin TEXT NOT NULL,
    licence TEXT NOT NULL,
    language TEXT NOT NULL,
    description TEXT NOT NULL,
    consent_by TEXT NOT NULL,
    consent_at_s REAL NOT NULL,
    codec TEXT NOT NULL DEFAULT ''
);
PRAGMA user_version = {_VERSION};
"""
_FROM_VERSION_1 = f"""
ALTER TABLE voices ADD COLUMN codec TEXT NOT NULL DEFAULT '';
PRAGMA user_version = {_VERSION};
"""
_TEXTS = ("transcript", "origin", "licence", "language", "description", "codec")
# Only names of our own making are ever removed.
_OURS = re.compile(r"[a-z0-9_-]{1,64}\.[0-9a-f]{16}\.npy(\.tmp)?")
_BUSY_S = 10.0
# EFBIG: the limit on a file's size that a process may be given.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class StoreError(VoiceError):
    """The store can't do it: ``voice_exists``, ``storage_full`` or ``storage_failed``. Nothing of it was kept."""


@dataclass(frozen=True, slots=True)
class Consent:
    """Who declared, and when (seconds since 1970), that the speaker agrees to the use of the voice."""

    given_by: str
    given_at_s: float


class VoiceStore:
    """The uploaded voices in ``folder``. Any thread, and several processes at once; each call opens the index anew.

    Construction makes the folder and repairs what a crash has left. Raises StoreError ``storage_failed`` for a folder
    that can't be used.
    """

    def __init__(self, folder: Path) -> None:
        self._index_path = folder / "voices.sqlite3"
        self._codes = folder / "codes"
        with self._failing_as_store_error(f"{folder}: can't be used for voices"):
            self._codes.mkdir(parents=True, exist_ok=True)
            with self._transaction() as index:
                self._create(index)
                self._reconcile(index)

    def voices(self) -> Sequence[Voice]:
        """All voices, oldest first. One whose file was damaged is left out and logged; it can still be removed."""
        voices = []
        with self._failing_as_store_error("the voices can't be read"), self._transaction() as index:
            for row in index.execute("SELECT * FROM voices ORDER BY consent_at_s, id"):
                try:
                    voices.append(self._read(row))
                except (OSError, ValueError, VoiceError) as error:
                    _log.error("voice %s can't be read: %s", row["id"], error)
        return voices

    def add(self, voice: Voice, consent: Consent) -> None:
        """Keep a voice; when this returns, it survives a power cut. StoreError, ``voice_exists`` if its id is taken."""
        data = _to_bytes(voice.codes)
        path = self._codes / f"{voice.id}.{secrets.token_hex(8)}.npy"
        row = {
            "id": voice.id,
            "file": path.name,
            "sha256": hashlib.sha256(data).hexdigest(),
            **{name: getattr(voice, name) for name in _TEXTS},
            "consent_by": consent.given_by,
            "consent_at_s": consent.given_at_s,
        }
        with self._failing_as_store_error(f"voice {voice.id} can't be stored"):
            try:
                with self._transaction() as index:
                    if index.execute("SELECT 1 FROM voices WHERE id = ?", [voice.id]).fetchone():
                        raise StoreError("voice_exists", f"voice {voice.id}: there is a voice of this id already")
                    _write_durably(path, data)
                    columns, places = ", ".join(row), ", ".join("?" * len(row))
                    index.execute(f"INSERT INTO voices ({columns}) VALUES ({places})", list(row.values()))
            except BaseException:
                path.unlink(missing_ok=True)
                raise

    def remove(self, voice_id: str) -> bool:
        """Forget a voice; False if there is none of this id. StoreError."""
        with self._failing_as_store_error(f"voice {voice_id[:80]} can't be removed"):
            with self._transaction() as index:
                row = index.execute("SELECT file FROM voices WHERE id = ?", [voice_id]).fetchone()
                index.execute("DELETE FROM voices WHERE id = ?", [voice_id])
            if row:
                # The row goes first: a file that stays behind is removed at the next start.
                (self._codes / row["file"]).unlink(missing_ok=True)
            return row is not None

    def consent(self, voice_id: str) -> Consent | None:
        """The consent given for a voice; None if there is none of this id."""
        with self._failing_as_store_error("the voices can't be read"), self._transaction() as index:
            row = index.execute("SELECT consent_by, consent_at_s FROM voices WHERE id = ?", [voice_id]).fetchone()
            return Consent(*row) if row else None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; other writers, in other processes too, wait for it."""
        # isolation_level None leaves the beginning of transactions to the statement below.
        with closing(sqlite3.connect(self._index_path, timeout=_BUSY_S, isolation_level=None)) as index:
            index.row_factory = sqlite3.Row
            # Syncs the folder too, so that a committed row is not undone by a journal that comes back.
            index.execute("PRAGMA synchronous = EXTRA")
            index.execute("BEGIN IMMEDIATE")
            try:
                yield index
                index.execute("COMMIT")
            finally:
                if index.in_transaction:
                    index.execute("ROLLBACK")

    def _create(self, index: sqlite3.Connection) -> None:
        version = index.execute("PRAGMA user_version").fetchone()[0]
        script = {0: _SCHEMA, 1: _FROM_VERSION_1, _VERSION: ""}.get(version)
        if script is None:
            raise StoreError(
                "storage_failed", f"{self._index_path}: made by another version of this server ({version})"
            )
        for statement in script.split(";"):
            index.execute(statement)

    def _reconcile(self, index: sqlite3.Connection) -> None:
        rows = {row["file"]: row["id"] for row in index.execute("SELECT id, file FROM voices")}
        files = {path.name for path in self._codes.iterdir()}
        for name in files - rows.keys():
            if _OURS.fullmatch(name):
                (self._codes / name).unlink()
                _log.warning("%s belonged to an upload that was broken off: removed", name)
        for name in rows.keys() - files:
            index.execute("DELETE FROM voices WHERE file = ?", [name])
            _log.warning("voice %s has lost its file: removed", rows[name])

    def _read(self, row: sqlite3.Row) -> Voice:
        data = (self._codes / row["file"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise ValueError(f"{row['file']} is damaged")
        codes = np.load(io.BytesIO(data), allow_pickle=False).astype(np.int64)
        return Voice(row["id"], torch.from_numpy(codes), **{name: row[name] for name in _TEXTS})

    @contextlib.contextmanager
    def _failing_as_store_error(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            # SQLite's own word for it; its error codes came to Python with 3.11.
            full = "disk is full" in str(error) or (isinstance(error, OSError) and error.errno in _FULL)
            if full:
                raise StoreError("storage_full", f"{what}: the disk is full") from error
            raise StoreError("storage_failed", f"{what} ({error})") from error


def _to_bytes(codes: torch.Tensor) -> bytes:
    file = io.BytesIO()
    np.save(file, codes.numpy().astype(np.int32), allow_pickle=False)
    return file.getvalue()


def _write_durably(path: Path, data: bytes) -> None:
    """``path`` with ``data``, or no file at all; synced, its name included."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
