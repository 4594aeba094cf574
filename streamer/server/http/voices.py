"""``/v1/voices``: who can speak, and making and removing voices."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import BadHttpMessage

from streamer.audio import AudioFileError, normalize_loudness
from streamer.audio.decode_child import DecodeLimits, decode_apart
from streamer.server.http.errors import Problem, json_response, read_in_time
from streamer.server.http.requests import OPENAI_VOICES, validation_problem
from streamer.server.http.settings import HttpSettings, Served
from streamer.server.http.speech import refuse_while_draining
from streamer.text import is_speakable, normalize_text
from streamer.voices import UnknownVoice, Voice, VoiceError
from streamer.voices.store import Consent, StoreError, VoiceStore
from streamer.voices.voice import MAX_SECONDS, MIN_SECONDS
from streamer_protocol.messages import Language

_log = logging.getLogger(__name__)
_BUSY_RETRY_MS = 2000
_FILE = "file"
# All fields but the recording together.
_MAX_TEXT_BYTES = 64 * 2**10
_ID_PATTERN = r"^[a-z0-9_-]{1,64}(?![\s\S])"


class VoiceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A voice. `transcript` is what its recording says, `seconds` how long that is; an uploaded one is `removable`."""

    id: str
    language: str
    licence: str
    origin: str
    description: str
    transcript: str
    seconds: float
    removable: bool


class VoiceList(msgspec.Struct, frozen=True, kw_only=True):
    """All voices; the server's own come first."""

    data: list[VoiceInfo]
    object: Literal["list"] = "list"


class VoiceUpload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of an upload beside `file`, a WAV, FLAC, Ogg or MP3 recording of 1 to 30 seconds of one speaker.

    `transcript` is what is said in it. `consent` must be `true`: the uploader declares that the speaker agrees to the
    use of the voice. `name` says who the speaker or creator is.
    """

    id: Annotated[str, msgspec.Meta(pattern=_ID_PATTERN)]
    transcript: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
    consent: Literal["true"]
    language: Language = "en"
    description: Annotated[str, msgspec.Meta(max_length=500)] = ""
    name: Annotated[str, msgspec.Meta(max_length=200)] = ""


class VoiceEndpoints:
    """Lists, makes and removes voices. Raises StoreError if the folder for uploads can't be used."""

    def __init__(self, state: Served, settings: HttpSettings) -> None:
        self._state = state
        self._speech = state.speech
        self._settings = settings
        self.store = None if settings.voices_store is None else VoiceStore(settings.voices_store)
        self._n_uploads = 0
        # Encoding takes whole cores: one recording at a time.
        self._encoding = asyncio.Lock()
        if self.store is not None:
            self._take_in(self.store)

    async def list(self, _: web.Request) -> web.Response:
        """``GET /v1/voices``."""
        return json_response(VoiceList(data=[self._info(voice) for voice in self._speech.voices.list(added=True)]))

    async def get(self, request: web.Request) -> web.Response:
        """``GET /v1/voices/{id}``."""
        return json_response(self._info(self._named(request)))

    async def remove(self, request: web.Request) -> web.Response:
        """``DELETE /v1/voices/{id}``."""
        store = self._uploads()
        voice_id = request.match_info["id"]
        voices = self._speech.voices
        known = any(voice.id == voice_id for voice in voices.list(added=True))
        if known and not voices.removable(voice_id):
            raise Problem("voice_not_removable", f"voice {voice_id}: it came with the server and stays")
        with _store_problems():
            # One whose file was damaged is in the store and nowhere else.
            stored = await asyncio.to_thread(store.remove, voice_id)
        if not stored and not known:
            self._named(request)
        with contextlib.suppress(UnknownVoice):
            voices.remove(voice_id)
        return web.Response(status=204)

    async def create(self, request: web.Request) -> web.Response:
        """``POST /v1/voices``."""
        refuse_while_draining(self._state)
        store = self._uploads()
        if self._n_uploads >= self._settings.max_uploads:
            text = f"{self._n_uploads} recordings are being taken in, which is as many as at once"
            raise Problem("overloaded", text, retry_after_ms=_BUSY_RETRY_MS)
        self._n_uploads += 1
        try:
            fields: dict[str, str] = {}
            reading = _read_parts(request, fields, self._settings.limits.max_upload_bytes)
            recording = await read_in_time(reading, self._settings.upload_timeout_s)
            upload = self._checked(fields)
            voice = await self._make(upload, recording)
            await self._keep(store, voice, self._settings.hooks.caller(request))
        finally:
            self._n_uploads -= 1
        return json_response(self._info(voice), 201, {"Location": f"/v1/voices/{voice.id}"})

    def _checked(self, fields: dict[str, str]) -> VoiceUpload:
        try:
            upload = msgspec.convert(fields, VoiceUpload)
        except msgspec.ValidationError as error:
            problem = validation_problem(error)
            if problem.detail.param == "consent":
                text = "`consent` must be `true`: declare that the speaker agrees to the use of the voice"
                raise Problem("invalid_message", text, "consent") from None
            if problem.detail.param == "id":
                raise Problem("bad_voice_id", "`id`: use 1 to 64 of a-z, 0-9, _ and -", "id") from None
            raise problem from None
        if upload.id in OPENAI_VOICES:
            raise Problem("bad_voice_id", f"`id`: {upload.id} is one of OpenAI's names; choose another", "id")
        if not is_speakable(upload.transcript):
            raise Problem("no_speech", "`transcript` has no letter or digit", "transcript")
        self._refuse_taken(upload.id)
        return upload

    async def _make(self, upload: VoiceUpload, recording: bytes) -> Voice:
        """The voice of a recording: decoded by a child process, encoded by a thread."""
        max_seconds = min(self._settings.limits.max_upload_ms / 1000, MAX_SECONDS)
        try:
            samples = await decode_apart(recording, DecodeLimits(max_seconds, MIN_SECONDS))
        except AudioFileError as error:
            raise Problem("bad_recording", f"`file`: {error.message}", _FILE) from None

        def work() -> Voice:
            codec = self._speech.codec
            return Voice(
                upload.id,
                codec.encode(normalize_loudness(samples), pad_tail=True).cpu(),
                normalize_text(upload.transcript),
                origin=upload.name,
                licence="",
                language=upload.language,
                description=upload.description,
                codec=codec.fingerprint,
            )

        async with self._encoding:
            return await asyncio.to_thread(work)

    async def _keep(self, store: VoiceStore, voice: Voice, key_name: str) -> None:
        with _store_problems():
            await asyncio.to_thread(store.add, voice, Consent(key_name, time.time()))
        self._speech.voices.add(voice)

    def _take_in(self, store: VoiceStore) -> None:
        """Give the speech what was uploaded before this start."""
        for voice in store.voices():
            try:
                voice.check(self._speech.codec)
                voice.reference(self._speech.model.config.n_vq)
                self._speech.voices.add(voice)
            except VoiceError as error:
                _log.error("an uploaded voice is left out: %s", error)

    def _refuse_taken(self, voice_id: str) -> None:
        with contextlib.suppress(UnknownVoice):
            self._speech.voices.get(voice_id)
            raise Problem("voice_exists", f"`id`: there is a voice {voice_id} already", "id")

    def _uploads(self) -> VoiceStore:
        if self.store is None:
            raise Problem("no_voice_store", "this server takes no voices: it was started without a folder for them")
        return self.store

    def _named(self, request: web.Request) -> Voice:
        try:
            return self._speech.voices.get(request.match_info["id"])
        except UnknownVoice as error:
            raise Problem("unknown_voice", str(error), "id", status=404) from None

    def _info(self, voice: Voice) -> VoiceInfo:
        codec = self._speech.codec.config
        return VoiceInfo(
            id=voice.id,
            language=voice.language,
            licence=voice.licence,
            origin=voice.origin,
            description=voice.description,
            transcript=voice.transcript,
            seconds=round(len(voice.codes) * codec.frame_samples / codec.sampling_rate, 2),
            removable=self._speech.voices.removable(voice.id),
        )


