"""Sans-I/O connections: what arrives goes in, events come out; nothing here can be made to raise by a peer.

`ServerConnection` and `ClientConnection` hold the contexts of one WebSocket. The shell around them only moves
frames: a text frame to `receive_text`, a binary frame to `receive_binary`, what `send` returns to the socket.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TypeAlias, overload

from msgspec.structs import replace

from streamer_protocol.contexts import Context, State
from streamer_protocol.errors import (
    ErrorCode,
    HeaderError,
    LocalProtocolError,
    RemoteProtocolError,
    make_error,
)
from streamer_protocol.header import AudioFrame
from streamer_protocol.messages import (
    ClientMessage,
    Error,
    Limits,
    ScriptAppend,
    ServerMessage,
    SessionReady,
    SessionStart,
    TurnAppend,
)
from streamer_protocol.parsing import encode_client, encode_server, is_sent_again, parse_client, parse_server

CLOSE_POLICY = 1008  # for a fatal error whose code has no close code of its own
MAX_UNSENT_REJECTIONS = 64


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that was refused; `error` is what to send back."""

    error: Error


ServerEvent: TypeAlias = ClientMessage | Rejected
ClientEvent: TypeAlias = ServerMessage | AudioFrame | RemoteProtocolError


class ServerConnection:
    """The server's end of one socket. Not thread-safe.

    `closing` is None until a fatal error; then it is the WebSocket close code, and what arrives is ignored.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.closing: int | None = None
        self._contexts: dict[str, Context] = {}
        # Errors about messages that never took effect, so sending them changes no state either.
        self._rejections: deque[Error] = deque(maxlen=MAX_UNSENT_REJECTIONS)

    @property
    def contexts(self) -> tuple[str, ...]:
        """Names of the contexts that are starting, open or closing."""
        return tuple(name for name, context in self._contexts.items() if context.state is not State.ABSENT)

    def receive_text(self, data: bytes | str) -> list[ServerEvent]:
        """The event of one text frame: a message that fits its context and is applied, or a rejection.

        A `script.append` without an id is given one, so that `script` is always set.
        """
        if self.closing is not None:
            return []
        parsed = parse_client(data, self.limits.max_message_bytes)
        if isinstance(parsed, Error):
            context = self.context(parsed.context)
            if context is not None and not parsed.fatal and is_sent_again(data):
                context.client_messages += 1
            return [self._reject(parsed)]
        return [self._apply(parsed)]

    def receive_binary(self, data: bytes) -> list[ServerEvent]:
        """Clients send no binary frames in this version: always a rejection."""
        if self.closing is not None:
            return []
        text = f"a binary frame of {len(data)} bytes: send JSON in text frames"
        return [self._reject(make_error(ErrorCode.BINARY_NOT_ALLOWED, text))]

    @overload
    def send(self, message: ServerMessage) -> str: ...
    @overload
    def send(self, message: AudioFrame) -> bytes: ...
    def send(self, message: ServerMessage | AudioFrame) -> str | bytes:
        """Encode for the socket (str: text frame, bytes: binary frame) and follow the state.

        Raises LocalProtocolError, changing nothing, for what does not fit the context or has a wrong value.
        """
        if isinstance(message, AudioFrame):
            named = _by_handle(self._contexts, message.handle)
            if named is None:
                raise LocalProtocolError(f"audio for unknown handle {message.handle}")
            return pack(named[1], message)
        if isinstance(message, SessionReady) and _by_handle(self._contexts, message.handle) is not None:
            raise LocalProtocolError(f"session.ready: handle {message.handle} is taken")
        # A context that does not exist may still be told of an error or a pong.
        context = self._contexts.get(message.context, Context())
        text = pack(context, message, refusal=self.is_refusal(message))
        if context.state is State.ABSENT:
            self._contexts.pop(message.context, None)
        if isinstance(message, Error) and message.fatal and self.closing is None:
            self.closing = close_code(message)
        return text

    def context(self, name: str) -> Context | None:
        """The state of a context, for who sends its messages by `pack`; None if there is no such context."""
        context = self._contexts.get(name)
        if context is not None and context.state is State.ABSENT:
            # Closed by a message that was packed elsewhere.
            del self._contexts[name]
            return None
        return context

    def is_refusal(self, message: ServerMessage) -> bool:
        """Whether the message is the error of one of the latest rejections, which changed nothing."""
        return any(message is error for error in self._rejections)

    def release(self, name: str) -> Context:
        """Take an open context out of this connection, to be adopted by the one on which it is resumed.

        A connection that still lives is to send `session.closed` for it. Raises LocalProtocolError if there is no open
        one of this name.
        """
        context = self._contexts.get(name)
        if context is None or context.state is not State.READY:
            raise LocalProtocolError(f"context `{name}` is not open")
        self._contexts[name] = Context(state=State.CLOSING)
        return context

    def adopt(self, context: Context, ready: SessionReady) -> str:
        """Go on with a released context, in place of the one that is starting under its name; the encoded `ready`.

        Raises LocalProtocolError if none of its name is starting here, or if `ready` does not fit the context.
        """
        starting = self._contexts.get(ready.context)
        if starting is None or starting.state is not State.STARTING:
            raise LocalProtocolError(f"context `{ready.context}` is not starting")
        if not ready.resumed or ready.handle != context.handle:
            raise LocalProtocolError("session.ready: a resumed context says so and keeps its handle")
        text = encode_server(ready)
        self._contexts[ready.context] = context
        return text

    def _apply(self, message: ClientMessage) -> ServerEvent:
        """Apply the message to its context, or say why not."""
        context = self.context(message.context)
        if context is None:
            context = Context()
            if isinstance(message, SessionStart):
                if len(self.contexts) >= self.limits.max_contexts:
                    text = f"session.start: max_contexts ({self.limits.max_contexts}) are open on this socket"
                    return self._reject(make_error(ErrorCode.TOO_MANY_CONTEXTS, text, context=message.context))
                self._contexts[message.context] = context
        context.count_client(message)
        if isinstance(message, ScriptAppend) and message.script is None:
            message = replace(message, script=context.free_script_id())
        problem = context.on_client(message, self.limits)
        if problem is None:
            return message
        turn = message.script if isinstance(message, ScriptAppend) else getattr(message, "turn", None)
        return self._reject(make_error(problem.code, problem.message, context=message.context, turn=turn))

    def _reject(self, error: Error) -> Rejected:
        if error.fatal:
            self.closing = close_code(error)
        self._rejections.append(error)
        return Rejected(error)


class ClientConnection:
    """The client's end of one socket. Not thread-safe.

    `closing` turns True at a fatal error or a RemoteProtocolError; what arrives afterwards is ignored.
    """

    def __init__(self) -> None:
        self.closing = False
        self._contexts: dict[str, Context] = {}

    def send(self, message: ClientMessage) -> str:
        """Encode for a text frame and follow the state.

        Raises LocalProtocolError, changing nothing, for what does not fit the context or has a wrong value.
        """
        text = encode_client(message)
        context = self._contexts.get(message.context) or Context()
        if _repeats_speaker(context, message):
            # If the turn is refused while the piece is under way, that must not open it anew.
            text = encode_client(replace(message, speaker=None))
        problem = context.on_client(message)
        if problem is not None:
            raise LocalProtocolError(problem.message)
        context.count_client(message)
        if context.state is not State.ABSENT:
            self._contexts[message.context] = context
        return text

    def context(self, name: str) -> Context | None:
        """The state of a context; None if there is no such context."""
        return self._contexts.get(name)

    def resume(self, name: str, context: Context, token: str) -> str:
        """The encoded `session.start` that resumes a context which another connection has released.

        What `received` shows to be lost goes out again as it was encoded, not through `send`, which would count it
        twice. Raises LocalProtocolError if the name is in use here, or for a token that no server gives.
        """
        if name in self._contexts:
            raise LocalProtocolError(f"context `{name}` is in use on this socket")
        text = encode_client(context.resuming(token, name))
        self._contexts[name] = context
        return text

    def release(self, name: str) -> Context | None:
        """Take a context out of a connection that was lost; None if none of this name is open or being resumed."""
        context = self._contexts.get(name)
        return self._contexts.pop(name) if context is not None and context.resumable else None

    def receive_text(self, data: bytes | str) -> list[ClientEvent]:
        """The event of one text frame: the message, or a RemoteProtocolError."""
        if self.closing:
            return []
        parsed = parse_server(data)
        if isinstance(parsed, RemoteProtocolError):
            return [self._fail(parsed)]
        context = self._contexts.get(parsed.context, Context())
        holder = _by_handle(self._contexts, parsed.handle) if isinstance(parsed, SessionReady) else None
        if isinstance(parsed, SessionReady) and holder is not None and holder[1] is not context:
            return [self._fail(RemoteProtocolError(f"handle {parsed.handle} is taken", parsed.context))]
        problem = context.on_server(parsed)
        if problem is not None:
            return [self._fail(RemoteProtocolError(problem, parsed.context))]
        if context.state is State.ABSENT:
            self._contexts.pop(parsed.context, None)
        self.closing = isinstance(parsed, Error) and parsed.fatal
        return [parsed]

    def receive_binary(self, data: bytes) -> list[ClientEvent]:
        """The event of one binary frame: the audio frame, or a RemoteProtocolError (header, gap, repeat)."""
        if self.closing:
            return []
        try:
            frame = AudioFrame.unpack(data)
        except HeaderError as error:
            return [self._fail(RemoteProtocolError(str(error)))]
        named = _by_handle(self._contexts, frame.handle)
        if named is None:
            return [self._fail(RemoteProtocolError(f"audio for unknown handle {frame.handle}"))]
        name, context = named
        problem = context.on_audio(frame)
        return [frame] if problem is None else [self._fail(RemoteProtocolError(problem, name))]

    def context_of(self, frame: AudioFrame) -> str | None:
        """The name of the context an audio frame belongs to; None once that context is closed."""
        named = _by_handle(self._contexts, frame.handle)
        return None if named is None else named[0]

    def _fail(self, error: RemoteProtocolError) -> RemoteProtocolError:
        self.closing = True
        return error


def _repeats_speaker(context: Context, message: ClientMessage) -> bool:
    """Whether this is a later piece of a turn that names its speaker again."""
    turn = context.turns.get(message.turn) if isinstance(message, TurnAppend) else None
    return isinstance(message, TurnAppend) and turn is not None and turn.writing and message.speaker == turn.speaker


def _by_handle(contexts: dict[str, Context], handle: int) -> tuple[str, Context] | None:
    # One that is being resumed knows its handle, but nothing comes for it before session.ready.
    found = ((name, c) for name, c in contexts.items() if c.handle == handle and c.state is not State.STARTING)
    return next(found, None)


def pack(context: Context, message: ServerMessage | AudioFrame, *, refusal: bool = False) -> str | bytes:
    """A server's message or frame for the socket (str: text frame, bytes: binary frame), followed by its context.

    `refusal`: an error about a message that was not applied, so that it changes no state. Raises LocalProtocolError,
    changing nothing, for what does not fit the context or has a wrong value.
    """
    if isinstance(message, AudioFrame):
        try:
            data: str | bytes = message.pack()
        except HeaderError as error:
            raise LocalProtocolError(str(error)) from error
        problem = context.on_audio(message)
    else:
        data = encode_server(message)
        problem = None
        if refusal:
            context.count(message)
        else:
            problem = context.on_server(message)
    if problem is not None:
        raise LocalProtocolError(problem)
    return data


def close_code(error: Error) -> int:
    """The WebSocket close code that goes with a fatal error."""
    known = {code.value: code.close_code for code in ErrorCode}
    return known.get(error.code) or CLOSE_POLICY
