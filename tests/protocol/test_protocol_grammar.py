"""Dialogues by a grammar, well-formed and damaged: nothing raises, what is refused changes nothing, both ends agree."""

from __future__ import annotations

import copy
import json
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from protocol.grammar import SHAPES, Broken, Fields, messages, mutated
from protocol.server_side import LIMITS, accepted, completed, give, ready, started

from streamer_protocol import (
    ClientConnection,
    ClientMessage,
    Context,
    Error,
    ErrorCode,
    LocalProtocolError,
    Ping,
    Pong,
    Rejected,
    RemoteProtocolError,
    ScriptAppend,
    ServerConnection,
    ServerEvent,
    ServerMessage,
    SessionClose,
    SessionClosed,
    SessionStart,
    TurnCancel,
    make_error,
    message_type,
)
from streamer_protocol.contexts import Stage
from streamer_protocol.parsing import encode_server, parse_client, parse_server

HANDLES = {"main": 1, "b": 2, "c": 3}
# A client does not know them before the server has told, or not at all.
LIMIT_CODES = {ErrorCode.TEXT_TOO_LONG, ErrorCode.QUEUE_FULL, ErrorCode.TOO_MANY_CONTEXTS}


def state_of(server: ServerConnection) -> dict[str, Context]:
    """All that a refused message must leave alone: it counts, and an id that it was given is not given again."""
    found = {}
    for name in server.contexts:
        context = copy.deepcopy(server.context(name))
        assert context is not None
        context.client_messages = context.messages_after = context.scripts = 0
        found[name] = context
    return found


def answer(server: ServerConnection, data: str | bytes) -> ServerEvent | None:
    """One event at most; an error can be sent, and neither it nor its message changes anything."""
    before, was_closing = state_of(server), server.closing
    events = server.receive_text(data)
    if was_closing is not None:
        assert events == []
        return None
    (event,) = events
    if isinstance(event, Rejected):
        assert event.error.code in list(ErrorCode)
        assert parse_server(server.send(event.error)) == event.error
        assert state_of(server) == before
        assert event.error.fatal == (server.closing is not None)
    return event


def opened() -> ServerConnection:
    server = ServerConnection(LIMITS)
    give(server, "session.start")
    server.send(ready())
    give(server, "turn.append", turn="t1", speaker="S1", text="x")
    return server


@given(st.lists(mutated() | messages().map(lambda fields: Broken(json.dumps(fields), None)), max_size=12))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_no_damaged_message_harms_a_dialogue(items: list[Broken]) -> None:
    as_text, as_bytes = opened(), opened()
    for item in items:
        data = item.data if isinstance(item.data, bytes) else item.data.encode()
        event = answer(as_bytes, data)
        other = answer(as_text, data.decode(errors="surrogateescape"))
        assert as_text.closing == as_bytes.closing
        assert other == event or as_bytes.closing is not None
        if isinstance(event, SessionStart):
            for server in (as_text, as_bytes):
                server.send(ready(event.context, HANDLES.get(event.context, 9)))


@given(mutated())
@settings(max_examples=400, deadline=None, derandomize=True)
def test_an_error_names_the_field(item: Broken) -> None:
    result = parse_client(item.data, 10_000)
    if not isinstance(result, Error) or item.named is None:
        return
    assert result.code == ErrorCode.INVALID_MESSAGE
    assert item.named in result.message


@given(messages(), st.data())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_last_of_a_repeated_key_counts(message: Fields, data: st.DataObject) -> None:
    text = json.dumps(message)
    key = data.draw(st.sampled_from(sorted(set(message) - {"type"}) or ["context"]))
    # The first value has to be of the right type as well: it is read before it is overruled.
    first = message.get(key, "main")
    twice = text.replace("{", f'{{"{key}": {json.dumps(first)}, ', 1)
    assert parse_client(twice, 10_000) == parse_client(text, 10_000)
    type_last = json.dumps({**{k: v for k, v in message.items() if k != "type"}, "type": message["type"]})
    assert parse_client(type_last, 10_000) == parse_client(text, 10_000)


@given(messages())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_grammar_makes_messages_of_every_type(message: Fields) -> None:
    assert not isinstance(parse_client(json.dumps(message), 1_000), Error)
    assert set(SHAPES) == {message_type(kind) for kind in get_args(ClientMessage)}


class Pair:
    """A client and a server without delay between them, and a server that answers as it is told."""

    def __init__(self) -> None:
        self.client, self.server = ClientConnection(), ServerConnection(LIMITS)
        self.indices = 0

    def say(self, fields: Fields) -> None:
        text = json.dumps(fields)
        message = parse_client(text, 10_000)
        assert not isinstance(message, Error), message
        known = self.client.context(message.context)
        turn = known.turns.get(message.turn or "") if known and isinstance(message, TurnCancel) else None
        try:
            sent: str | None = self.client.send(message)
        except LocalProtocolError:
            sent = None
        event = answer(self.server, text)
        if sent is None:
            # What the client's own end holds back, the server would have refused.
            assert isinstance(event, Rejected)
            assert event.error.code not in LIMIT_CODES
        elif isinstance(event, Rejected):
            refused_turn = turn is not None and turn.stage is Stage.REFUSED
            assert event.error.code in LIMIT_CODES or refused_turn, event
            self._hear(encode_server(event.error))
        elif isinstance(event, SessionStart):
            self._tell(ready(event.context, HANDLES[event.context]))
        elif isinstance(event, SessionClose):
            self._tell(SessionClosed(context=event.context, reason="closed by the client"))
        elif isinstance(event, Ping):
            self._tell(Pong(context=event.context, id=event.id))
        elif isinstance(event, ScriptAppend):
            assert event.script is not None
            self._tell(replace(accepted(event.script, 2), context=event.context))

    def speak(self, choice: int) -> None:
        """Begin, end or refuse a turn of some context, if there is one to."""
        for name in self.server.contexts:
            context = self.server.context(name)
            assert context is not None
            for turn in [key for key, found in context.turns.items() if found.live][:1]:
                stage = context.turns[turn].stage
                if stage is Stage.QUEUED and choice == 0:
                    self._tell(make_error(ErrorCode.NO_SPEECH, "nothing to say", context=name, turn=turn))
                elif stage is Stage.QUEUED:
                    self.indices += 1
                    self._tell(replace(started(turn, self.indices, context.next_frame), context=name))
                else:
                    self._tell(replace(completed(turn, self.indices), context=name))

    def agree(self) -> None:
        for name in HANDLES:
            ours, theirs = self.client.context(name), self.server.context(name)
            assert (ours is None) == (theirs is None)
            if ours is not None and theirs is not None:
                assert ours.state is theirs.state
                assert ours.speaking == theirs.speaking
                assert _held(ours) == _held(theirs)

    def _tell(self, message: ServerMessage) -> None:
        self._hear(self.server.send(message))

    def _hear(self, text: str) -> None:
        (event,) = self.client.receive_text(text)
        assert not isinstance(event, RemoteProtocolError), event


def _held(context: Context) -> dict[str, tuple[Stage, bool]]:
    """The turns whose ids are in use; a refused one gave its id back. A script's stand-in goes with its turns."""
    return {key: (turn.stage, turn.writing) for key, turn in context.turns.items() if turn.live}


@given(st.lists(messages() | messages() | st.integers(0, 3), min_size=15, max_size=40))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_both_ends_agree_in_every_dialogue(steps: list[Fields | int]) -> None:
    pair = Pair()
    pair.say({"type": "session.start"})
    for step in steps:
        if isinstance(step, int):
            pair.speak(step)
        else:
            pair.say(step)
        pair.agree()
