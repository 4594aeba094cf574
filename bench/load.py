"""Many listeners in one thread: sockets read without a WebSocket library, as little work a frame as can be.

Each listener opens a dialogue, asks for one long turn and keeps a player's clock over what arrives.
"""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from streamer_protocol import PATH, SUBPROTOCOL

_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10
_FRAME_NUMBER = struct.Struct("<I")
_FRAME_NUMBER_AT = 12
_READ_BYTES = 256 * 2**10


@dataclass(slots=True)
class Player:
    """A player that starts with its first packet and waits for each late one; all times in seconds.

    The same sum as ``streamer.commands.bench.longest_underrun_ms``, kept up packet by packet.
    """

    longest_underrun_s: float = 0.0
    received_s: float = 0.0
    dry_at_s: float | None = None

    def play(self, arrival_s: float, duration_s: float) -> None:
        """A packet has come."""
        dry_at_s = self.dry_at_s
        if dry_at_s is None:
            dry_at_s = arrival_s
        elif arrival_s > dry_at_s:
            self.longest_underrun_s = max(self.longest_underrun_s, arrival_s - dry_at_s)
            dry_at_s = arrival_s
        self.dry_at_s = dry_at_s + duration_s
        self.received_s += duration_s


@dataclass(slots=True)
class Listener:
    """One socket. ``n_frames`` came in order, or ``error`` says what went wrong; ``done`` when its turn is over."""

    socket: socket.socket
    frame_s: float
    opening: list[bytes]
    asked_at_s: float = 0.0
    ttfa_s: float | None = None
    n_frames: int = 0
    player: Player = field(default_factory=Player)
    open: bool = False
    done: bool = False
    error: str | None = None
    buffer: bytearray = field(default_factory=bytearray)

    def receive(self, data: bytes, now_s: float) -> None:
        """Take what was read from the socket."""
        buffer = self.buffer
        buffer += data
        if not self.open:
            head, end, _ = buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head[:16]:
                self.fail(head.partition(b"\r\n")[0].decode("latin-1"))
                return
            self.open = True
            del buffer[: len(head) + 4]
        at = 0
        size = len(buffer)
        # No more of RFC 6455 than a server of ours uses: whole, unmasked frames below 4 GiB.
        while size - at >= 2:
            length, start = buffer[at + 1], at + 2
            if length == 126:
                if size - at < 4:
                    break
                length, start = buffer[at + 2] << 8 | buffer[at + 3], at + 4
            elif length == 127:
                if size - at < 10:
                    break
                length, start = int.from_bytes(buffer[at + 2 : at + 10], "big"), at + 10
            if start + length > size:
                break
            if buffer[at] == 0x80 | _BINARY:
                self._audio(_FRAME_NUMBER.unpack_from(buffer, start + _FRAME_NUMBER_AT)[0], now_s)
            else:
                self._other(buffer[at] & 0xF, bytes(buffer[start : start + length]), now_s)
            at = start + length
        del buffer[:at]

    def fail(self, why: str) -> None:
        """End with an error; the first one stays."""
        self.error = self.error or why
        self.done = True

    def send_text(self, data: bytes) -> None:
        """One masked text frame."""
        self._send(_TEXT, data)

    def _audio(self, number: int, now_s: float) -> None:
        if number != self.n_frames:
            self.fail(f"frame {number} came where {self.n_frames} was due")
        if self.ttfa_s is None:
            self.ttfa_s = now_s - self.asked_at_s
        self.n_frames += 1
        self.player.play(now_s, self.frame_s)

    def _other(self, opcode: int, data: bytes, now_s: float) -> None:
        if opcode == _PING:
            self._send(_PONG, data)
        elif opcode == _TEXT:
            message = json.loads(data)
            if message["type"] == "session.ready":
                self.asked_at_s = now_s
                for text in self.opening:
                    self.send_text(text)
            elif message["type"] == "error":
                self.fail(message["message"])
            elif message["type"] == "turn.completed":
                if message["reason"] != "end" or message["frames"] != self.n_frames:
                    self.fail(f"the turn ended with {message}, after {self.n_frames} frames")
                self.done = True
        elif opcode == _CLOSE:
            self.fail("the server closed the socket")

    def _send(self, opcode: int, data: bytes) -> None:
        # A mask of zeros is a mask; what is sent is too little ever to fill the socket's buffer.
        if len(data) < 126:
            size = struct.pack("!BB", 0x80 | opcode, 0x80 | len(data))
        else:
            size = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, len(data))
        self.socket.send(size + b"\0\0\0\0" + data)


@dataclass(frozen=True, slots=True)
class LoadConfig:
    """``turn_text`` sets how long each turn lasts; ``opens_per_s`` new listeners come in a second."""

    url: str
    audio: dict[str, Any]
    turn_text: str
    opens_per_s: float = 100.0
    timeout_s: float = 120.0


class Load:
    """Listeners of one server, and the loop that reads them all."""

    def __init__(self, config: LoadConfig) -> None:
        self._config = config
        parts = urlsplit(config.url)
        if parts.hostname is None or parts.port is None:
            raise ValueError(f"url is {config.url!r}, expected ws://host:port/...")
        self._address = (parts.hostname, parts.port)
        self._poll = select.epoll()
        self._by_fd: dict[int, Listener] = {}
        self.listeners: list[Listener] = []

    def open(self, n: int) -> None:
        """Open ``n`` listeners at the configured rate, reading all the while."""
        began_s = time.monotonic()
        n_open = 0
        while n_open < n:
            while n_open < n and time.monotonic() - began_s >= n_open / self._config.opens_per_s:
                self._connect()
                n_open += 1
            self.read_for(1 / self._config.opens_per_s)

    def read_for(self, seconds: float) -> None:
        """Read whatever comes for so long."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            self._read(left_s)

    def read_to_the_end(self) -> None:
        """Read until every turn is over; those that take too long get an error."""
        until_s = time.monotonic() + self._config.timeout_s
        while not all(listener.done for listener in self.listeners):
            if time.monotonic() > until_s:
                for listener in self.listeners:
                    if not listener.done:
                        listener.fail(f"no end within {self._config.timeout_s:g} s")
            self._read(0.2)

    def close(self) -> None:
        """Close all sockets."""
        for listener in self.listeners:
            listener.socket.close()
        self._poll.close()

    def _connect(self) -> None:
        connection = socket.create_connection(self._address, timeout=10)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            f"GET {PATH} HTTP/1.1",
            f"Host: {self._address[0]}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
        )
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        connection.setblocking(False)
        turn = {"type": "turn.create", "turn": "t", "speaker": "S1", "text": self._config.turn_text}
        frame_s = self._config.audio["frame_ms"] / 1000
        listener = Listener(connection, frame_s, [json.dumps(turn).encode()])
        listener.send_text(json.dumps({"type": "session.start", "audio": self._config.audio, "seed": 1}).encode())
        self.listeners.append(listener)
        self._by_fd[connection.fileno()] = listener
        self._poll.register(connection.fileno(), select.EPOLLIN)

    def _read(self, timeout_s: float) -> None:
        for fd, _ in self._poll.poll(timeout_s):
            listener = self._by_fd[fd]
            try:
                data = listener.socket.recv(_READ_BYTES)
            except OSError as error:
                data = b""
                listener.fail(str(error))
            if data:
                listener.receive(data, time.monotonic())
            else:
                listener.fail("the server closed the connection")
                self._poll.unregister(fd)
