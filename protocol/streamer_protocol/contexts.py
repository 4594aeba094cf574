"""The state of one dialogue context, the same on both ends of the socket.

Two tables say which message moves which state; `Context` adds what no table holds: turns and frame numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from streamer_protocol.errors import ErrorCode
from streamer_protocol.header import KIND_OF_FORMAT, AudioFrame, AudioKind
from streamer_protocol.messages import (
    MAX_U32,
    ClientMessage,
    Error,
    Limits,
    Message,
    Ping,
    Playback,
    Pong,
    Queued,
    ScriptAccepted,
    ScriptAppend,
    ServerMessage,
    SessionClose,
    SessionClosed,
    SessionIdle,
    SessionReady,
    SessionStart,
    Speaker,
    TurnAppend,
    TurnCancel,
    TurnCommit,
    TurnCompleted,
    TurnCreate,
    TurnStarted,
    TurnTruncated,
    TurnWords,
    message_type,
)

REMEMBERED_TURNS = 1024  # finished turns stay known so that a late turn.cancel can say what was heard


class State(Enum):
    """Where a context is."""

    ABSENT = "absent"
    STARTING = "starting"  # session.start was sent, session.ready was not
    READY = "ready"
    CLOSING = "closing"  # session.close was sent, session.closed was not


_OPEN = {State.READY: State.READY}
_ANY = {state: state for state in State}
_REPORT = {State.READY: State.READY, State.CLOSING: State.CLOSING}

CLIENT_TRANSITIONS: Mapping[type[Message], Mapping[State, State]] = MappingProxyType(
    {
        SessionStart: {State.ABSENT: State.STARTING},
        TurnCreate: _OPEN,
        TurnAppend: _OPEN,
        TurnCommit: _OPEN,
        ScriptAppend: _OPEN,
        TurnCancel: _OPEN,
        Playback: _OPEN,
        SessionClose: {State.STARTING: State.CLOSING, State.READY: State.CLOSING},
        Ping: _ANY,
    }
)
SERVER_TRANSITIONS: Mapping[type[Message], Mapping[State, State]] = MappingProxyType(
    {
        SessionReady: {State.STARTING: State.READY, State.CLOSING: State.CLOSING},
        ScriptAccepted: _REPORT,
        TurnStarted: _REPORT,
        TurnCompleted: _REPORT,
        TurnTruncated: _REPORT,
        TurnWords: _REPORT,
        SessionIdle: _REPORT,
        Queued: _REPORT,
        SessionClosed: {
            State.STARTING: State.ABSENT,
            State.READY: State.ABSENT,
            State.CLOSING: State.ABSENT,
        },
        Pong: _ANY,
        Error: _ANY,
    }
)

# Errors about a message, not about the turn it named: that turn, if there is one, goes on.
INERT_CODES = frozenset(
    {
        ErrorCode.INVALID_JSON,
        ErrorCode.INVALID_UTF8,
        ErrorCode.INVALID_MESSAGE,
        ErrorCode.BINARY_NOT_ALLOWED,
        ErrorCode.MESSAGE_TOO_LARGE,
        ErrorCode.SESSION_NOT_STARTED,
        ErrorCode.SESSION_ALREADY_STARTED,
        ErrorCode.UNKNOWN_TURN,
        ErrorCode.DUPLICATE_TURN,
    }
)


class Stage(Enum):
    """Where a turn is."""

    QUEUED = "queued"
    STARTED = "started"
    COMPLETED = "completed"
    ANNOUNCED = "announced"  # stands for the turns of a script until script.accepted
    REFUSED = "refused"  # by an error before it started; its id is free again, a turn.completed may follow


@dataclass(slots=True)
class Turn:
    """A turn; `committed` is False while its text still comes in pieces; the other fields are known of such turns."""

    stage: Stage = Stage.QUEUED
    committed: bool = True
    speaker: Speaker | None = None
    n_chars: int = 0
    first_piece_chars: int | None = None

    @property
    def live(self) -> bool:
        return self.stage in (Stage.QUEUED, Stage.STARTED)

    @property
    def writing(self) -> bool:
        """Whether its text still comes in pieces."""
        return self.live and not self.committed


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a message does not fit: the code a server answers with, and a sentence."""

    code: ErrorCode
    message: str


