"""TLS by certificate files, read anew when they have changed."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

_log = logging.getLogger(__name__)


class TlsError(Exception):
    """The certificate can't be used; the message names the file and says what to do."""

    code = "invalid_certificate"


class ReloadingCertificate:
    """A certificate and its key; ``context`` serves what the files held at the latest handshake.

    ``key`` None: the key is in the file of the certificate. Files that changed into something unusable are reported to
    the log, and the last good certificate goes on. Raises TlsError if they are unusable from the start.
    """

    def __init__(self, cert: Path, key: Path | None, min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> None:
        self._cert = cert
        self._key = key
        self._min_version = min_version
        self._seen = self._signature()
        self.context = self._latest = self._load()
        # The first thing of a handshake that can be seen from here; it comes whether or not a name was sent.
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        signature = self._signature()
        if signature != self._seen:
            # Noted first, so that broken files are reported once and not with every handshake.
            self._seen = signature
            try:
                # A context of its own: one that fails to load may have lost its old key.
                self._latest = self._load()
                _log.info("the certificate %s was read anew", self._cert)
            except TlsError as error:
                _log.error("the certificate stays as it was: %s", error)
        connection.context = self._latest

    def _load(self) -> ssl.SSLContext:
        for path in (self._cert, self._key or self._cert):
            _refuse_unreadable(path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._min_version
        context.set_alpn_protocols(["http/1.1"])
        key = self._key or self._cert
        try:
            # Without this, an encrypted key asks for its password on the terminal.
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                text = f"the key in {key} is not that of the certificate in {self._cert}; name the pair"
            else:
                text = f"{self._cert} and {key} hold no certificate and key in PEM form ({error.reason or error})"
            raise TlsError(text) from error
        except OSError as error:
            raise TlsError(f"{self._cert}, {key}: {error.strerror or error}") from error
        return context

    def _signature(self) -> tuple[tuple[int, ...] | None, ...]:
        return tuple(_status(path) for path in (self._cert, self._key) if path is not None)


def server_context(
    cert: Path, key: Path | None, min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
) -> ssl.SSLContext:
    """A context for a server with the certificate chain in ``cert`` (PEM) that follows changes of the files.

    Raises TlsError.
    """
    return ReloadingCertificate(cert, key, min_version).context


def _no_password() -> str:
    raise TlsError("the key is encrypted, and there is nobody to ask for its password; store it without one")


def _refuse_unreadable(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise TlsError(f"{path}: {error.strerror}; name a PEM file that this user can read") from error


def _status(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino)
