"""Every message of protocol v1 as a frozen msgspec struct.

A message is a JSON object with a `type` and a `context`; unknown types and fields are errors. The structs
hold the ranges that never change; limits that are a server's setting (`Limits`) are enforced by `connection`.
Decoding validates, constructing does not: the connections check what they send by decoding it again.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

MAX_INTEGER_U63 = 2**63 - 1
MAX_U32 = 2**32 - 1
MAX_MS = 2**53 - 1  # what a JSON number carries exactly in every language

# The negative lookahead stands for "end of text": `$` alone would let a trailing newline through.
_ID_PATTERN = r"^[A-Za-z0-9_.:-]+(?![\s\S])"
_LANGUAGE_PATTERN = r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*(?![\s\S])"

Id: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=_ID_PATTERN)]
# Shorter than a turn id, so that "<script>.<number>" is one.
ScriptId: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=56, pattern=_ID_PATTERN)]
VoiceId: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
ResumeToken: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
Language: TypeAlias = Annotated[str, msgspec.Meta(max_length=35, pattern=_LANGUAGE_PATTERN)]
Speaker: TypeAlias = Literal["S1", "S2", "S3", "S4", "S5"]
Mode: TypeAlias = Literal["turns", "script"]
Reason: TypeAlias = Literal["end", "cancelled", "max_length", "error"]
AudioFormatName: TypeAlias = Literal["opus", "pcm_s16le", "mulaw"]
FrameMs: TypeAlias = Literal[20, 40, 60, 80]
Milliseconds: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_MS)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_U32)]
Positive: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=MAX_U32)]
Seed: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER_U63)]
Temperature: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=10)]
TopP: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=1)]
TopK: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Penalty: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=10)]

SAMPLE_RATES_HZ: dict[str, tuple[int, ...]] = {
    "opus": (8000, 12000, 16000, 24000, 48000),
    "pcm_s16le": (8000, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    "mulaw": (8000,),
}
DEFAULT_SAMPLE_RATE_HZ = {"opus": 24000, "pcm_s16le": 24000, "mulaw": 8000}


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the objects inside messages."""


class Message(Part, frozen=True, kw_only=True, tag_field="type"):
    """Base of all messages; `context` names one of the independent dialogues of a socket."""

    context: Id = "main"


class AudioFormat(Part, frozen=True, kw_only=True):
    """What the audio frames hold.

    `sample_rate` in Hz; 0 (or leaving it out) takes the format's own: 24000, for mulaw 8000. `frame_ms` is
    the length of one audio frame. `bitrate` in bit/s counts for Opus only. Raises ValueError for a sample
    rate that the format does not have.
    """

    format: AudioFormatName = "opus"
    sample_rate: Annotated[int, msgspec.Meta(ge=0)] = 0
    frame_ms: FrameMs = 80
    bitrate: Annotated[int, msgspec.Meta(ge=6000, le=256_000)] = 32_000

    def __post_init__(self) -> None:
        allowed = SAMPLE_RATES_HZ.get(self.format)
        if allowed is None:
            raise ValueError(f"`format` must be one of {', '.join(SAMPLE_RATES_HZ)}, not {self.format!r}")
        if self.sample_rate == 0:
            msgspec.structs.force_setattr(self, "sample_rate", DEFAULT_SAMPLE_RATE_HZ[self.format])
        elif self.sample_rate not in allowed:
            choices = ", ".join(map(str, allowed))
            found = f"not {self.sample_rate}"
            raise ValueError(f"`sample_rate` must be one of {choices} for {self.format}, {found}")


class Sampling(Part, frozen=True, kw_only=True):
    """Sampling overrides; None keeps the model's own value. Temperature 0 is greedy."""

    audio_temperature: Temperature | None = None
    audio_top_p: TopP | None = None
    audio_top_k: TopK | None = None
    audio_repetition_penalty: Penalty | None = None
    text_temperature: Temperature | None = None
    text_top_p: TopP | None = None
    text_top_k: TopK | None = None


class Limits(Part, frozen=True, kw_only=True):
    """All limits a server enforces; `session.ready` tells them. Characters are Unicode code points.

    `max_text_chars` holds for a message's text and for all pieces of one turn together; the rates are those of one
    socket, averaged over two seconds. `resume_grace_ms` 0: lost connections are not resumed.
    """

    max_message_bytes: Positive = 131_072
    max_text_chars: Positive = 8_000
    max_contexts: Positive = 8
    max_sessions_per_key: Positive = 64
    max_queued_turns: Positive = 64
    max_turn_audio_ms: Positive = 120_000
    max_speakers: Annotated[int, msgspec.Meta(ge=1, le=5)] = 5
    max_messages_per_s: Positive = 200
    max_bytes_per_s: Positive = 262_144
    max_session_ms: Positive = 7_200_000
    idle_timeout_ms: Positive = 600_000
    handshake_timeout_ms: Positive = 10_000
    resume_grace_ms: Count = 30_000
    max_upload_bytes: Positive = 16 * 2**20
    max_upload_ms: Positive = 30_000


class ScriptTurn(Part, frozen=True, kw_only=True):
    """One turn that a script was split into."""

    turn: Id
    speaker: Speaker
    text: str


class SessionStart(Message, frozen=True, kw_only=True, tag="session.start"):
    """Opens the context. `voices` maps speakers to voice ids; `seed` fixes the random numbers.

    With `resume` it goes on with a session whose connection was lost, and nothing else of it counts but `last_frame`,
    the number of the last audio frame that the client has (None: none), and `messages_after`, how many of the
    context's messages, pongs not counted, came after it.
    """

    voices: dict[Speaker, VoiceId] = {}
    audio: AudioFormat = AudioFormat()
    language: Language | None = None
    mode: Mode = "turns"
    words: bool = False
    sampling: Sampling = Sampling()
    seed: Seed | None = None
    resume: ResumeToken | None = None
    last_frame: Count | None = None
    messages_after: Count = 0


