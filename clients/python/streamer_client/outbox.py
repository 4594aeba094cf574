"""What one dialogue says: in order, on whatever socket there is, and again on the next if it was lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from streamer_client.errors import ProtocolError
from streamer_protocol import (
    ClientConnection,
    ClientMessage,
    Error,
    ErrorCode,
    LocalProtocolError,
    Ping,
    make_error,
)
from streamer_protocol.parsing import encode_client

# After so much, the server is asked whether it has it all.
_ASK_BYTES = 32 * 2**10
_RECEIPT = "receipt-"


class Outbox:
    """The counted messages of one dialogue, numbered from 0 as the server counts them.

    They are kept until the server is known to have them. What comes while there is no socket waits for the next one,
    and is then applied to the state of the dialogue as it was left. All methods belong to one event loop.
    """

    def __init__(self, context: str, max_bytes: int) -> None:
        self._context = context
        self._max_bytes = max_bytes
        self._protocol: ClientConnection | None = None
        self._log: deque[str] = deque()
        self._waiting: deque[tuple[ClientMessage, int]] = deque()
        self._first = 0
        self._next = 0
        self._held_bytes = 0
        self._unasked_bytes = 0
        self._ended = False
        self._room = asyncio.Event()
        self._room.set()

    @property
    def attached(self) -> bool:
        """Whether there is a socket on which the dialogue is open."""
        return self._protocol is not None

    @property
    def held_bytes(self) -> int:
        """What is kept, JSON as it travels."""
        return self._held_bytes

    async def wait_room(self) -> None:
        """Return when there is room for one more message, or never will be."""
        while not self._room.is_set():
            await self._room.wait()

    def put(self, message: ClientMessage) -> None:
        """Take the next message. Raises LocalProtocolError, taking nothing, for what the protocol does not allow."""
        if self._protocol is not None:
            text = self._protocol.send(message)
            self._log.append(text)
        else:
            text = encode_client(message)
            self._waiting.append((message, len(text.encode())))
        self._hold(len(text.encode()))

    def attach(self, protocol: ClientConnection, received: int) -> list[Error]:
        """The dialogue is open on a new socket, and the server has taken `received` messages; write the rest.

        Returns errors for what waited and no longer fits, as the server would have sent them. Raises ProtocolError for
        a number that can't be.
        """
        if not self._first <= received <= self._first + len(self._log):
            last = self._first + len(self._log)
            raise ProtocolError(f"session.ready: received {received}, which is not in {self._first}..{last}")
        self._protocol = protocol
        self.acknowledge(received)
        self._next, self._unasked_bytes = received, 0
        errors = []
        while self._waiting:
            message, n_bytes = self._waiting.popleft()
            self._hold(-n_bytes)
            try:
                self.put(message)
            except LocalProtocolError as error:
                turn = getattr(message, "turn", None)
                errors.append(make_error(ErrorCode.UNKNOWN_TURN, str(error), context=self._context, turn=turn))
        return errors

    def detach(self) -> None:
        """The socket is gone."""
        self._protocol = None

    def end(self) -> None:
        """Nothing more is sent; who waits for room is let go."""
        self._ended = True
        self._protocol = None
        self._log.clear()
        self._waiting.clear()
        self._held_bytes = 0
        self._room.set()

    def acknowledge(self, number: int) -> None:
        """The server has every message before this one."""
        for _ in range(min(number - self._first, len(self._log))):
            self._hold(-len(self._log.popleft().encode()))
            self._first += 1
        self._next = max(self._next, self._first)

    def take_receipt(self, name: str | None) -> bool:
        """Whether a pong of this name answers a question of this outbox."""
        number = (name or "").removeprefix(_RECEIPT)
        if number == name or not number.isdecimal():
            return False
        self.acknowledge(min(int(number), self._next))
        return True

    async def write(self, send: Callable[[str], Awaitable[None]]) -> None:
        """Send what was not yet sent on this socket; whatever `send` raises comes through."""
        while self._protocol is not None and self._next < self._first + len(self._log):
            text = self._log[self._next - self._first]
            # Counted before the wait, in which a receipt may come.
            self._next += 1
            await send(text)
            self._unasked_bytes += len(text.encode())
            if self._protocol is not None and self._unasked_bytes >= min(_ASK_BYTES, self._max_bytes):
                self._unasked_bytes = 0
                await send(self._protocol.send(Ping(context=self._context, id=f"{_RECEIPT}{self._next}")))

    def _hold(self, n_bytes: int) -> None:
        if self._ended:
            return
        self._held_bytes += n_bytes
        if self._held_bytes < self._max_bytes:
            self._room.set()
        else:
            self._room.clear()
