"""Sockets that break at any point, with anything under way: both ends get everything once and in order.

Two contexts share a socket. Whatever was under way when it broke is lost from some point on, in each direction; what
the server has not read yet may still reach it until the client is back. The server speaks all the while.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace
from protocol.server_side import audio, completed, ready, started

from streamer_protocol import (
    AudioFrame,
    ClientConnection,
    ClientMessage,
    Context,
    ErrorCode,
    Limits,
    Ping,
    Playback,
    Pong,
    Queued,
    Rejected,
    ScriptAppend,
    ServerConnection,
    ServerMessage,
    SessionClosed,
    SessionIdle,
    SessionReady,
    SessionStart,
    TurnAppend,
    TurnCancel,
    TurnCommit,
    TurnCreate,
    TurnWords,
    make_error,
    pack,
)
from streamer_protocol.contexts import Stage, State

LIMITS = Limits(max_text_chars=20, max_queued_turns=8)
HANDLES = {"main": 1, "b": 2}
SPOKEN = ["create", "open", "piece", "commit", "cancel", "script"]
Data = str | bytes


@dataclass
class Socket:
    """One connection: its two ends, and what is under way between them."""

    client: ClientConnection = field(default_factory=ClientConnection)
    server: ServerConnection = field(default_factory=lambda: ServerConnection(LIMITS))
    up: deque[str] = field(default_factory=deque)
    down: deque[Data] = field(default_factory=deque)


class ServedSession:
    """The server's side of one context: what it sent, numbered, and the socket that it sends to."""

    def __init__(self, name: str, socket: Socket, context: Context) -> None:
        self.name = name
        self.socket = socket
        self.context = context
        self.log: list[Data] = []
        self.read: list[str] = []
        self.n_started = 0

    def say(self, message: ServerMessage | AudioFrame, *, refusal: bool = False) -> None:
        self.log.append(pack(self.context, message, refusal=refusal))
        self.socket.down.append(self.log[-1])

    def next_message(self, choice: int) -> ServerMessage | AudioFrame:
        """Audio mostly, of one turn after another; what `choice` 7 to 9 is depends."""
        turns, frame = self.context.turns, self.context.next_frame
        spoken = next((key for key, turn in turns.items() if turn.stage is Stage.STARTED), None)
        waiting = next((key for key, turn in turns.items() if turn.stage is Stage.QUEUED), None)
        message: ServerMessage = SessionIdle()
        if spoken is not None:
            if choice < 8:
                return audio(frame, turn_index=self.n_started, handle=HANDLES[self.name])
            words = TurnWords(turn=spoken, words=(("x", 0, 80),))
            message = words if choice == 8 else completed(spoken, self.n_started)
        elif waiting is not None and choice < 7:
            self.n_started += 1
            message = started(waiting, self.n_started, frame)
        elif waiting is not None:
            refusal = make_error(ErrorCode.NO_SPEECH, "nothing to say", turn=waiting)
            message = refusal if choice == 7 else Queued(turn=waiting, position=1)
        return replace(message, context=self.name)

    def resume(self, socket: Socket, start: SessionStart) -> None:
        """Go over to another socket, and say again what the client lacks."""
        self.socket.server.release(self.name)
        self.socket.server.send(SessionClosed(context=self.name, reason="resumed elsewhere"))
        told = replace(opening(self.name), resumed=True, received=self.context.client_messages)
        self.socket = socket
        socket.down.append(socket.server.adopt(self.context, told))
        socket.down.extend(self.log[self._position(start) :])

    def _position(self, start: SessionStart) -> int:
        """Found from the log alone, as any server would."""
        position = 0
        if start.last_frame is not None:
            frames = [n for n, data in enumerate(self.log) if isinstance(data, bytes)]
            position = frames[start.last_frame] + 1
        return position + start.messages_after


