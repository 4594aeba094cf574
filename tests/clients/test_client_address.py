"""Addresses as users type them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from streamer_client import HandshakeError, dialogue_url
from streamer_client.address import is_loopback


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ws://127.0.0.1:8000/v1/dialogue", "ws://127.0.0.1:8000/v1/dialogue"),
        ("127.0.0.1:8000", "ws://127.0.0.1:8000/v1/dialogue"),
        ("localhost:8000/", "ws://localhost:8000/v1/dialogue"),
        ("http://host", "ws://host/v1/dialogue"),
        ("https://host/", "wss://host/v1/dialogue"),
        ("wss://host/behind/proxy?x=1#y", "wss://host/behind/proxy?x=1"),
        ("[::1]:8000", "ws://[::1]:8000/v1/dialogue"),
    ],
)
def test_an_address_is_completed(typed: str, meant: str) -> None:
    assert dialogue_url(typed) == meant


@pytest.mark.parametrize("typed", ["", "ftp://host", "ws://", "host:port", "host:99999", "ws://:8000", "ws://[::1"])
def test_what_is_no_address_says_how_one_looks(typed: str) -> None:
    with pytest.raises(HandshakeError, match=r"ws://127\.0\.0\.1:8000/v1/dialogue"):
        dialogue_url(typed)


def test_only_this_machine_is_loopback() -> None:
    addresses = [
        "ws://127.0.0.1:1/",
        "ws://127.9.9.9/",
        "ws://[::1]/",
        "ws://localhost/",
        "ws://host/",
        "ws://10.0.0.1/",
    ]
    assert [is_loopback(address) for address in addresses] == [True, True, True, True, False, False]


def test_the_client_needs_neither_torch_nor_the_server() -> None:
    code = (
        "import sys, streamer_client; "
        "print({'torch', 'aiohttp', 'transformers', 'streamer', 'opuslib_next'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "set()"