@contextlib.contextmanager
def _store_problems() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        if error.code == "storage_failed":
            # Where the server keeps its files is for its log.
            _log.error("%s", error)
            raise Problem(error.code, "the folder of voices can't be read or written; the log says more") from error
        raise Problem(error.code, str(error)) from error


async def _read_parts(request: web.Request, fields: dict[str, str], max_file_bytes: int) -> bytes:
    """The recording of a multipart body; its other parts go to ``fields``. Problem."""
    if request.content_type != "multipart/form-data":
        raise Problem("not_multipart", f"send the recording as multipart/form-data, not {request.content_type}")
    recording: bytes | None = None
    budget_bytes = _MAX_TEXT_BYTES
    try:
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            if not isinstance(part, BodyPartReader) or not part.name:
                raise Problem("invalid_message", "the body has a part that is not a named field")
            name = part.name
            if name in fields or (name == _FILE and recording is not None):
                raise Problem("invalid_message", f"`{name}` is given twice", name)
            if name == _FILE:
                recording = await _read_part(part, max_file_bytes, f"max_upload_bytes ({max_file_bytes})")
                continue
            data = await _read_part(part, budget_bytes, f"{_MAX_TEXT_BYTES} bytes for all fields")
            # Names count, so that many empty fields come to an end too.
            budget_bytes -= len(data) + len(name)
            fields[name] = _text(name, data)
    except (ValueError, AssertionError, BadHttpMessage) as error:
        raise Problem("invalid_message", f"the body is not multipart/form-data: {error}") from error
    if recording is None:
        raise Problem("invalid_message", "the body is missing the required field `file`, the recording", _FILE)
    return recording


async def _read_part(part: BodyPartReader, max_bytes: int, limit: str) -> bytes:
    data = bytearray()
    while piece := await part.read_chunk():
        data += piece
        if len(data) > max_bytes:
            raise Problem("message_too_large", f"`{part.name}` is larger than {limit}", part.name)
    return bytes(data)


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Problem("invalid_message", f"`{name}` is not UTF-8", name) from None