class Listener:
    """The client's side of one context: what it said, and what came."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.heard: list[Data] = []
        self.context: Context | None = None
        self.n_turns = 0


class Cuts(RuleBasedStateMachine):
    """A client, a server, and a wire that can't be trusted."""

    def __init__(self) -> None:
        super().__init__()
        self.socket: Socket | None = Socket()
        self.old: Socket | None = None
        self.sessions: dict[str, ServedSession] = {}
        self.listeners = {name: Listener() for name in HANDLES}
        for name in HANDLES:
            self.socket.up.append(self.socket.client.send(SessionStart(context=name)))
        self._read(self.socket, 2)
        self._hear(self.socket, 2)
        for name in HANDLES:
            for number in range(4):
                self._say(TurnCreate(context=name, turn=f"first-{number}", speaker="S1", text="Hello."))
        self._read(self.socket, 8)

    @rule(name=st.sampled_from(sorted(HANDLES)), kind=st.sampled_from(SPOKEN))
    def client_speaks(self, name: str, kind: str) -> None:
        listener = self.listeners[name]
        listener.n_turns += 1
        context = listener.context
        written = [key for key, turn in context.turns.items() if turn.live and not turn.committed] if context else []
        turn = written[0] if written and kind != "open" else f"t{listener.n_turns}"
        text = "x" * (30 if listener.n_turns % 5 == 0 else 2)
        message: ClientMessage = TurnAppend(context=name, turn=turn, speaker="S1", text=text)
        if kind == "create":
            message = TurnCreate(context=name, turn=f"t{listener.n_turns}", speaker="S2", text="Hello.")
        elif kind == "commit" and written:
            message = TurnCommit(context=name, turn=turn)
        elif kind == "cancel":
            message = TurnCancel(context=name, played_ms=80)
        elif kind == "script":
            message = ScriptAppend(context=name, text="[S1] Hi.")
        self._say(message)

    @rule(name=st.sampled_from(sorted(HANDLES)), heartbeat=st.booleans())
    def client_reports(self, name: str, heartbeat: bool) -> None:
        self._say(Ping(context=name) if heartbeat else Playback(context=name, played_ms=5))

    @rule(name=st.sampled_from(sorted(HANDLES)), choices=st.lists(st.integers(0, 9), min_size=3, max_size=12))
    def server_speaks(self, name: str, choices: list[int]) -> None:
        session = self.sessions[name]
        for choice in choices:
            session.say(session.next_message(choice))

    @precondition(lambda self: self.socket is not None)
    @rule(n=st.sampled_from([1, 2, 4, 99]))
    def data_reaches_the_server(self, n: int) -> None:
        assert self.socket is not None
        self._read(self.socket, n)

    @precondition(lambda self: self.old is not None)
    @rule(n=st.integers(1, 3))
    def late_data_reaches_the_server(self, n: int) -> None:
        assert self.old is not None
        self._read(self.old, n)

    @precondition(lambda self: self.socket is not None)
    @rule(n=st.sampled_from([1, 3, 9, 99]))
    def data_reaches_the_client(self, n: int) -> None:
        assert self.socket is not None
        self._hear(self.socket, n)

    @precondition(lambda self: self.socket is not None)
    @rule()
    def the_socket_breaks(self) -> None:
        assert self.socket is not None
        for name, listener in self.listeners.items():
            listener.context = self.socket.client.release(name)
            assert listener.context is not None
        self.old, self.socket = self.socket, None

    @precondition(lambda self: self.socket is None)
    @rule(order=st.permutations(sorted(HANDLES)))
    def the_client_comes_back(self, order: list[str]) -> None:
        self.socket = Socket()
        for name in order:
            context = self.listeners[name].context
            assert context is not None
            self.socket.up.append(self.socket.client.resume(name, context, "token"))

    @invariant()
    def nothing_is_skipped_or_comes_twice(self) -> None:
        for name, listener in self.listeners.items():
            session = self.sessions[name]
            assert listener.heard == session.log[: len(listener.heard)]
            assert session.read == listener.said[: len(session.read)]

    def teardown(self) -> None:
        """In the end, over a socket that holds, both have it all and agree."""
        if self.socket is None:
            self.the_client_comes_back(list(HANDLES))
        socket = self.socket
        assert socket is not None
        while socket.up or socket.down:
            self._read(socket, len(socket.up))
            self._hear(socket, len(socket.down))
        for name, listener in self.listeners.items():
            session = self.sessions[name]
            assert listener.heard == session.log
            assert session.read == listener.said
            context = socket.client.release(name)
            assert context is not None
            for agreed in ("state", "next_frame", "messages_after", "client_messages", "speaking", "handle", "kind"):
                assert getattr(context, agreed) == getattr(session.context, agreed), agreed
            assert _live(context) == _live(session.context)

    def _say(self, message: ClientMessage) -> None:
        """Send if the context is open on a socket that has not broken."""
        listener = self.listeners[message.context]
        if self.socket is None or listener.context is None or listener.context.state is not State.READY:
            return
        text = self.socket.client.send(message)
        self.socket.up.append(text)
        if not isinstance(message, Ping):
            listener.said.append(text)

    def _read(self, socket: Socket, n: int) -> None:
        for _ in range(min(n, len(socket.up))):
            text = socket.up.popleft()
            (event,) = socket.server.receive_text(text)
            if isinstance(event, SessionStart):
                self._open(socket, event)
                continue
            name = event.error.context if isinstance(event, Rejected) else event.context
            session = self.sessions[name]
            if session.socket is not socket:
                assert isinstance(event, Rejected | Ping), "a socket that was taken over still has a say"
            elif isinstance(event, Ping):
                socket.down.append(socket.server.send(Pong(context=name)))
            else:
                session.read.append(text)
                if isinstance(event, Rejected):
                    session.say(event.error, refusal=True)

    def _open(self, socket: Socket, start: SessionStart) -> None:
        if start.resume is not None:
            if self.socket not in (None, socket):
                # The client has given this socket up and is on its way over another.
                socket.server.send(make_error(ErrorCode.RESUME_FAILED, "spent", context=start.context))
            else:
                self.sessions[start.context].resume(socket, start)
            return
        context = socket.server.context(start.context)
        assert context is not None
        self.sessions[start.context] = ServedSession(start.context, socket, context)
        socket.down.append(socket.server.send(opening(start.context)))

    def _hear(self, socket: Socket, n: int) -> None:
        for _ in range(min(n, len(socket.down))):
            data = socket.down.popleft()
            if isinstance(data, bytes):
                (frame,) = socket.client.receive_binary(data)
                assert isinstance(frame, AudioFrame), frame
                name = socket.client.context_of(frame)
                assert name is not None
                self.listeners[name].heard.append(data)
                continue
            (event,) = socket.client.receive_text(data)
            assert not isinstance(event, AudioFrame | Exception), event
            listener = self.listeners[event.context]
            if isinstance(event, SessionReady):
                # Messages that the server has not counted go out again as they were, not through send.
                listener.context = socket.client.context(event.context)
                socket.up.extend(listener.said[event.received :])
            elif not isinstance(event, Pong):
                listener.heard.append(data)


