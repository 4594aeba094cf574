"""A lost connection: the session lives on, and its client gets every message and frame once, in order."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import socket
import struct
from typing import Any

import numpy as np
import pytest
import websockets
from msgspec.structs import replace
from serving import GREEDY, LIMITS, WAIT_S, raw, running, started
from websockets.asyncio.client import ClientConnection as Socket
from websockets.exceptions import ConnectionClosed

from streamer.server import DialogueServer, outbox
from streamer_protocol import AudioFrame

SENTENCE = "The weather is so nice today, let us go for a walk."
START = {"audio": {"format": "pcm_s16le"}, "sampling": GREEDY, "seed": 1}
_LINGER = struct.pack("ii", 1, 0)


class Returning:
    """A client that counts what it has, and comes back for the rest."""

    def __init__(self, server: DialogueServer) -> None:
        self.server = server
        self.got: list[str | bytes] = []
        self.sent: list[dict[str, Any]] = []
        self.token: str | None = None
        self.last_frame: int | None = None
        self.messages_after = 0
        self.received = 0
        self._socket: Socket | None = None
        self._at_rest = False
        self._completed = 0

    @property
    def idle(self) -> bool:
        """Whether the server has reported every turn that was asked for, and said that it is idle since."""
        return self._at_rest and self._completed == len(self.sent)

    @property
    def socket(self) -> Socket:
        assert self._socket is not None
        return self._socket

    async def connect(self) -> dict[str, Any]:
        """Start, or go on; what the server has not got is sent again."""
        self._socket = await websockets.connect(
            self.server.url, subprotocols=[websockets.Subprotocol("dialogue.v1")], ping_interval=None
        )
        back = {"resume": self.token, "last_frame": self.last_frame, "messages_after": self.messages_after}
        await self._write("session.start", **(START if self.token is None else back))
        answer: dict[str, Any] = json.loads(await asyncio.wait_for(self.socket.recv(), WAIT_S))
        if answer["type"] == "session.ready":
            self.token = answer["resume_token"]
            for lost in self.sent[answer["received"] :]:
                await self._write(**lost)
        return answer

    async def send(self, kind: str, **fields: Any) -> None:
        self.sent.append({"kind": kind, **fields})
        await self._write(kind, **fields)

    async def _write(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def receive(self) -> str | bytes:
        data = await asyncio.wait_for(self.socket.recv(), WAIT_S)
        self.got.append(data)
        if isinstance(data, bytes):
            self.last_frame, self.messages_after = AudioFrame.unpack(data).frame, 0
            self._at_rest = False
        else:
            kind = json.loads(data)["type"]
            self._at_rest = kind == "session.idle"
            self._completed += kind == "turn.completed"
            self.messages_after += 1
        return data

    async def until(self, kind: str) -> None:
        while True:
            data = await self.receive()
            if isinstance(data, str) and json.loads(data)["type"] == kind:
                return

    async def until_pong(self) -> None:
        """What was sent before has been served."""
        await self._write("ping")
        while not isinstance(data := await self.socket.recv(), str) or json.loads(data)["type"] != "pong":
            pass

    async def cut(self) -> None:
        """Break the connection without a word; what is on its way is lost, what has been taken in is not."""
        raw_socket = self.socket.transport.get_extra_info("socket")
        # A reset instead of an orderly end.
        raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        self.socket.transport.abort()
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.receive()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hash of every message and frame that sessions have sent, in order."""
    hashes: list[str] = []
    pack = outbox.pack

    def recording(*arguments: Any, **options: Any) -> str | bytes:
        data = pack(*arguments, **options)
        hashes.append(digest(data))
        return data

    monkeypatch.setattr(outbox, "pack", recording)
    return hashes


