"""Each message type, both ways, and each error code, over a real socket: what is in the protocol happens here."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import websockets
from msgspec.structs import replace
from server.test_server_words import embedded
from serving import LIMITS, RawClient, raw, running, started
from trials.company import SIZES, becomes
from trials.test_trials_faults import POISON, poisoned

from streamer.server import DialogueServer
from streamer.server.keys import add_key
from streamer_protocol import ClientMessage, ErrorCode, ServerMessage, message_type

TURN: dict[str, Any] = {"turn": "x", "speaker": "S1", "text": "Hello."}

Exchange = Callable[[Path], Awaitable[None]]
EXCHANGES: dict[ErrorCode, Exchange] = {}


def shows(code: ErrorCode) -> Callable[[Exchange], Exchange]:
    """This is the exchange in which the code comes."""

    def keep(exchange: Exchange) -> Exchange:
        EXCHANGES[code] = exchange
        return exchange

    return keep


@pytest.mark.parametrize("code", ErrorCode, ids=str)
async def test_an_error_code_comes_over_the_wire(code: ErrorCode, tmp_path: Path) -> None:
    await EXCHANGES[code](tmp_path)


async def answered(client: RawClient, code: ErrorCode, data: str | bytes, *, text: bool | None = None) -> None:
    """Whatever this is, it is answered with that code; the socket lives on unless the code says otherwise."""
    await client.socket.send(data, text=text)
    error = await client.until("error")
    assert (error["code"], error["fatal"]) == (code.value, code.fatal), error
    assert error["message"]
    if not code.fatal:
        await client.send("ping", id="alive")
        await client.until("pong", id="alive")
        return
    with pytest.raises(websockets.ConnectionClosed) as closed:
        await client.until("pong")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code.close_code


def message(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})


# What one message brings about, in a session that is open (started) or before (fresh).
FRESH: dict[ErrorCode, str | bytes] = {
    ErrorCode.SESSION_NOT_STARTED: message("session.close"),
    ErrorCode.UNKNOWN_VOICE: message("session.start", voices={"S1": "nobody"}),
    ErrorCode.NOT_SUPPORTED: message("session.start", words=True),
    ErrorCode.RESUME_FAILED: message("session.start", resume="a token of nobody's"),
}
STARTED: dict[ErrorCode, str | bytes] = {
    ErrorCode.INVALID_JSON: "{",
    ErrorCode.INVALID_MESSAGE: message("turn.create", turn="x", speaker="S9", text="Hello."),
    ErrorCode.BINARY_NOT_ALLOWED: b"\0\1",
    ErrorCode.MESSAGE_TOO_LARGE: message("ping").ljust(LIMITS.max_message_bytes + 1),
    ErrorCode.SESSION_ALREADY_STARTED: message("session.start"),
    ErrorCode.UNKNOWN_TURN: message("turn.cancel", turn="nobody"),
    ErrorCode.INVALID_SCRIPT: message("turn.create", **{**TURN, "text": "Hi. [S2] Ho."}),
    ErrorCode.TOO_MANY_SPEAKERS: message("script.append", text="[S1] Hi. [S6] Ho."),
    ErrorCode.NO_SPEECH: message("turn.create", **{**TURN, "text": "?!"}),
    ErrorCode.TEXT_TOO_LONG: message("turn.create", **{**TURN, "text": "a" * (LIMITS.max_text_chars + 1)}),
    ErrorCode.QUEUE_FULL: message("script.append", text="[S1]a[S2]b" * LIMITS.max_queued_turns),
}


def _one_message(code: ErrorCode, data: str | bytes, opening: Callable[[DialogueServer], Any]) -> None:
    @shows(code)
    async def _(_: Path) -> None:
        async with running() as server, opening(server) as client:
            await answered(client, code, data)


for _code, _data in FRESH.items():
    _one_message(_code, _data, raw)
for _code, _data in STARTED.items():
    _one_message(_code, _data, started)


@shows(ErrorCode.INVALID_UTF8)
async def _invalid_utf8(_: Path) -> None:
    async with running() as server, started(server) as client:
        await answered(client, ErrorCode.INVALID_UTF8, b'{"type":"ping","id":"\xff"}', text=True)


@shows(ErrorCode.DUPLICATE_TURN)
async def _duplicate_turn(_: Path) -> None:
    async with running() as server, started(server) as client:
        await client.send("turn.create", **TURN)
        await answered(client, ErrorCode.DUPLICATE_TURN, message("turn.create", **TURN))


@shows(ErrorCode.TOO_MANY_CONTEXTS)
async def _too_many_contexts(_: Path) -> None:
    async with running(replace(LIMITS, max_contexts=1)) as server, started(server) as client:
        await answered(client, ErrorCode.TOO_MANY_CONTEXTS, message("session.start", context="b"))


@shows(ErrorCode.OVERLOADED)
async def _overloaded(_: Path) -> None:
    async with running(max_sessions=1) as server, started(server), raw(server) as client:
        await answered(client, ErrorCode.OVERLOADED, message("session.start"))
        error = next(m for m in client.log if isinstance(m, dict) and m["type"] == "error")
        assert error["retry_after_ms"] > 0


@shows(ErrorCode.INTERNAL)
async def _internal(_: Path) -> None:
    async with running() as server, started(server) as client:
        with poisoned(server):
            await answered(client, ErrorCode.INTERNAL, message("turn.create", **{**TURN, "text": POISON}))


@shows(ErrorCode.SHUTTING_DOWN)
async def _shutting_down(_: Path) -> None:
    async with running() as server, started(server) as client:
        # A turn that is not over keeps the server from leaving.
        await client.send("turn.append", **TURN)
        await client.send("ping")
        await client.until("pong")
        stopping = asyncio.create_task(server.stop())
        await becomes(lambda: server.state.draining)
        await client.send("turn.create", turn="y", speaker="S1", text="And on.")
        error = await client.until("error", code="shutting_down")
        # Fatal would cut off the turns that may still finish.
        assert (error["turn"], error["fatal"]) == ("y", False)
        assert error["retry_after_ms"] > 0
        await client.send("turn.commit", turn="x")
        await client.spoken("x")
        await stopping


@contextlib.asynccontextmanager
async def keyed(folder: Path, *scopes: Any) -> AsyncIterator[tuple[DialogueServer, str]]:
    """A server with keys, and one of them."""
    path = folder / "keys"
    key = add_key(path, "ann", scopes or ("dialogue",), max_sessions=1)[0]
    async with running(settings={"keys_file": path}) as server:
        yield server, key


async def refused(server: DialogueServer, credential: str | None) -> tuple[int, str]:
    """Status and code by which the handshake is refused."""
    headers = {} if credential is None else {"Authorization": f"Bearer {credential}"}
    with pytest.raises(websockets.InvalidStatus) as caught:
        async with websockets.connect(server.url, additional_headers=headers):
            pass
    return caught.value.response.status_code, json.loads(caught.value.response.body)["error"]["code"]


@shows(ErrorCode.UNAUTHORIZED)
async def _unauthorized(folder: Path) -> None:
    async with keyed(folder) as (server, _):
        assert await refused(server, None) == (401, "unauthorized")


@shows(ErrorCode.FORBIDDEN)
async def _forbidden(folder: Path) -> None:
    async with keyed(folder, "speech") as (server, key):
        assert await refused(server, key) == (403, "forbidden")


@shows(ErrorCode.RATE_LIMITED)
async def _rate_limited(folder: Path) -> None:
    async with keyed(folder) as (server, _):
        answers = [await refused(server, "wrong") for _ in range(30)]
        assert answers[0] == (401, "unauthorized")
        assert answers[-1] == (429, "rate_limited")


@shows(ErrorCode.TOO_MANY_SESSIONS)
async def _too_many_sessions(folder: Path) -> None:
    async with keyed(folder) as (server, key):
        headers = {"Authorization": f"Bearer {key}"}
        async with websockets.connect(server.url, additional_headers=headers) as socket:
            client = RawClient(socket)
            await client.send("session.start")
            await client.until("session.ready")
            await answered(client, ErrorCode.TOO_MANY_SESSIONS, message("session.start", context="b"))


@shows(ErrorCode.HANDSHAKE_TIMEOUT)
async def _handshake_timeout(_: Path) -> None:
    async with running(replace(LIMITS, handshake_timeout_ms=50)) as server, raw(server) as client:
        await answered(client, ErrorCode.HANDSHAKE_TIMEOUT, message("ping"))


class Noting(RawClient):
    """A client that knows which message types it has sent."""

    sent: set[str]

    async def send(self, kind: str, **fields: Any) -> None:
        self.sent.add(kind)
        await super().send(kind, **fields)


async def test_every_message_type_is_sent_and_received() -> None:
    sent: set[str] = set()
    async with running(max_batch=1, **{k: v for k, v in SIZES.items() if k != "max_batch"}) as server:
        async with raw(server) as client, started(server) as other:
            noting = Noting(client.socket)
            noting.log, noting.sent = client.log, sent
            await noting.send("session.start", audio={"format": "pcm_s16le"})
            await noting.until("session.ready")
            await noting.send("ping", id="p")
            await noting.until("pong")
            await noting.send("turn.append", turn="a", speaker="S1", text="Hello there, ")
            await noting.send("turn.append", turn="a", text="you.")
            await noting.send("turn.commit", turn="a")
            await noting.until("session.idle")
            await noting.send("playback", played_ms=80)
            await noting.send("turn.cancel", played_ms=80)
            await noting.until("turn.truncated")
            for turn in ("b", "c", "d"):
                await other.send("turn.create", turn=turn, speaker="S2", text="The weather is so nice today.")
            await other.audio(1)
            # The only slot is taken.
            await noting.send("turn.create", turn="b", speaker="S2", text="And over there?")
            await noting.until("queued")
            await noting.send("script.append", script="s", text="[S1] Yes. [S2] No.")
            await noting.until("script.accepted")
            await noting.send("turn.commit", turn="a")
            await noting.until("error")
            await noting.send("session.close")
            await noting.until("session.closed")
            received = {*noting.types, *other.types} - {"audio"}
    async with embedded() as server, started(server, words=True, sampling={}) as client:
        await client.send("turn.create", **TURN)
        received.add((await client.until("turn.words"))["type"])
    assert sent == {message_type(kind) for kind in get_args(ClientMessage)}
    assert received == {message_type(kind) for kind in get_args(ServerMessage)}
