"""`connect` and `open_connection`: from an address to dialogues."""

from __future__ import annotations

import ssl as tls
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random

from streamer_client.connection import Connection
from streamer_client.dialogue import Dialogue
from streamer_client.opening import Endpoint
from streamer_client.settings import ClientSettings
from streamer_client.starting import session_start
from streamer_protocol import AudioFormat, Mode, Sampling


@asynccontextmanager
async def open_connection(
    url: str,
    *,
    api_key: str | None = None,
    token: str | None = None,
    ssl: tls.SSLContext | None = None,
    resume: bool = True,
    open_timeout_s: float = 30.0,
    random: Random | None = None,
    settings: ClientSettings | None = None,
) -> AsyncIterator[Connection]:
    """Connect to a server; leaving the block closes the dialogues and the connection.

    `url` may leave out scheme and path ("127.0.0.1:8000"). `api_key` is sent in a header; `token`, a short-lived client
    token, in the address. `ssl` goes with wss:// addresses, for certificates that the system does not trust. With
    `resume`, a lost connection is made anew and the dialogues go on; `random` spreads the attempts. Raises
    HandshakeError if the server cannot be reached or refuses.
    """
    endpoint = Endpoint(url, api_key, token, ssl)
    connection = Connection(
        endpoint, settings or ClientSettings(), resume=resume, random=random or Random(), open_timeout_s=open_timeout_s
    )
    try:
        await connection.connected()
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def connect(
    url: str,
    *,
    voices: Mapping[str, str] | None = None,
    audio: AudioFormat | None = None,
    mode: Mode = "turns",
    language: str | None = None,
    words: bool = False,
    seed: int | None = None,
    sampling: Sampling | None = None,
    decode: bool = False,
    api_key: str | None = None,
    token: str | None = None,
    ssl: tls.SSLContext | None = None,
    resume: bool = True,
    open_timeout_s: float = 30.0,
    random: Random | None = None,
    settings: ClientSettings | None = None,
) -> AsyncIterator[Dialogue]:
    """Open a dialogue on a connection of its own; leaving the block closes both.

    `words` asks for the times of words, from models that know them. `decode` decodes Opus as it arrives, so that
    `Audio.pcm` is there. The other arguments are those of `open_connection`. Raises HandshakeError if the server
    cannot be reached or refuses, DialogueError if it refuses the session (unknown voice, overloaded, ...),
    LocalProtocolError for an argument out of range, OpusUnavailable if `decode` needs a libopus that is not there.
    """
    start = session_start("main", voices, audio, mode, language, words, seed, sampling)
    connection = open_connection(
        url,
        api_key=api_key,
        token=token,
        ssl=ssl,
        resume=resume,
        open_timeout_s=open_timeout_s,
        random=random,
        settings=settings,
    )
    async with connection as opened, opened.start(start, decode=decode) as dialogue:
        yield dialogue
