"""The dialogue behind the service: opened with the pipeline, resumed by the client, replaced when it is lost."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from contextlib import AsyncExitStack
from typing import Any

from loguru import logger
from pipecat.frames.frames import TTSStoppedFrame
from pipecat.processors.frame_processor import FrameProcessorSetup
from pipecat.services.tts_service import WebsocketTTSService
from pipecat.utils.types import assert_given

from streamer_client.connecting import connect
from streamer_client.dialogue import Dialogue
from streamer_client.errors import ClientError, ConnectionLost
from streamer_client.events import Event
from streamer_client.pipecat.errors import error_frame
from streamer_client.pipecat.settings import DialogueTTSSettings
from streamer_protocol import AudioFormat, LocalProtocolError

_KEEPALIVES_PER_TIMEOUT = 3


class DialogueConnection(WebsocketTTSService):
    """A `WebsocketTTSService` whose socket is a `Dialogue`. It says nothing by itself.

    The client resumes a lost connection without a word of this. Only when it gives up does Pipecat's own reconnecting
    begin, with a new dialogue.
    """

    _settings: DialogueTTSSettings

    def __init__(self, *, url: str, words: bool, options: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._url = url
        self._words = words
        self._options = options
        self._dialogue: Dialogue | None = None
        self._opened: AsyncExitStack | None = None
        self._opening = asyncio.Lock()
        self._receive_task: asyncio.Task[None] | None = None
        self._spoken_settings: tuple[dict[str, str], str | None] | None = None

    @abstractmethod
    async def _take(self, event: Event) -> None:
        """What the server says."""

    @abstractmethod
    async def _forget_turns(self) -> None:
        """The dialogue is gone, and its turns with it."""

    @abstractmethod
    async def _send_keepalive(self) -> None:
        """Say something, so that the server keeps the session."""

    def can_generate_metrics(self) -> bool:
        """Time to first audio, and characters."""
        return True

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override]  # as Pipecat's own do
        """Connect while the other processors do, too."""
        await super().setup(setup)
        await self._connect()

    async def _ready_dialogue(self) -> Dialogue | None:
        """The dialogue to speak in: a new one if there is none, or None, which was reported."""
        if self._dialogue is None and not self._disconnecting:
            if self._reconnect_in_progress:
                # Between two attempts it waits for seconds; there is something to say now.
                await self._stop_tasks()
            await self._connect()
        return self._dialogue

    async def _renew_dialogue(self) -> None:
        """Leave the dialogue for a new one, with the settings of now."""
        await self._stop_tasks()
        await self._forget_turns()
        await self._disconnect_websocket()
        await self._connect()

    def _settings_changed(self) -> bool:
        """Whether the dialogue was opened with other voices, or another language."""
        return self._dialogue is not None and self._spoken_settings != self._session_settings()

    def _session_settings(self) -> tuple[dict[str, str], str | None]:
        language = assert_given(self._settings.language)
        return assert_given(self._settings.voices), None if language is None else str(language)

    async def _connect(self) -> None:
        await super()._connect()  # type: ignore[no-untyped-call]
        await self._connect_websocket()
        if self._dialogue is None:
            return
        if self._receive_task is None or self._receive_task.done():
            self._receive_task = self.create_task(self._receive_task_handler(self._report_error), name="receive")
        self._create_keepalive_task(self._dialogue.ready.limits.idle_timeout_ms / 1000 / _KEEPALIVES_PER_TIMEOUT)

    async def _disconnect(self) -> None:
        await super()._disconnect()  # type: ignore[no-untyped-call]
        await self._stop_tasks()
        await self._forget_turns()
        await self._disconnect_websocket()

    async def _stop_tasks(self) -> None:
        await self._cancel_keepalive_task()  # type: ignore[no-untyped-call]
        if self._receive_task is not None:
            await self.cancel_task(self._receive_task)
            self._receive_task = None

    async def _connect_websocket(self) -> None:
        async with self._opening:
            if self._dialogue is not None:
                return
            try:
                await self._open()
            except (ClientError, LocalProtocolError, ValueError) as error:  # ValueError: of AudioFormat
                await self._report_error(error_frame(error))
            else:
                await self._call_event_handler("on_connected")

    async def _open(self) -> None:
        voices, language = self._spoken_settings = self._session_settings()
        audio = AudioFormat(format="pcm_s16le", sample_rate=self.sample_rate)
        async with AsyncExitStack() as stack:
            self._dialogue = await stack.enter_async_context(
                connect(self._url, voices=voices, audio=audio, language=language, words=self._words, **self._options)
            )
            self._opened = stack.pop_all()

    async def _disconnect_websocket(self) -> None:
        opened, self._opened, self._dialogue = self._opened, None, None
        await self.stop_all_metrics()  # type: ignore[no-untyped-call]
        if opened is not None:
            await opened.aclose()
            await self._call_event_handler("on_disconnected")

    async def _reconnect_websocket(self, attempt_number: int) -> bool:
        # The text at hand may have opened a dialogue already.
        return self._dialogue is not None or await super()._reconnect_websocket(attempt_number)

    async def _verify_connection(self) -> bool:
        return self._dialogue is not None

    def _is_keepalive_ready(self) -> bool:
        return self._dialogue is not None

    async def _receive_messages(self) -> None:
        if self._dialogue is None:
            raise ConnectionLost("there is no dialogue")
        failure: ClientError | None = None
        try:
            async for event in self._dialogue.events():
                await self._take(event)
        except ClientError as error:
            failure = error
        await self._end_contexts()
        await self._forget_turns()
        await self._disconnect_websocket()
        if failure is not None:
            await self._report_error(error_frame(failure))
            raise failure

    async def _end_context(self, context_id: str) -> None:
        if self.audio_context_available(context_id):
            await self.stop_ttfb_metrics()
            await self.append_to_audio_context(context_id, TTSStoppedFrame(context_id=context_id))
            await self.remove_audio_context(context_id)

    async def _end_contexts(self) -> None:
        """Nothing more comes for the audio contexts that are open."""
        for context_id in self.get_audio_contexts():
            await self.append_to_audio_context(context_id, TTSStoppedFrame(context_id=context_id))
        await self._close_connection_contexts()  # type: ignore[no-untyped-call]
        logger.warning(f"{self}: the dialogue is over; the next one knows nothing of it")

    def _now_ms(self) -> float:
        return self.get_clock().get_time() / 1e6
