"""The load generator and what is measured with it: it must not flatter the server, nor miss what goes wrong."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.front_end import Measurement, measure, turn_text
from bench.load import Listener, Load, LoadConfig, Player
from bench.server import main as bench_server
from bench.serving import served
from streamer.commands.bench import longest_underrun_ms
from streamer.null_engine import NullConfig
from streamer.server import DialogueServer, ServerConfig
from streamer.speech import Speech, SpeechConfig
from streamer_protocol import AudioFrame, AudioKind

PCM = {"format": "pcm_s16le", "sample_rate": 24_000, "frame_ms": 80}


def test_the_players_clock_is_that_of_streamer_bench() -> None:
    dice = random.Random(5)
    for _ in range(50):
        now_s, arrivals, player = 0.0, [], Player()
        for _ in range(40):
            now_s += dice.choice([0.0, 0.02, 0.08, 0.3])
            arrivals.append((now_s, 80.0))
            player.play(now_s, 0.08)
        assert player.longest_underrun_s * 1000 == pytest.approx(longest_underrun_ms(arrivals))
        assert player.received_s == pytest.approx(40 * 0.08)


def server_frame(opcode: int, data: bytes) -> bytes:
    n = len(data)
    length = bytes([n]) if n < 126 else struct.pack("!BH", 126, n) if n < 2**16 else struct.pack("!BQ", 127, n)
    return bytes([0x80 | opcode]) + length + data


def audio(number: int, size: int) -> bytes:
    frame = AudioFrame(handle=1, turn_index=0, frame=number, kind=AudioKind.PCM_S16LE, payload=b"x" * size)
    return server_frame(2, frame.pack())


def completed(frames: int, reason: str = "end") -> bytes:
    return server_frame(1, json.dumps({"type": "turn.completed", "frames": frames, "reason": reason}).encode())


def listener() -> Listener:
    ours, theirs = socket.socketpair()
    theirs.close()
    return Listener(ours, 0.08, [])


@pytest.mark.parametrize("piece_bytes", [1, 7, 5000, 10**6])
def test_a_listener_counts_the_same_however_the_bytes_come(piece_bytes: int) -> None:
    data = b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n"
    data += audio(0, 50) + audio(1, 3840) + audio(2, 70_000) + completed(3)
    one = listener()
    for i in range(0, len(data), piece_bytes):
        one.receive(data[i : i + piece_bytes], now_s=1.0)
    assert (one.n_frames, one.done, one.error, bytes(one.buffer)) == (3, True, None, b"")
    one.socket.close()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "503"),
        (b"HTTP/1.1 101 x\r\n\r\n" + audio(0, 50) + audio(2, 50), "frame 2 came where 1 was due"),
        (b"HTTP/1.1 101 x\r\n\r\n" + audio(0, 50) + completed(2), "after 1 frames"),
        (b"HTTP/1.1 101 x\r\n\r\n" + audio(0, 50) + completed(1, "cancelled"), "cancelled"),
        (b"HTTP/1.1 101 x\r\n\r\n" + server_frame(1, b'{"type": "error", "message": "all taken"}'), "all taken"),
        (b"HTTP/1.1 101 x\r\n\r\n" + server_frame(8, b"\x03\xe8"), "closed"),
    ],
)
def test_what_goes_wrong_is_an_error_of_its_listener(data: bytes, error: str) -> None:
    one = listener()
    one.receive(data, now_s=1.0)
    assert one.error is not None
    assert error in one.error
    assert one.done
    one.socket.close()


async def test_a_load_hears_whole_turns_of_a_real_server() -> None:
    # Everything at once: the null model's burst is longer than the turn.
    speech = await asyncio.to_thread(Speech.load, SpeechConfig(null=NullConfig(burst_frames=100)))
    speech.engine.start()
    try:
        async with DialogueServer(speech, ServerConfig(port=0, drain_s=0)) as server:
            for format, rate in (("pcm_s16le", 24_000), ("mulaw", 8_000), ("opus", 24_000)):
                config = LoadConfig(server.url, {"format": format, "sample_rate": rate, "frame_ms": 80}, "one two")
                load = Load(config)

                def listen(load: Load = load) -> None:
                    load.open(3)
                    load.read_to_the_end()

                await asyncio.to_thread(listen)
                assert [one.error for one in load.listeners] == [None] * 3
                # 2 s and three times the usual 0.45 s that six letters take.
                assert {one.n_frames for one in load.listeners} == {int((2 + 3 * 0.45) * 12.5)}
                assert all(one.ttfa_s is not None for one in load.listeners)
                load.close()
    finally:
        await asyncio.to_thread(speech.close)


def test_a_served_process_is_measured_and_stops() -> None:
    with served(["--null-model", "--log-level", "warning"]) as server:
        before_s = server.cpu_s()
        m = measure(server, "pcm_s16le", 2, seconds=0.5, opens_per_s=50.0)
        assert server.cpu_s() >= before_s > 0
    assert (m.listeners, m.errors) == (2, 0)
    assert 0 < m.audio_s_per_s < 4
    with pytest.raises(RuntimeError, match="did not start"), served(["--port", "99999"]):
        pass


def test_a_number_of_listeners_holds_only_without_gaps_and_at_real_time() -> None:
    figures = dict.fromkeys(Measurement.__dataclass_fields__, 0.0)
    good = {**figures, "format": "opus", "listeners": 100, "c100": 1.0, "audio_s_per_s": 99.9}
    assert Measurement(**good).holds  # type: ignore[arg-type]
    for worse in ({"c100": 0.99}, {"audio_s_per_s": 96.0}):
        assert not Measurement(**{**good, **worse}).holds  # type: ignore[arg-type]


def test_a_turns_text_is_as_long_as_asked() -> None:
    for seconds in (1.0, 30.0):
        spoken_s = 2 + 3 * 0.075 * sum(c.isalnum() for c in turn_text(seconds))
        assert seconds <= spoken_s < seconds * 1.4 + 4


def test_bench_server_measures_writes_its_picture_and_its_figures(tmp_path: Path) -> None:
    picture, figures = tmp_path / "x.svg", tmp_path / "x.json"
    arguments = ["--clients", "1", "3", "--rounds", "1", "--text", "[S1] Hi. [S2] Ho."]
    code = bench_server([*arguments, "--svg", str(picture), "--json", str(figures), "--", "--null-model", "100"])
    assert code == 0
    reports = json.loads(figures.read_text())["reports"]
    assert [(r["clients"], r["streams"], r["errors"]) for r in reports] == [(1, 1, 0), (3, 3, 0)]
    lines = [e for e in ElementTree.fromstring(picture.read_text()).iter() if e.tag.endswith("polyline")]
    assert len(lines) == 4
