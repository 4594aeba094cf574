"""TLS with certificates made by the openssl command, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from streamer.server.origins import OriginPolicy, install_origins
from streamer.server.tls import TlsError, server_context


def make_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for localhost under this common name, and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", str(key), "-out", str(cert))  # fmt: skip
    return cert, key


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@contextlib.asynccontextmanager
async def listening(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A server behind this context; gives its port."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="here")

    app = web.Application()
    app.add_routes([web.get("/", answer)])
    install_origins(app, OriginPolicy(loopback=True))
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def name_seen(port: int, trusted: Path, host: str = "localhost") -> str:
    """The common name of the certificate that a new connection gets, having checked it."""
    context = ssl.create_default_context(cafile=str(trusted))
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)
    subject = dict(pair[0] for pair in writer.get_extra_info("peercert")["subject"])
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b"here")
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
    return str(subject["commonName"])


async def test_a_client_that_trusts_the_certificate_talks_over_tls(tmp_path: Path) -> None:
    cert, key = make_pair(tmp_path, "first")
    async with listening(server_context(cert, key)) as port:
        trusting = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(cert)))
        async with aiohttp.ClientSession(connector=trusting) as client:
            async with client.get(f"https://localhost:{port}/") as response:
                assert await response.text() == "here"
        async with aiohttp.ClientSession() as client:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await client.get(f"https://localhost:{port}/")


async def test_a_renewed_certificate_is_served_without_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, old_key = make_pair(tmp_path, "old")
    new, new_key = make_pair(tmp_path, "new")
    served, served_key = tmp_path / "served.pem", tmp_path / "served.key"
    served.symlink_to(old)
    served_key.symlink_to(old_key)
    async with listening(server_context(served, served_key)) as port:
        assert await name_seen(port, old) == "old"
        served.unlink()
        served.symlink_to(new)
        # Between the two renames the pair does not fit: the old one goes on.
        assert await name_seen(port, old) == "old"
        assert await name_seen(port, old) == "old"
        assert [record.levelname for record in caplog.records if record.name == "streamer.server.tls"] == ["ERROR"]
        served_key.unlink()
        served_key.symlink_to(new_key)
        assert await name_seen(port, new) == "new"
        # An address goes into no name extension.
        assert await name_seen(port, new, host="127.0.0.1") == "new"
        served_key.unlink()
        assert await name_seen(port, new) == "new"


async def test_a_page_that_came_without_tls_is_not_the_servers_own(tmp_path: Path) -> None:
    cert, key = make_pair(tmp_path, "first")
    async with listening(server_context(cert, key)) as port:
        trusting = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(cert)))
        async with aiohttp.ClientSession(f"https://localhost:{port}", connector=trusting) as client:
            for scheme, status in (("https", 200), ("http", 403)):
                async with client.get("/", headers={"Origin": f"{scheme}://localhost:{port}"}) as response:
                    assert response.status == status


async def test_key_and_certificate_may_share_a_file(tmp_path: Path) -> None:
    cert, key = make_pair(tmp_path, "both")
    both = tmp_path / "both-in-one.pem"
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    async with listening(server_context(both, None)) as port:
        assert await name_seen(port, cert) == "both"


async def test_old_versions_of_tls_are_refused(tmp_path: Path) -> None:
    cert, key = make_pair(tmp_path, "first")
    async with listening(server_context(cert, key, ssl.TLSVersion.TLSv1_3)) as port:
        context = ssl.create_default_context(cafile=str(cert))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        assert await name_seen(port, cert) == "first"
    assert server_context(cert, key).minimum_version is ssl.TLSVersion.TLSv1_2


def test_files_that_can_not_serve_are_named(tmp_path: Path) -> None:
    cert, key = make_pair(tmp_path, "first")
    _, other_key = make_pair(tmp_path, "other")
    text, locked = tmp_path / "text.pem", tmp_path / "locked.key"
    text.write_text("no certificate")
    openssl("ec", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(locked))
    cases = {
        (tmp_path / "missing.pem", key): "missing.pem: No such file",
        (cert, tmp_path / "missing.key"): "missing.key: No such file",
        (tmp_path, key): "Is a directory",
        (cert, other_key): "other.key is not that of the certificate in",
        (text, key): "text.pem and .*first.key hold no certificate and key",
        (cert, text): "text.pem hold no certificate and key",
        (cert, locked): "encrypted",
        (cert, None): "first.pem hold no certificate and key",
    }
    for (cert_path, key_path), said in cases.items():
        with pytest.raises(TlsError, match=said):
            server_context(cert_path, key_path)
