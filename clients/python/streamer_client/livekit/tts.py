"""`TTS`: the framework's text-to-speech, spoken by a dialogue streamer server."""

from __future__ import annotations

import ssl as tls
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, AgentSession, APIConnectOptions, tts
from livekit.agents.types import NOT_GIVEN, NotGivenOr
from livekit.agents.utils import is_given

from streamer_client.connecting import connect
from streamer_client.dialogue import Dialogue
from streamer_client.livekit.heard import HeardOutput
from streamer_client.livekit.lines import Lines, Opener
from streamer_client.livekit.streams import SAMPLE_RATE, ChunkedStream, SynthesizeStream
from streamer_client.settings import ClientSettings
from streamer_client.starting import session_start
from streamer_protocol import AudioFormat, Sampling, Speaker

_FORMAT = AudioFormat(format="pcm_s16le", sample_rate=SAMPLE_RATE)


@dataclass(frozen=True, slots=True)
class _Options:
    url: str
    api_key: str | None
    ssl: tls.SSLContext | None
    speaker: Speaker
    voices: Mapping[str, str]
    language: str | None
    words: bool
    seed: int | None
    sampling: Sampling | None
    settings: ClientSettings | None


class TTS(tts.TTS[Literal["metrics_collected"]]):
    """One conversation's voice: all that it says is one dialogue, each turn follows from those before it.

    So make one for each `AgentSession`, and call `follow` to have the server know what was heard. Raises
    LocalProtocolError or ValueError for an argument that no server would take.
    """

    def __init__(
        self,
        url: str = "ws://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        speaker: Speaker = "S1",
        voice: str | None = None,
        voices: Mapping[str, str] | None = None,
        language: str | None = None,
        words: bool = False,
        seed: int | None = None,
        sampling: Sampling | None = None,
        ssl: tls.SSLContext | None = None,
        settings: ClientSettings | None = None,
    ) -> None:
        """`speaker` speaks, with `voice`; `voices` are those of other speakers that `update_options` may choose.

        `words` gives the framework the times of words (`use_tts_aligned_transcript`); a server whose model knows none
        refuses the session. `language` is a BCP 47 tag. The others are those of `streamer_client.connect`.
        """
        super().__init__(
            capabilities=tts.TTSCapabilities(streaming=True, aligned_transcript=words),
            sample_rate=SAMPLE_RATE,
            num_channels=1,
        )
        chosen: dict[str, str] = dict(voices or {})
        if voice is not None:
            chosen[speaker] = voice
        self._options = _checked(
            _Options(url, api_key, ssl, speaker, chosen, language, words, seed, sampling, settings)
        )
        self._lines = Lines(self._opener)

    @property
    def model(self) -> str:
        """The server's model, for metrics; "unknown" before the first connection."""
        return self._lines.model

    @property
    def provider(self) -> str:
        """For metrics."""
        return "dialogue-streamer"

    def update_options(self, *, voice: NotGivenOr[str] = NOT_GIVEN, speaker: NotGivenOr[Speaker] = NOT_GIVEN) -> None:
        """Choose who speaks from the next speech on, and with which voice.

        Another speaker goes on with the same dialogue. Another voice begins a new one, which remembers nothing.
        """
        changed = replace(self._options, speaker=speaker) if is_given(speaker) else self._options
        if is_given(voice):
            changed = replace(changed, voices={**changed.voices, changed.speaker: voice})
        before, self._options = self._options, _checked(changed)
        if before.voices != changed.voices:
            self._lines.invalidate()

    def follow(self, session: AgentSession[Any]) -> None:
        """Watch the session's audio output, so that the dialogue remembers what was heard and not what was sent.

        Call it when `session.output.audio` is set, which `session.start` does by itself in a room. Raises ValueError
        when it is not.
        """
        output = session.output.audio
        if output is None:
            raise ValueError("the session has no audio output to follow: call this after `await session.start(...)`")
        if not isinstance(output, HeardOutput):
            session.output.audio = HeardOutput(output)

    def synthesize(self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS) -> ChunkedStream:
        """Speak a text that is complete."""
        return ChunkedStream(
            tts=self, lines=self._lines, speaker=self._options.speaker, text=text, conn_options=conn_options
        )

    def stream(self, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS) -> SynthesizeStream:
        """Speak a text that comes in pieces."""
        return SynthesizeStream(tts=self, lines=self._lines, speaker=self._options.speaker, conn_options=conn_options)

    def prewarm(self) -> None:
        """Connect now, so that the first speech need not."""
        self._lines.prewarm()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._lines.aclose()

    def _opener(self) -> Opener:
        """How to open a dialogue with the options of now."""
        o = self._options

        def opener(timeout_s: float) -> AbstractAsyncContextManager[Dialogue]:
            return connect(
                o.url,
                voices=o.voices,
                audio=_FORMAT,
                language=o.language,
                words=o.words,
                seed=o.seed,
                sampling=o.sampling,
                api_key=o.api_key,
                ssl=o.ssl,
                open_timeout_s=timeout_s,
                settings=o.settings,
            )

        return opener


def _checked(options: _Options) -> _Options:
    """The options, if the protocol allows them."""
    if options.speaker not in get_args(Speaker):
        raise ValueError(f"no speaker {options.speaker!r}; there are {', '.join(get_args(Speaker))}")
    o = options
    session_start("main", o.voices, _FORMAT, "turns", o.language, o.words, o.seed, o.sampling)
    return options