def opening(name: str) -> SessionReady:
    return replace(ready(name, HANDLES[name]), limits=LIMITS)


def _live(context: Context) -> dict[str, tuple[Stage, bool]]:
    return {key: (turn.stage, turn.committed) for key, turn in context.turns.items() if turn.live}


TestCuts = Cuts.TestCase
TestCuts.settings = settings(max_examples=50, stateful_step_count=50, deadline=None, derandomize=True)


@pytest.mark.parametrize("seed", range(4))
def test_a_day_of_cuts(seed: int) -> None:
    """The same steps by the hundred, in an order in which much is spoken between the cuts."""
    rng = random.Random(seed)
    day = Cuts()
    names = sorted(HANDLES)
    n_cuts = 0
    for _ in range(1_000):
        step = rng.random()
        if day.socket is None and step < 0.3:
            day.the_client_comes_back(rng.sample(names, 2))
        elif step < 0.25:
            day.server_speaks(rng.choice(names), [rng.randrange(10) for _ in range(rng.randrange(1, 12))])
        elif step < 0.45:
            day.client_speaks(rng.choice(names), rng.choice(SPOKEN))
        elif step < 0.55:
            day.client_reports(rng.choice(names), rng.random() < 0.5)
        elif day.socket is not None and step < 0.72:
            day.data_reaches_the_server(rng.choice([1, 2, 9]))
        elif day.socket is not None and step < 0.93:
            day.data_reaches_the_client(rng.choice([1, 9, 50]))
        elif day.socket is not None:
            day.the_socket_breaks()
            n_cuts += 1
        elif day.old is not None:
            day.late_data_reaches_the_server(rng.choice([1, 2, 9]))
        day.nothing_is_skipped_or_comes_twice()
    frames = [sum(isinstance(data, bytes) for data in session.log) for session in day.sessions.values()]
    assert n_cuts > 20
    assert min(frames) > 40
    day.teardown()