class TurnCreate(Message, frozen=True, kw_only=True, tag="turn.create"):
    """One whole turn, under an id of the client's choice; `sampling` and `seed` None are the session's."""

    turn: Id
    speaker: Speaker
    text: Text
    sampling: Sampling | None = None
    seed: Seed | None = None


class TurnAppend(Message, frozen=True, kw_only=True, tag="turn.append"):
    """The next piece of a turn's text; the first piece opens the turn and says all but the text."""

    turn: Id
    speaker: Speaker | None = None
    text: Text
    sampling: Sampling | None = None
    seed: Seed | None = None


class TurnCommit(Message, frozen=True, kw_only=True, tag="turn.commit"):
    """The text of an appended turn is complete."""

    turn: Id


class ScriptAppend(Message, frozen=True, kw_only=True, tag="script.append"):
    """Text with `[S1]` tags: several turns at once, answered by `script.accepted`.

    With `seed`, the n-th turn's is `seed` + n - 1.
    """

    text: Text
    script: ScriptId | None = None
    sampling: Sampling | None = None
    seed: Seed | None = None


class TurnCancel(Message, frozen=True, kw_only=True, tag="turn.cancel"):
    """Stops one turn, or (None) all; `played_ms` counts all audio of the context that the listener heard."""

    turn: Id | None = None
    played_ms: Milliseconds | None = None


class Playback(Message, frozen=True, kw_only=True, tag="playback"):
    """How much of the context's audio was played."""

    played_ms: Milliseconds


class SessionClose(Message, frozen=True, kw_only=True, tag="session.close"):
    """Ends the context; turns that are not finished are cancelled."""


class Ping(Message, frozen=True, kw_only=True, tag="ping"):
    """Answered by a `pong` with the same id, in any state."""

    id: Id | None = None


class SessionReady(Message, frozen=True, kw_only=True, tag="session.ready"):
    """The context is open; `handle` is its number in audio headers.

    If it was `resumed`, what the client has not got follows. `received` counts the messages of this context, pings and
    `session.start` not counted, that the server has taken: later ones are to be sent again.
    """

    session: Id
    resume_token: ResumeToken | None
    handle: Count
    model: str
    audio: AudioFormat
    voices: dict[Speaker, VoiceId]
    limits: Limits
    resumed: bool = False
    received: Count = 0


class ScriptAccepted(Message, frozen=True, kw_only=True, tag="script.accepted"):
    """The turns of a script in order; their ids are "<script>.1", "<script>.2" and so on."""

    script: ScriptId
    turns: tuple[ScriptTurn, ...]


class TurnStarted(Message, frozen=True, kw_only=True, tag="turn.started"):
    """Audio of this turn follows; `first_frame` is the number of its first frame."""

    turn: Id
    index: Count
    speaker: Speaker
    first_frame: Count


class TurnCompleted(Message, frozen=True, kw_only=True, tag="turn.completed"):
    """No audio of this turn follows.

    `frames` counts its audio frames; `ttfa_ms` (from when it could begin, its text there and the turn before
    it made, to its first audio) and `rtf` (time spent by length of audio) are None if nothing was spoken.
    """

    turn: Id
    index: Count
    frames: Count
    audio_ms: Milliseconds
    ttfa_ms: float | None
    rtf: float | None
    reason: Reason


class TurnTruncated(Message, frozen=True, kw_only=True, tag="turn.truncated"):
    """The dialogue keeps of this turn only what was heard: `heard_ms` of its audio, and `text` of its words."""

    turn: Id
    index: Count
    heard_ms: Milliseconds
    text: str


class TurnWords(Message, frozen=True, kw_only=True, tag="turn.words"):
    """Word times: (word, start_ms, end_ms), counted from the start of the turn's audio."""

    turn: Id
    words: tuple[tuple[str, Milliseconds, Milliseconds], ...]


class SessionIdle(Message, frozen=True, kw_only=True, tag="session.idle"):
    """Every turn so far is completed."""


class SessionClosed(Message, frozen=True, kw_only=True, tag="session.closed"):
    """The context has ended; the name may be used for a new one."""

    reason: str


class Pong(Message, frozen=True, kw_only=True, tag="pong"):
    """The answer to `ping`."""

    id: Id | None = None


class Queued(Message, frozen=True, kw_only=True, tag="queued"):
    """The turn waits; `position` 1 is next."""

    turn: Id
    position: Count


class Error(Message, frozen=True, kw_only=True, tag="error"):
    """Something was refused or failed; `code` is one of `errors.ErrorCode` (later servers may know more).

    For a script that was refused, `turn` holds the script's id. After a fatal one the socket closes.
    """

    code: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    message: str
    turn: Id | None = None
    fatal: bool = False
    retry_after_ms: Milliseconds | None = None


ClientMessage: TypeAlias = (
    SessionStart | TurnCreate | TurnAppend | TurnCommit | ScriptAppend | TurnCancel | Playback | SessionClose | Ping
)
ServerMessage: TypeAlias = (
    SessionReady
    | ScriptAccepted
    | TurnStarted
    | TurnCompleted
    | TurnTruncated
    | TurnWords
    | SessionIdle
    | SessionClosed
    | Pong
    | Queued
    | Error
)


def message_type(message: type[Message] | Message) -> str:
    """The wire name (`type`) of a message or of its class."""
    return str(message.__struct_config__.tag)