def digest(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def audio(client: Returning) -> np.ndarray:
    payloads = [AudioFrame.unpack(data).payload for data in client.got if isinstance(data, bytes)]
    return np.frombuffer(b"".join(payloads), "<i2").astype(np.int32)


async def test_two_hundred_cuts_lose_nothing_and_repeat_nothing(told: list[str]) -> None:
    dice = random.Random(5)
    # Without pacing: nobody plays what comes.
    async with running(max_lead_s=None) as server:
        client = Returning(server)
        await client.connect()
        n_turns = 0
        for _ in range(200):
            if n_turns == 0 or client.idle:
                # At times cut off before it arrives.
                await client.send("turn.create", turn=f"t{n_turns}", speaker=f"S{n_turns % 2 + 1}", text=SENTENCE)
                n_turns += 1
            for _ in range(dice.choice([0, 1, 2, 3, 5])):
                if not client.idle:
                    await client.receive()
            await client.cut()
            answer = await client.connect()
            assert answer["type"] == "session.ready", answer
        while not client.idle:
            await client.receive()
        cut_audio = audio(client)
        assert [digest(data) for data in client.got] == told
        assert n_turns > 5

        told.clear()
        whole = Returning(server)
        await whole.connect()
        for i in range(n_turns):
            await whole.send("turn.create", turn=f"t{i}", speaker=f"S{i % 2 + 1}", text=SENTENCE)
            await whole.until("session.idle")
        # The same rows; grouped otherwise, the codec's sums differ in their last bit.
        assert len(audio(whole)) == len(cut_audio)
        assert np.abs(audio(whole) - cut_audio).max() <= 4
        await whole.send("session.close")
        await client.send("session.close")


async def test_what_was_sent_and_lost_is_asked_for_by_its_number() -> None:
    async with running() as server:
        client = Returning(server)
        assert (await client.connect())["received"] == 0
        await client.send("turn.create", turn="x", speaker="S1", text="Hello.")
        await client.send("turn.create", turn="x", speaker="S1", text="Again.")
        await client.until("error")
        await client.cut()
        answer = await client.connect()
        # A message that was refused has been taken, too.
        assert (answer["received"], answer["resumed"], answer["handle"]) == (2, True, 1)
        await client.until("session.idle")


async def test_a_session_pauses_while_nobody_is_there_and_ends_with_the_grace_time() -> None:
    limits = replace(LIMITS, resume_grace_ms=200)
    async with running(limits, max_unsent_frames=3) as server:
        client = Returning(server)
        await client.connect()
        await client.send("turn.create", turn="x", speaker="S1", text=SENTENCE)
        await client.until("turn.started")
        await client.cut()
        await asyncio.wait_for(server.state.sessions.wait_none(), WAIT_S)
        answer = await client.connect()
        assert answer["code"] == "resume_failed"
        assert "ended" in answer["message"]
        # The same socket can start anew.
        client.token = None
        await client._write("session.start")
        assert json.loads(await client.socket.recv())["resumed"] is False


async def test_a_token_is_good_once_and_for_its_session_alone() -> None:
    async with running() as server:
        client = Returning(server)
        first = await client.connect()
        await client.cut()
        second = await client.connect()
        assert first["resume_token"] != second["resume_token"]
        await client.send("playback", played_ms=0)
        await client.until_pong()
        assert first["session"] == second["session"]
        for token, context, word in [
            (first["resume_token"], "main", "spent"),
            (second["resume_token"], "other", "main"),
            (second["resume_token"][:-1] + "~", "main", "token"),
        ]:
            async with raw(server) as other:
                await other.send("session.start", context=context, resume=token)
                error = await other.until("error", code="resume_failed")
                assert word in error["message"]
        for last_frame, messages_after in [(7, 0), (None, 3)]:
            async with raw(server) as other:
                place = {"last_frame": last_frame, "messages_after": messages_after}
                await other.send("session.start", resume=second["resume_token"], **place)
                assert "last_frame" in (await other.until("error", code="resume_failed"))["message"]


async def test_a_token_is_good_until_the_next_one_has_arrived() -> None:
    async with running() as server:
        client = Returning(server)
        first = await client.connect()
        await client.cut()
        for _ in range(3):
            async with raw(server) as other:
                # Its session.ready is lost with the connection.
                await other.send("session.start", resume=first["resume_token"])
                await other.until("session.ready", resumed=True)
                other.socket.transport.abort()
        assert (await client.connect())["resumed"]


async def test_who_comes_back_takes_over_from_a_connection_that_is_still_open() -> None:
    async with running() as server, started(server) as client:
        token = client.log[0]["resume_token"] if isinstance(client.log[0], dict) else ""
        await client.send("turn.create", turn="x", speaker="S1", text=SENTENCE)
        await client.audio(2)
        async with raw(server) as second:
            await second.send("session.start", resume=token, last_frame=1)
            await second.until("session.ready", resumed=True)
            assert (await client.until("session.closed"))["reason"] == "resumed elsewhere"
            report = await second.spoken("x")
            assert [f.frame for f in second.frames] == list(range(2, report["frames"]))
            await client.send("turn.create", turn="y", speaker="S1", text="Hello.")
            await client.until("error", code="session_not_started")
            await client.send("session.start")
            await client.until("session.ready", resumed=False)


async def test_contexts_of_a_lost_socket_are_resumed_one_by_one() -> None:
    async with running() as server:
        tokens: dict[str, str] = {}
        async with raw(server) as client:
            for name in ("a", "b"):
                await client.send("session.start", context=name, **START)
                tokens[name] = (await client.until("session.ready"))["resume_token"]
                await client.send("turn.create", context=name, turn="x", speaker="S1", text=SENTENCE)
            client.socket.transport.abort()
        # On two sockets: a context belongs to none.
        for name in ("b", "a"):
            async with raw(server) as back:
                await back.send("session.start", context=name, resume=tokens[name])
                await back.until("session.ready", context=name, resumed=True)
                report = await back.spoken("x")
                assert [f.frame for f in back.frames] == list(range(report["frames"]))


async def test_a_goodbye_ends_the_session_at_once() -> None:
    async with running() as server:
        async with started(server) as client:
            await client.send("turn.create", turn="x", speaker="S1", text=SENTENCE)
            await client.audio(1)
        await asyncio.wait_for(server.state.sessions.wait_none(), WAIT_S)
        assert server.state.sessions.waiting == 0


async def test_without_grace_time_there_is_no_token() -> None:
    async with running(replace(LIMITS, resume_grace_ms=0)) as server:
        client = Returning(server)
        assert (await client.connect())["resume_token"] is None
        await client.send("turn.create", turn="x", speaker="S1", text=SENTENCE)
        await client.until("turn.started")
        await client.cut()
        await asyncio.wait_for(server.state.sessions.wait_none(), WAIT_S)


async def test_what_the_client_has_is_not_kept() -> None:
    """The pongs of an ordinary client are receipts, so that a long session takes no more memory than a short one."""
    async with running(replay_bytes=60_000) as server:
        client = Returning(server)
        await client.connect()
        (session,) = server.state.sessions.all()
        for i in range(4):
            await client.send("turn.create", turn=f"t{i}", speaker="S1", text=SENTENCE)
            await client.until("session.idle")
        assert sum(map(len, client.got)) > 3 * 60_000
        assert session.outbox.held_bytes <= 60_000
