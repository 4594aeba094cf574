"""The body of ``POST /v1/audio/speech``, and what it means for this server."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal, TypeAlias

import msgspec

from streamer.models import SamplingParams
from streamer.server.http.containers import ResponseFormat
from streamer.server.http.errors import Problem
from streamer.speech import Speech
from streamer.text import MAX_SPEAKERS
from streamer.voices import UnknownVoice, Voice
from streamer_protocol import Limits, Sampling
from streamer_protocol.messages import Language, Seed, Text, VoiceId

StreamFormat: TypeAlias = Literal["audio", "sse"]
VoiceKey: TypeAlias = Literal["id", "S1", "S2", "S3", "S4", "S5"]

# Names that OpenAI's clients send; each stands for one of this server's own voices, always the same.
OPENAI_VOICES = (
    *("alloy", "ash", "ballad", "coral", "echo", "fable", "nova"),
    *("onyx", "sage", "shimmer", "verse", "marin", "cedar"),
)

# A voice for nobody in particular is S1's.
_SPEAKERS = {f"voice.S{speaker}": speaker for speaker in range(1, MAX_SPEAKERS + 1)}
_PATH = re.compile(r"`\$\.?([^`]*)`$")
_FIELD = re.compile(r"(?:required|unknown) field `([^`]*)`")
_OFFERED = {"response_format": "opus, wav, pcm or flac", "stream_format": "audio or sse"}


class SpeechRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Text to speak, as OpenAI's clients send it; fields that are not named here are ignored.

    `input` with `[S1]` to `[S5]` tags is a dialogue, without them one turn of S1. `voice` is one voice id, S1's; or
    `{"id": …}`; or an id for each speaker, `{"S1": …, "S2": …}`. Who is given none speaks with a voice of the server's
    choice, and OpenAI's names stand for voices of this server. `model` is not looked at. `response_format` is `opus`
    when left out (OpenAI's is `mp3`, which is not offered, nor is `aac`). `speed` other than 1 and `instructions` are
    refused: the model has neither. `seed`, `sampling` and `language` are this server's own and optional.
    """

    model: str
    input: Text
    voice: VoiceId | dict[VoiceKey, VoiceId]
    response_format: ResponseFormat | None = None
    stream_format: StreamFormat | None = None
    speed: float | None = None
    instructions: str | None = None
    seed: Seed | None = None
    sampling: Sampling | None = None
    language: Language | None = None


_DECODER = msgspec.json.Decoder(SpeechRequest)


def parse_speech_request(body: bytes, limits: Limits) -> SpeechRequest:
    """The request in ``body``; Problem names what is wrong with it."""
    try:
        request = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise validation_problem(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("invalid_json", f"the body is not JSON: {error}") from None
    if request.speed not in (None, 1):
        raise Problem("not_supported", "`speed`: the model speaks at its own speed; leave it out or give 1", "speed")
    if request.instructions is not None and request.instructions.strip():
        text = "`instructions`: the model takes none; say with `voice` and `input` how it is to sound"
        raise Problem("not_supported", text, "instructions")
    if isinstance(request.voice, dict):
        _check_voice_map(request.voice)
    if len(request.input) > limits.max_text_chars:
        found = f"`input` has {len(request.input)} characters, max_text_chars is {limits.max_text_chars}"
        raise Problem("text_too_long", found, "input")
    return request


def validation_problem(error: msgspec.ValidationError) -> Problem:
    """What msgspec says, with the field that it says it of."""
    text = str(error)
    path, field = _PATH.search(text), _FIELD.search(text)
    names = [match[1].partition("[")[0] for match in (path, field) if match and match[1]]
    param = ".".join(names) or None
    if param in _OFFERED and "Invalid enum value" in text:
        return Problem("not_supported", f"`{param}`: {text.partition(' - at')[0]}; use {_OFFERED[param]}", param)
    return Problem("invalid_message", text, param)


def choose_voices(speech: Speech, wish: VoiceId | dict[VoiceKey, VoiceId]) -> dict[int, Voice]:
    """A voice for each speaker, the server's default where none was asked for. Problem ``unknown_voice``."""
    by_key = {"voice": wish} if isinstance(wish, str) else {f"voice.{key}": voice for key, voice in wish.items()}
    chosen = dict(speech.default_voices())
    for param, voice_id in by_key.items():
        voice = _voice(speech, voice_id, param)
        if voice is not None:
            chosen[_SPEAKERS.get(param, 1)] = voice
    return chosen


def choose_sampling(speech: Speech, wish: Sampling | None) -> SamplingParams:
    """The model's own sampling with the overrides asked for. Problem ``invalid_message``."""
    given = {} if wish is None else {k: v for k, v in msgspec.structs.asdict(wish).items() if v is not None}
    try:
        return replace(speech.model.default_sampling, **given)
    except ValueError as error:
        raise Problem("invalid_message", f"`sampling`: {error}", "sampling") from None


def _check_voice_map(voices: dict[VoiceKey, VoiceId]) -> None:
    if not voices or ("id" in voices and len(voices) > 1):
        text = '`voice`: expected an id, {"id": …}, or an id for each speaker like {"S1": …, "S2": …}'
        raise Problem("invalid_message", text, "voice")


def _voice(speech: Speech, voice_id: str, param: str) -> Voice | None:
    """The voice of this id; None where one of OpenAI's names is asked of a server that has no voices."""
    try:
        return speech.voices.get(voice_id)
    except UnknownVoice as error:
        if voice_id not in OPENAI_VOICES:
            raise Problem("unknown_voice", f"`{param}`: {error}", param) from None
    own = list({voice.id: voice for voice in speech.default_voices().values()}.values())
    return own[OPENAI_VOICES.index(voice_id) % len(own)] if own else None
