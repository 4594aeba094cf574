"""What one call does, between the phone's socket and the dialogue; `PhoneLine` is its face, `bridging` drives it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from streamer_client.dialogue import Dialogue
from streamer_client.errors import ClientError
from streamer_client.events import Audio, Event
from streamer_client.twilio.events import CallEvent, HungUp
from streamer_client.twilio.messages import Clear, Mark, MarkBody, Media, MediaBody, ToTwilio, encode
from streamer_client.twilio.playhead import Playhead
from streamer_client.twilio.sockets import SOCKET_ERRORS, PhoneSocket
from streamer_client.twilio.turns import Turns
from streamer_protocol import Error, TurnCompleted, TurnStarted, TurnTruncated

MARK_EVERY_MS = 200.0
REPORT_EVERY_MS = 1000.0
MAX_UNREAD_EVENTS = 1024


class Call:
    """One call. `dialogue` is None before the session is open, and again once the call is over."""

    def __init__(self, socket: PhoneSocket, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.socket = socket
        self.stream_sid = ""
        self.dialogue: Dialogue | None = None
        self.turns = Turns()
        self.over = False
        self.hang_up: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._clock_s = clock_s
        self._playhead = Playhead()
        self._events: deque[CallEvent] = deque(maxlen=MAX_UNREAD_EVENTS)
        self._changed = asyncio.Event()
        self._to_report = asyncio.Event()
        self._reported_ms = 0.0

    def emit(self, *events: CallEvent) -> None:
        """Tell the program; after the end there is nothing to tell."""
        if not self.over:
            self._events.extend(events)
        self._changed.set()

    def end(self, why: HungUp) -> None:
        """Nothing is said or heard any more."""
        self.emit(why)
        self.over = True
        self.dialogue = None

    async def next_event(self) -> CallEvent | None:
        """The next event; None after the last."""
        while not self._events:
            if self.over:
                return None
            await self.change()
        return self._events.popleft()

    async def change(self) -> None:
        """Return when something has happened."""
        self._changed.clear()
        await self._changed.wait()

    async def take(self, event: Event) -> None:
        """What the dialogue says. Audio goes to the phone at once: Twilio keeps it until it is played."""
        if isinstance(event, Audio):
            await self._play(event)
        elif isinstance(event, TurnStarted):
            self.turns.started(event.turn)
        elif isinstance(event, TurnCompleted):
            if self._playhead.unmarked_ms:
                await self._mark()
            self.emit(*self.turns.completed(event))
        elif isinstance(event, TurnTruncated):
            self.emit(*self.turns.truncated(event))
        elif isinstance(event, Error):
            self.emit(*self.turns.failed(event))

    def mark_returned(self, name: str) -> None:
        """The phone has played what was sent before this mark; one that we do not wait for comes to nothing."""
        playhead = self._playhead
        if not playhead.returned(name, self._clock_s()):
            return
        self.emit(*self.turns.heard(playhead.confirmed_ms))
        silent = playhead.confirmed_ms >= playhead.sent_ms
        if silent or playhead.confirmed_ms - self._reported_ms >= REPORT_EVERY_MS:
            self._to_report.set()

    async def report(self, dialogue: Dialogue) -> None:
        """Tell the server what was heard, about once a second and when it is silent; runs until it is cancelled."""
        with suppress(ClientError):
            while True:
                await self._to_report.wait()
                self._to_report.clear()
                self._reported_ms = self._playhead.confirmed_ms
                await dialogue.played(round(self._reported_ms))

    async def interrupt(self) -> None:
        """Stop what is being said, on the phone first. Without anything to stop, nothing happens."""
        if self.dialogue is None or not self.turns.speaking:
            return
        # Before any wait: no audio of these turns leaves from here on.
        heard_ms = self._playhead.cut(self._clock_s())
        self.emit(*self.turns.cut(heard_ms))
        await self._send(Clear(self.stream_sid))
        if self.dialogue is not None:
            await self.dialogue.cancel(played_ms=heard_ms)

    async def _play(self, audio: Audio) -> None:
        begin_ms = self._playhead.sent_ms
        if not self.turns.admit(audio.turn, begin_ms, begin_ms + audio.duration_ms):
            return
        self._playhead.send(audio.duration_ms, self._clock_s())
        await self._send(Media(self.stream_sid, MediaBody(audio.payload)))
        if self._playhead.unmarked_ms >= MARK_EVERY_MS:
            await self._mark()

    async def _mark(self) -> None:
        await self._send(Mark(self.stream_sid, MarkBody(self._playhead.mark())))

    async def _send(self, message: ToTwilio) -> None:
        # Whoever reads the socket notices that it is gone, and ends the call.
        with suppress(*SOCKET_ERRORS):
            await self.socket.send(encode(message))
