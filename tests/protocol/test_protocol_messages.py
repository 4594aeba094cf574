"""Messages: every type of the protocol exists, survives the wire, and refuses wrong values by field name."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from streamer_protocol import (
    AudioFormat,
    ClientConnection,
    ClientMessage,
    Error,
    ErrorCode,
    Limits,
    LocalProtocolError,
    Message,
    Ping,
    Playback,
    Pong,
    Queued,
    Rejected,
    Sampling,
    ScriptAccepted,
    ScriptAppend,
    ScriptTurn,
    ServerConnection,
    ServerMessage,
    SessionClose,
    SessionClosed,
    SessionIdle,
    SessionReady,
    SessionStart,
    TurnAppend,
    TurnCancel,
    TurnCommit,
    TurnCompleted,
    TurnCreate,
    TurnStarted,
    TurnTruncated,
    TurnWords,
    make_error,
    message_type,
)
from streamer_protocol.parsing import encode_client, encode_server, parse_client, parse_server

CLIENT_FIELDS = {
    "session.start": "voices audio language mode words sampling seed resume last_frame messages_after",
    "turn.create": "turn speaker text sampling seed",
    "turn.append": "turn speaker text sampling seed",
    "turn.commit": "turn",
    "script.append": "text script sampling seed",
    "turn.cancel": "turn played_ms",
    "playback": "played_ms",
    "session.close": "",
    "ping": "id",
}
SERVER_FIELDS = {
    "session.ready": "session resume_token handle model audio voices limits resumed received",
    "script.accepted": "script turns",
    "turn.started": "turn index speaker first_frame",
    "turn.completed": "turn index frames audio_ms ttfa_ms rtf reason",
    "turn.truncated": "turn index heard_ms text",
    "turn.words": "turn words",
    "session.idle": "",
    "session.closed": "reason",
    "pong": "id",
    "queued": "turn position",
    "error": "code message turn fatal retry_after_ms",
}
CLIENT_EXAMPLES: list[ClientMessage] = [
    SessionStart(),
    SessionStart(
        context="call-7",
        voices={"S1": "heart", "S5": "joe"},
        audio=AudioFormat(format="pcm_s16le", sample_rate=44100, frame_ms=20, bitrate=6000),
        language="zh-Hans",
        mode="script",
        words=True,
        sampling=Sampling(audio_temperature=0, audio_top_p=0.5, text_top_k=1),
        seed=2**63 - 1,
        resume="token",
        last_frame=2**32 - 1,
        messages_after=3,
    ),
    TurnCreate(turn="a", speaker="S5", text="Grüße, 世界!"),
    TurnCreate(turn="a", speaker="S5", text="x", sampling=Sampling(audio_top_p=1), seed=7),
    TurnAppend(turn="a", text=" "),
    TurnAppend(turn="a", speaker="S1", text="x", sampling=Sampling(text_top_k=5), seed=0),
    TurnCommit(turn="a"),
    ScriptAppend(text="[S1] Hi."),
    ScriptAppend(text="[S1] Hi.", script="x" * 56, sampling=Sampling(), seed=2**63 - 1),
    TurnCancel(),
    TurnCancel(turn="a", played_ms=2**53 - 1),
    Playback(played_ms=0),
    SessionClose(context="b"),
    Ping(),
    Ping(id="p:1"),
]
SERVER_EXAMPLES: list[ServerMessage] = [
    SessionReady(
        session="s",
        resume_token=None,
        handle=2**32 - 1,
        model="m",
        audio=AudioFormat(format="mulaw"),
        voices={"S2": "joe"},
        limits=Limits(max_speakers=2),
    ),
    SessionReady(
        session="s",
        resume_token="t" * 256,
        handle=0,
        model="m",
        audio=AudioFormat(),
        voices={},
        limits=Limits(resume_grace_ms=0),
        resumed=True,
        received=7,
    ),
    ScriptAccepted(script="x", turns=(ScriptTurn(turn="x.1", speaker="S1", text="Hi."),)),
    TurnStarted(turn="a", index=0, speaker="S1", first_frame=3),
    TurnCompleted(turn="a", index=0, frames=2, audio_ms=160, ttfa_ms=12.5, rtf=0.25, reason="end"),
    TurnCompleted(turn="a", index=0, frames=0, audio_ms=0, ttfa_ms=None, rtf=None, reason="cancelled"),
    TurnTruncated(turn="a", index=0, heard_ms=80, text=""),
    TurnWords(turn="a", words=(("Hi", 0, 120), ("you", 120, 300))),
    SessionIdle(),
    SessionClosed(reason="client"),
    Pong(id="p:1"),
    Queued(turn="a", position=3),
    Error(code="overloaded", message="later", turn="a", fatal=True, retry_after_ms=50),
]


@pytest.mark.parametrize(("union", "table"), [(ClientMessage, CLIENT_FIELDS), (ServerMessage, SERVER_FIELDS)])
def test_every_message_of_the_protocol_exists_with_its_fields(union: object, table: dict[str, str]) -> None:
    found = {message_type(kind): set(kind.__struct_fields__) for kind in get_args(union)}
    assert found == {name: {"context", *fields.split()} for name, fields in table.items()}


@pytest.mark.parametrize("message", CLIENT_EXAMPLES, ids=repr)
def test_a_client_message_survives_the_wire(message: ClientMessage) -> None:
    text = encode_client(message)
    assert json.loads(text)["type"] == message_type(message)
    assert parse_client(text, 10_000) == message
    assert parse_client(text.encode(), 10_000) == message


@pytest.mark.parametrize("message", SERVER_EXAMPLES, ids=repr)
def test_a_server_message_survives_the_wire(message: ServerMessage) -> None:
    text = encode_server(message)
    assert json.loads(text)["type"] == message_type(message)
    assert parse_server(text) == message


def test_examples_cover_every_type() -> None:
    kinds = {type(message) for message in [*CLIENT_EXAMPLES, *SERVER_EXAMPLES]}
    assert kinds == {*get_args(ClientMessage), *get_args(ServerMessage)}


def test_left_out_fields_take_the_documented_defaults() -> None:
    start = parse_client('{"type":"session.start"}', 100)
    assert isinstance(start, SessionStart)
    assert (start.context, start.voices, start.mode, start.words, start.seed) == (
        "main",
        {},
        "turns",
        False,
        None,
    )
    assert start.audio == AudioFormat(format="opus", sample_rate=24000, frame_ms=80, bitrate=32000)


def test_the_default_sample_rate_is_the_formats_own() -> None:
    rates = {name: AudioFormat(format=name).sample_rate for name in ("opus", "pcm_s16le", "mulaw")}
    assert rates == {"opus": 24000, "pcm_s16le": 24000, "mulaw": 8000}


START = '{"type":"session.start",%s}'
WRONG_VALUES = [
    ('{"type":"turn.creat"}', ["$.type", "turn.creat", "turn.create"]),
    ('{"text":"x"}', ["type"]),
    ("[]", ["object"]),
    (START % '"voice":{}', ["unknown field `voice`"]),
    (START % '"audio":{"rate":1}', ["unknown field `rate`", "$.audio"]),
    (START % '"voices":{"S6":"a"}', ["S6", "$.voices", "S1, S2, S3, S4, S5"]),
    (START % '"voices":{"S1":7}', ["$.voices", "int"]),
    (START % '"audio":{"sample_rate":44100}', ["$.audio", "sample_rate", "44100", "48000"]),
    (START % '"audio":{"format":"mulaw","sample_rate":16000}', ["$.audio", "sample_rate", "8000"]),
    (START % '"audio":{"format":"mp3"}', ["$.audio.format", "opus, pcm_s16le, mulaw"]),
    (START % '"audio":{"frame_ms":30}', ["$.audio.frame_ms", "20, 40, 60, 80"]),
    (START % '"audio":{"bitrate":5999}', ["$.audio.bitrate", "6000"]),
    (START % '"mode":"both"', ["$.mode", "turns, script"]),
    (START % '"words":1', ["$.words"]),
    (START % '"seed":-1', ["$.seed"]),
    (START % '"seed":9223372036854775808', ["$.seed"]),
    (START % '"language":"English please"', ["$.language"]),
    (START % '"sampling":{"audio_temperature":-0.1}', ["$.sampling.audio_temperature"]),
    (START % '"sampling":{"audio_top_p":0}', ["$.sampling.audio_top_p"]),
    (START % '"sampling":{"text_top_k":0}', ["$.sampling.text_top_k"]),
    (START % '"sampling":{"text_temperature":1e999}', ["$.sampling.text_temperature"]),
    (START % '"context":"a b"', ["$.context"]),
    (START % '"context":"a\\n"', ["$.context"]),
    (START % ('"context":"%s"' % ("x" * 65)), ["$.context", "64"]),
    ('{"type":"turn.create","turn":"a","text":"x"}', ["speaker"]),
    ('{"type":"turn.create","turn":"a","speaker":"S6","text":"x"}', ["$.speaker", "S5"]),
    ('{"type":"turn.create","turn":"a","speaker":"S1","text":""}', ["$.text"]),
    (START % '"last_frame":-1', ["$.last_frame"]),
    (START % '"messages_after":null', ["$.messages_after"]),
    (START % '"resume":""', ["$.resume"]),
    ('{"type":"turn.create","turn":"a","speaker":"S1","text":"x","seed":"1"}', ["$.seed"]),
    ('{"type":"script.append","text":"x","sampling":{"top_k":1}}', ["$.sampling", "top_k"]),
    ('{"type":"turn.cancel","played_ms":1.5}', ["$.played_ms"]),
    ('{"type":"playback","played_ms":"5"}', ["$.played_ms"]),
]


@pytest.mark.parametrize(("data", "named"), WRONG_VALUES)
def test_a_wrong_value_is_refused_and_named(data: str, named: list[str]) -> None:
    (event,) = ServerConnection().receive_text(data)
    assert isinstance(event, Rejected)
    assert (event.error.code, event.error.fatal) == (ErrorCode.INVALID_MESSAGE, False)
    for part in named:
        assert part in event.error.message


def test_a_quoted_value_cannot_blow_up_the_error() -> None:
    error = parse_client(json.dumps({"type": "ping", "k" * 100_000: 1}), 200_000)
    assert isinstance(error, Error)
    assert len(error.message) < 400


@pytest.mark.parametrize(
    "message",
    [
        TurnCreate(turn="", speaker="S1", text="x"),
        SessionStart(voices={"S9": "heart"}),  # type: ignore[dict-item]
        SessionStart(seed=2**70),
        Ping(id=object()),  # type: ignore[arg-type]
        Ping(context="\ud800"),
        SessionIdle(),
    ],
    ids=repr,
)
def test_a_wrong_value_is_refused_before_it_leaves(message: Message) -> None:
    with pytest.raises(LocalProtocolError, match=type(message).__name__):
        ClientConnection().send(message)  # type: ignore[arg-type]


def test_an_audio_format_says_what_it_takes() -> None:
    with pytest.raises(ValueError, match="opus, pcm_s16le, mulaw, not 'flac'"):
        AudioFormat(format="flac")  # type: ignore[arg-type]


def test_error_codes_are_stable() -> None:
    assert " ".join(sorted(code.value for code in ErrorCode)) == (
        "binary_not_allowed duplicate_turn forbidden handshake_timeout internal invalid_json invalid_message "
        "invalid_script invalid_utf8 message_too_large no_speech not_supported overloaded queue_full rate_limited "
        "resume_failed session_already_started session_not_started shutting_down text_too_long too_many_contexts "
        "too_many_sessions too_many_speakers unauthorized unknown_turn unknown_voice"
    )
    fatal = {code.value: code.close_code for code in ErrorCode if code.fatal}
    assert fatal == {
        "invalid_utf8": 1007,
        "message_too_large": 1009,
        "shutting_down": 1001,
        "unauthorized": 1008,
        "forbidden": 1008,
        "handshake_timeout": 1008,
    }
    assert f"{ErrorCode.NO_SPEECH}" == str(ErrorCode.NO_SPEECH) == "no_speech"
    assert all(code.meaning.endswith(".") for code in ErrorCode)


def test_make_error_takes_fatal_from_the_code() -> None:
    error = make_error(ErrorCode.SHUTTING_DOWN, "bye", context="b", turn="t", retry_after_ms=9)
    assert error == Error(context="b", code="shutting_down", message="bye", turn="t", fatal=True, retry_after_ms=9)
