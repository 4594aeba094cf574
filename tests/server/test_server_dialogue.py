"""Dialogues over real sockets: what arrives, in what order, and that company changes nothing."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import numpy as np
import pytest
import torch
import websockets
from serving import GREEDY, LIMITS, WAIT_S, RawClient, raw, recorded, running, started
from support import decode_with_ffmpeg, load_codec, load_model

from streamer.models import FrameAssembler
from streamer_protocol import AudioFrame

SCRIPT = "[S1] Hello there. [S2] Hi, how are you? [S1] Very well."


def frames_of(rows: np.ndarray) -> torch.Tensor:
    """The frames (n, n_vq) that decoded rows complete."""
    config = load_model("delay-nvq4").config
    assembler = FrameAssembler(config.n_vq, config.audio_pad_code)
    frames = [assembler.push(row[1:]) for row in rows.tolist()]
    return torch.tensor([frame for frame in frames if frame is not None])


async def test_a_script_is_spoken_turn_by_turn_in_order() -> None:
    async with running() as server, started(server) as client:
        await client.send("script.append", script="a", text=SCRIPT)
        await client.until("session.idle")
        assert client.types == [
            "session.ready",
            "script.accepted",
            *["turn.started", "audio", "turn.completed"] * 3,
            "session.idle",
        ]
        messages = [m for m in client.log if isinstance(m, dict)]
        accepted, completed = messages[1], [m for m in messages if m["type"] == "turn.completed"]
        assert [(t["turn"], t["speaker"], t["text"]) for t in accepted["turns"]] == [
            ("a.1", "S1", "Hello there."),
            ("a.2", "S2", "Hi, how are you?"),
            ("a.3", "S1", "Very well."),
        ]
        assert [(m["turn"], m["index"]) for m in completed] == [("a.1", 0), ("a.2", 1), ("a.3", 2)]
        assert [f.frame for f in client.frames] == list(range(len(client.frames)))
        assert [m["first_frame"] for m in messages if m["type"] == "turn.started"] == [
            sum(m["frames"] for m in completed[:i]) for i in range(3)
        ]
        for report in completed:
            own = [f for f in client.frames if f.turn_index == report["index"]]
            assert len(own) == report["frames"]
            assert report["audio_ms"] == 80 * report["frames"]
            assert [f.last for f in own] == [False] * (len(own) - 1) + [True]
            assert report["ttfa_ms"] > 0
            assert report["rtf"] > 0


async def test_the_audio_is_the_codecs_whole_decode_of_all_turns() -> None:
    async with running() as server, started(server) as client:
        await client.send("script.append", text=SCRIPT)
        await client.until("session.idle")
        rows = [recorded(server).rows[request.seed] for request in recorded(server).requests]
        whole = load_codec().decode(torch.cat([frames_of(r) for r in rows])).numpy()
        assert len(rows) == 3
        np.testing.assert_allclose(client.pcm(), whole.clip(-1, 1), atol=1e-4)


async def test_the_first_turn_arrives_while_the_second_is_not_yet_generated() -> None:
    async with running() as server, started(server) as client:
        await client.send("script.append", script="a", text=SCRIPT)
        await client.audio(1)
        heard_so_far = client.types
        # The engine says so when it begins with a turn, so what came before that was heard before it was made.
        await client.until("turn.started", turn="a.2")
        assert heard_so_far == ["session.ready", "script.accepted", "turn.started", "audio"]
        assert client.types == [*heard_so_far, "turn.completed", "turn.started"]


async def test_each_turn_continues_from_the_audio_before_it() -> None:
    async with running() as server, started(server) as client:
        await client.send("script.append", text=SCRIPT)
        await client.until("session.idle")
        config = load_model("delay-nvq4").config
        first, second, third = recorded(server).requests
        rows = [recorded(server).rows[r.seed] for r in (first, second, third)]
        assert int(first.prompt_rows[-1, 0]) == config.audio_start_token_id
        for request, past in ((second, rows[:1]), (third, rows[:2])):
            audio = torch.cat([frames_of(r) for r in past])
            slots = int((request.prompt_rows[:, 0] == config.audio_assistant_gen_slot_token_id).sum())
            assert slots == len(audio)
            assert torch.equal(request.prompt_rows[-slots:, 1], audio[:, 0])
            # The rows that follow the prompt hold the rest of the last frames, as they were sent.
            new_rows = torch.from_numpy(recorded(server).rows[request.seed])
            for book in range(1, config.n_vq):
                assert torch.equal(new_rows[:book, 1 + book], audio[-book:, book])


async def speak(server: Any, number: int, sampling: dict[str, float], begun: asyncio.Event | None) -> RawClient:
    script = f"[S1] Hello number {number}. [S2] {'Good ' * (number % 3 + 1)}day."
    voices = {"S1": "one", "S2": "two"} if number % 2 else {"S1": "two"}
    async with started(server, voices=voices, seed=number, sampling=sampling) as client:
        await client.send("script.append", text=script)
        await client.audio(1 + number % 4)
        if begun is not None:
            begun.set()
        await client.until("session.idle")
        return client


@pytest.mark.parametrize("sampling", [GREEDY, {"audio_temperature": 0.9, "text_temperature": 0.4}])
async def test_eight_sessions_get_what_each_gets_alone(sampling: dict[str, float]) -> None:
    async with running() as server:
        tasks = []
        for number in range(8):
            # Each joins when the one before it is speaking: at a different row of everybody else.
            begun = asyncio.Event()
            tasks.append(asyncio.create_task(speak(server, number, sampling, begun)))
            await begun.wait()
        together = [await task for task in tasks]
        rows_together = dict(recorded(server).rows)
    assert len(rows_together) == 16
    for number in range(8):
        async with running() as alone:
            client = await speak(alone, number, sampling, None)
            for seed, rows in recorded(alone).rows.items():
                np.testing.assert_array_equal(rows_together[seed], rows)
            np.testing.assert_allclose(together[number].pcm(), client.pcm(), atol=1e-4)


async def test_script_mode_speaks_all_in_one_pass_as_one_turn() -> None:
    async with running() as server, started(server, mode="script") as client:
        await client.send("script.append", script="a", text=SCRIPT)
        await client.until("session.idle")
        assert client.types == [
            "session.ready", "script.accepted", "turn.started", "audio", "turn.completed", "session.idle"
        ]  # fmt: skip
        assert len(recorded(server).requests) == 1


async def test_single_turns_are_spoken_under_the_clients_ids() -> None:
    async with running() as server, started(server) as client:
        await client.send("turn.create", turn="x", speaker="S2", text="Hello there.")
        await client.send("turn.create", turn="y", speaker="S2", text="And again.")
        await client.until("turn.completed", turn="x")
        started_y = await client.until("turn.started", turn="y")
        assert (started_y["index"], started_y["speaker"]) == (1, "S2")
        await client.until("session.idle")


async def test_contexts_on_one_socket_are_dialogues_of_their_own() -> None:
    async with running() as server, raw(server) as client:
        fields: dict[str, Any] = {"audio": {"format": "pcm_s16le"}, "sampling": GREEDY, "seed": 1}
        handles = {}
        for name in ("a", "b"):
            await client.send("session.start", context=name, **fields)
            handles[name] = (await client.until("session.ready", context=name))["handle"]
            await client.send("script.append", context=name, text="[S1] Hello there.")
        idle: set[str] = set()
        while idle != {"a", "b"}:
            idle.add((await client.until("session.idle"))["context"])
        audio = {n: [f.payload for f in client.frames if f.handle == handles[n]] for n in ("a", "b")}
        numbers = {n: [f.frame for f in client.frames if f.handle == handles[n]] for n in ("a", "b")}
        assert numbers["a"] == numbers["b"] == list(range(len(audio["a"])))
        assert np.abs(as_pcm(audio["a"]) - as_pcm(audio["b"])).max() < 1e-4
        await client.send("session.close", context="a")
        await client.until("session.closed", context="a")
        await client.send("script.append", context="b", text="[S1] More.")
        await client.until("session.idle", context="b")


def as_pcm(payloads: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(payloads), "<i2").astype(np.float32) / 32768


async def test_a_closed_context_can_be_started_again() -> None:
    async with running() as server, started(server) as client:
        await client.send("script.append", text=SCRIPT)
        await client.audio(1)
        await client.send("session.close")
        closed = await client.until("session.closed")
        assert closed["reason"] == "closed by the client"
        await client.send("session.start")
        await client.until("session.ready")
        await client.send("turn.create", turn="x", speaker="S1", text="Hello.")
        assert (await client.until("turn.started"))["first_frame"] == 0
        await client.until("session.idle")


@pytest.mark.parametrize("frame_ms", [20, 40, 60, 80])
async def test_opus_packets_have_the_length_asked_for_and_decode_elsewhere(frame_ms: int) -> None:
    from streamer_protocol import OggOpusWriter

    audio = {"format": "opus", "frame_ms": frame_ms}
    async with running() as server, started(server, audio=audio) as client:
        await client.send("script.append", text=SCRIPT)
        await client.until("session.idle")
        reports = [m for m in client.log if isinstance(m, dict) and m["type"] == "turn.completed"]
        for report in reports:
            assert report["frames"] == -(-report["audio_ms"] // frame_ms)
        writer = OggOpusWriter(24_000)
        pages = b"".join(writer.packet(f.payload, frame_ms * 48) for f in client.frames) + writer.close()
        decoded = decode_with_ffmpeg(pages, 24_000)
        # What is left of the encoder's look-ahead is cut off at the front.
        assert abs(len(decoded) - len(client.frames) * frame_ms * 24) <= 312
        assert np.abs(decoded).max() > 0.01


async def test_mulaw_at_8_khz_is_the_same_speech() -> None:
    from support import decode_with_ffmpeg as decode

    async with running() as server:
        async with started(server) as plain, started(server, audio={"format": "mulaw"}) as phone:
            for client in (plain, phone):
                await client.send("turn.create", turn="x", speaker="S1", text="Hello there.")
                await client.until("session.idle")
        assert [len(f.payload) for f in phone.frames] == [640] * len(phone.frames)
        header = b".snd" + b"".join(n.to_bytes(4, "big") for n in (24, 0xFFFFFFFF, 1, 8000, 1))
        decoded = decode(header + b"".join(f.payload for f in phone.frames), 24_000)
        wide = plain.pcm()
        spectra = [np.abs(np.fft.rfft(x, 2**17))[: 3000 * 2**17 // 24_000] for x in (wide, decoded[: len(wide)])]
        assert np.corrcoef(spectra[0], spectra[1])[0, 1] > 0.95


async def test_a_seed_makes_speech_repeatable_and_no_seed_does_not() -> None:
    async with running() as server:
        takes = []
        for seed in (5, 5, None, None):
            start = {} if seed is None else {"seed": seed}
            async with raw(server) as client:
                await client.send("session.start", audio={"format": "pcm_s16le"}, **start)
                await client.send("turn.create", turn="x", speaker="S1", text="Hello there.")
                await client.until("session.idle")
                takes.append(client.pcm().tobytes())
        assert takes[0] == takes[1]
        assert takes[2] != takes[3]


async def test_session_ready_tells_what_holds() -> None:
    async with running() as server, raw(server) as client:
        await client.send("session.start", voices={"S1": "two"})
        ready = await client.until("session.ready")
        assert ready["voices"]["S1"] == "two"
        assert ready["limits"]["max_text_chars"] == LIMITS.max_text_chars
        assert ready["audio"] == {"format": "opus", "sample_rate": 24000, "frame_ms": 80, "bitrate": 32000}
        await client.send("ping", id="p1")
        assert (await client.until("pong"))["id"] == "p1"


async def test_messages_may_come_without_waiting_for_session_ready() -> None:
    async with running() as server, raw(server) as client:
        for kind, fields in (
            ("session.start", {"seed": 1}),
            ("turn.create", {"turn": "x", "speaker": "S1", "text": "Hello."}),
            ("session.close", {}),
        ):
            await client.socket.send(json.dumps({"type": kind, **fields}))
        await client.until("session.closed")
        assert client.types[0] == "session.ready"
        assert "error" not in client.types


async def test_a_reader_that_stops_holds_up_nobody_else() -> None:
    async with running(send_buffer_bytes=1024, max_unsent_frames=4) as server:
        narrow = socket.socket()
        # So little room on the way that the server feels it at once when nobody reads.
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.connect(("127.0.0.1", server.port))
        narrow.setblocking(False)
        async with websockets.connect(server.url, sock=narrow, max_queue=1, compression=None) as stalled:
            big = {"format": "pcm_s16le", "sample_rate": 48000}
            await stalled.send(json.dumps({"type": "session.start", "audio": big, "sampling": GREEDY}))
            for i in range(4):
                turn = {"type": "turn.create", "turn": f"t{i}", "speaker": "S1", "text": "Hello, how are you?"}
                await stalled.send(json.dumps(turn))
            async with started(server) as client:
                await client.send("script.append", text=SCRIPT)
                await client.until("session.idle")
                # The script's turns are made; of the stalled session not even the first is.
                assert len(recorded(server).rows) == 3
            received = 0
            kinds: list[str] = []
            while not kinds or kinds[-1] != "session.idle":
                data = await asyncio.wait_for(stalled.recv(), WAIT_S)
                if isinstance(data, bytes):
                    assert AudioFrame.unpack(data).frame == received
                    received += 1
                else:
                    kinds.append(json.loads(data)["type"])
            assert kinds.count("turn.completed") == 4