@dataclass(slots=True)
class Context:
    """One dialogue. Each `on_...` applies a message, or returns why it does not fit and changes nothing.

    An `error` in a starting context refuses the start, one that names a waiting turn refuses the turn.
    `client_messages` and `messages_after` are what a resumed session counts by; see `SessionStart`, `SessionReady`.
    """

    state: State = State.ABSENT
    handle: int | None = None
    kind: AudioKind | None = None
    next_frame: int = 0
    messages_after: int = 0  # the server's since the last audio frame
    client_messages: int = 0
    max_text_chars: int = MAX_U32  # known from session.ready on
    scripts: int = 0  # ids given to scripts that came without one
    turns: dict[str, Turn] = field(default_factory=dict)
    speaking: set[int] = field(default_factory=set)  # indices of the turns that audio may belong to

    @property
    def resumable(self) -> bool:
        """Whether a client may go on with this context on another connection."""
        return self.state is State.READY or (self.state is State.STARTING and self.handle is not None)

    @property
    def open(self) -> bool:
        """Whether turns are taken: started, and not closing."""
        return self.state is State.READY

    def on_client(self, message: ClientMessage, limits: Limits | None = None) -> Problem | None:
        """Apply a client's message; without `limits`, text and queue may have any length."""
        to_state = CLIENT_TRANSITIONS[type(message)].get(self.state)
        if to_state is None:
            return self._refusal(message)
        problem = self._check_turn(message)
        if problem is None and limits is not None:
            problem = self._check_limits(message, limits)
        if problem is None:
            self.state = to_state
            self._note_text(message)
        return problem

    def count_client(self, message: ClientMessage) -> None:
        """Count a client's message that is sent again if it was lost, be it taken or refused."""
        if not isinstance(message, SessionStart | Ping):
            self.client_messages += 1

    def on_server(self, message: ServerMessage) -> str | None:
        """Apply a server's message."""
        to_state = SERVER_TRANSITIONS[type(message)].get(self.state)
        if to_state is None:
            return f"{message_type(message)} while the context is {self.state.value}"
        problem = self._apply_report(message)
        if problem is None:
            self.count(message)
            if not isinstance(message, Error):
                self.state = to_state
        return problem

    def count(self, message: ServerMessage) -> None:
        """Count a server's message that is sent again if it was lost; before `session.ready` none is."""
        if self.state in _REPORT and not isinstance(message, SessionReady | Pong):
            self.messages_after += 1

    def resuming(self, token: str, name: str) -> SessionStart:
        """For a client that lost its socket: the `session.start` that goes on where this open context was left."""
        self.state = State.STARTING
        last_frame = self.next_frame - 1 if self.next_frame else None
        return SessionStart(context=name, resume=token, last_frame=last_frame, messages_after=self.messages_after)

    def on_audio(self, frame: AudioFrame) -> str | None:
        """Apply an audio frame: its number must be the next one, its turn be started and not completed."""
        if frame.frame != self.next_frame:
            word = "repeats" if frame.frame < self.next_frame else "skips"
            return f"audio frame number {word}: got {frame.frame}, expected {self.next_frame}"
        if frame.kind is not self.kind:
            return f"audio frame {frame.frame} is {frame.kind.name}, which is not the session's format"
        if frame.turn_index not in self.speaking:
            return f"audio frame {frame.frame} for turn index {frame.turn_index}, which is not being spoken"
        self.next_frame += 1
        self.messages_after = 0
        return None

    def free_script_id(self) -> str:
        """A script id that no turn of this context stands in the way of."""
        taken = {key.rpartition(".")[0] for key in self.turns}
        while True:
            self.scripts += 1
            if f"script-{self.scripts}" not in taken:
                return f"script-{self.scripts}"

    def _refusal(self, message: ClientMessage) -> Problem:
        name = message_type(message)
        if isinstance(message, SessionStart):
            text = f"{name}: context `{message.context}` is {self.state.value} already"
            return Problem(ErrorCode.SESSION_ALREADY_STARTED, text)
        advice = {
            State.ABSENT: "send session.start first",
            State.STARTING: "wait for session.ready",
        }.get(self.state, "it is closing")
        text = f"{name}: context `{message.context}` is not open; {advice}"
        return Problem(ErrorCode.SESSION_NOT_STARTED, text)

    def _check_turn(self, message: ClientMessage) -> Problem | None:
        """Whether the turn or script that the message names is one it may name."""
        problem: Problem | None = None
        if isinstance(message, TurnCreate):
            problem = self._check_free(message)
        elif isinstance(message, ScriptAppend):
            # A refusal names the script where turns are named, so the script can't share a turn's id either.
            held = (key for key in self.turns if message.script in (key, key.rpartition(".")[0]))
            if any(self._holds(key) for key in held):
                text = f"script.append: `script` `{message.script}` is taken"
                problem = Problem(ErrorCode.DUPLICATE_TURN, text)
        elif isinstance(message, TurnAppend):
            problem = self._check_piece(message)
        elif isinstance(message, TurnCommit):
            if not self._writing(message.turn):
                text = f"turn.commit: `turn` `{message.turn}` is not being written"
                problem = Problem(ErrorCode.UNKNOWN_TURN, text)
        elif isinstance(message, TurnCancel) and message.turn is not None and message.turn not in self.turns:
            text = f"turn.cancel: `turn` `{message.turn}` is not known in context `{message.context}`"
            problem = Problem(ErrorCode.UNKNOWN_TURN, text)
        return problem

    def _check_free(self, message: TurnCreate | TurnAppend) -> Problem | None:
        scripts = [self.turns.get(f"{name}.1") for name in (message.turn, message.turn.rpartition(".")[0])]
        announced = any(script is not None and script.stage is Stage.ANNOUNCED for script in scripts)
        if self._holds(message.turn) or announced:
            text = f"{message_type(message)}: `turn` `{message.turn}` is taken"
            return Problem(ErrorCode.DUPLICATE_TURN, text)
        return None

    def _check_piece(self, message: TurnAppend) -> Problem | None:
        """The first piece says whose turn it is and how it is spoken; later ones can't say otherwise."""
        if not self._writing(message.turn):
            problem = self._check_free(message)
            if problem is None and message.speaker is None:
                text = "turn.append: `speaker` is missing: the first piece of a turn names it"
                problem = Problem(ErrorCode.INVALID_MESSAGE, text)
            return problem
        speaker = self.turns[message.turn].speaker
        if message.speaker not in (None, speaker):
            text = f"turn.append: `speaker` of turn `{message.turn}` is {speaker}, not {message.speaker}"
            return Problem(ErrorCode.INVALID_MESSAGE, text)
        if message.sampling is not None or message.seed is not None:
            text = "turn.append: `sampling` and `seed` go with the first piece of a turn"
            return Problem(ErrorCode.INVALID_MESSAGE, text)
        return None

    def _check_limits(self, message: ClientMessage, limits: Limits) -> Problem | None:
        if not isinstance(message, TurnCreate | TurnAppend | ScriptAppend):
            return None
        name, chars = message_type(message), len(message.text)
        written = self.turns[message.turn] if isinstance(message, TurnAppend) and self._writing(message.turn) else None
        if written is not None:
            chars += written.n_chars
        if chars > limits.max_text_chars:
            text = f"{name}: `text` has {chars} characters, max_text_chars is {limits.max_text_chars}"
            return Problem(ErrorCode.TEXT_TOO_LONG, text)
        queued = sum(turn.stage is Stage.QUEUED for turn in self.turns.values())
        if written is None and queued >= limits.max_queued_turns:
            text = f"{name}: max_queued_turns ({limits.max_queued_turns}) turns wait already"
            return Problem(ErrorCode.QUEUE_FULL, text)
        return None

    def _holds(self, turn_id: str) -> bool:
        """Whether the id is in use; a refused turn gives its id back."""
        turn = self.turns.get(turn_id)
        return turn is not None and turn.stage is not Stage.REFUSED

    def _writing(self, turn_id: str) -> bool:
        turn = self.turns.get(turn_id)
        return turn is not None and turn.writing

    def _note_text(self, message: ClientMessage) -> None:
        if isinstance(message, TurnCreate):
            self._add(message.turn, Turn())
        elif isinstance(message, TurnAppend):
            if not self._writing(message.turn):
                turn = Turn(committed=False, speaker=message.speaker, first_piece_chars=len(message.text))
                self._add(message.turn, turn)
            self.turns[message.turn].n_chars += len(message.text)
        elif isinstance(message, ScriptAppend) and message.script is not None:
            self._add(f"{message.script}.1", Turn(stage=Stage.ANNOUNCED))
        elif isinstance(message, TurnCommit):
            self.turns[message.turn].committed = True

    def _add(self, turn_id: str, turn: Turn) -> None:
        self.turns.pop(turn_id, None)
        self.turns[turn_id] = turn
        if len(self.turns) > REMEMBERED_TURNS:
            oldest = next((key for key, known in self.turns.items() if not known.live), None)
            if oldest is not None:
                del self.turns[oldest]

    def _apply_report(self, message: ServerMessage) -> str | None:
        if isinstance(message, Error):
            self._apply_error(message)
        elif isinstance(message, SessionReady):
            known = None if self.handle is None else (self.handle, self.kind)
            told = message.handle, KIND_OF_FORMAT[message.audio.format]
            if message.resumed and known != told:
                return "session.ready: the context was resumed with another handle or format"
            if not message.resumed and known is not None:
                return "session.ready: the context has a handle already"
            self.handle, self.kind = told
            self.max_text_chars = message.limits.max_text_chars
        elif isinstance(message, ScriptAccepted):
            taken = [t.turn for t in message.turns if t.turn in self.turns and self.turns[t.turn].live]
            if taken:
                return f"script.accepted: turn `{taken[0]}` is taken"
            for accepted in message.turns:
                self._add(accepted.turn, Turn())
        elif isinstance(message, TurnStarted | TurnCompleted | TurnWords | Queued):
            return self._apply_turn(message)
        return None

    def _apply_turn(self, message: TurnStarted | TurnCompleted | TurnWords | Queued) -> str | None:
        turn = self.turns.get(message.turn)
        if turn is None:
            return f"{message_type(message)}: turn `{message.turn}` is not known"
        if isinstance(message, TurnStarted):
            if turn.stage is not Stage.QUEUED:
                return f"turn.started: turn `{message.turn}` is {turn.stage.value} already"
            if message.first_frame != self.next_frame:
                return f"turn.started: first_frame {message.first_frame}, the next frame is {self.next_frame}"
            turn.stage = Stage.STARTED
            self.speaking.add(message.index)
        elif isinstance(message, TurnCompleted):
            if turn.stage is Stage.COMPLETED:
                return f"turn.completed: turn `{message.turn}` is completed already"
            turn.stage = Stage.COMPLETED
            self.speaking.discard(message.index)
        return None

    def _apply_error(self, message: Error) -> None:
        if self.state is State.STARTING:
            self.state = State.ABSENT
        if message.turn is None or message.code in INERT_CODES:
            return
        turn, script = self.turns.get(message.turn), self.turns.get(f"{message.turn}.1")
        if script is not None and script.stage is Stage.ANNOUNCED:
            script.stage = Stage.REFUSED
        if turn is not None and turn.stage is Stage.QUEUED and not self._is_about_a_piece(message, turn):
            turn.stage = Stage.REFUSED

    def _is_about_a_piece(self, error: Error, turn: Turn) -> bool:
        """Whether the error refuses a later piece of the turn's text; the turn stays, committed by now or not."""
        first = turn.first_piece_chars
        return error.code == ErrorCode.TEXT_TOO_LONG and first is not None and first <= self.max_text_chars
