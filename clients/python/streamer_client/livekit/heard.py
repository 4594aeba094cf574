"""What the listener really heard: from the framework's audio output to the dialogue's memory."""

from __future__ import annotations

import asyncio
from collections import deque

from livekit import rtc
from livekit.agents.voice import io

from streamer_client.livekit.streams import SPOKEN_TURN, SpokenTurn


class HeardOutput(io.AudioOutput):
    """Stands before the session's audio output, notes whose frames pass, and tells the server how far they were played.

    Frames that say nothing of a turn (other voices, resampled ones) pass unnoted.
    """

    def __init__(self, output: io.AudioOutput) -> None:
        super().__init__(
            label="DialogueStreamer",
            capabilities=io.AudioOutputCapabilities(pause=True),
            next_in_chain=output,
        )
        self._segments: deque[dict[SpokenTurn, float]] = deque()  # of each segment, the milliseconds of its turns
        self._capturing = False
        self._reports: set[asyncio.Task[None]] = set()

    @property
    def next_in_chain(self) -> io.AudioOutput:
        """What plays; the framework may put a stand-in before the output that was given."""
        assert self._next_in_chain is not None
        return self._next_in_chain

    @property
    def sample_rate(self) -> int | None:
        """Hz that the output wants, None for any."""
        return self.next_in_chain.sample_rate

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        """Pass a frame on."""
        await self.next_in_chain.capture_frame(frame)
        await super().capture_frame(frame)
        if not self._capturing:
            self._capturing = True
            self._segments.append({})
        spoken = frame.userdata.get(SPOKEN_TURN)
        if isinstance(spoken, SpokenTurn):
            segment = self._segments[-1]
            segment[spoken] = segment.get(spoken, 0.0) + frame.duration * 1000

    def flush(self) -> None:
        """The segment is complete."""
        super().flush()
        self._capturing = False
        self.next_in_chain.flush()

    def clear_buffer(self) -> None:
        """Stop playing."""
        self.next_in_chain.clear_buffer()

    def on_playback_finished(
        self, *, playback_position: float, interrupted: bool, synchronized_transcript: str | None = None
    ) -> None:
        """A segment was played so far, in seconds."""
        super().on_playback_finished(
            playback_position=playback_position,
            interrupted=interrupted,
            synchronized_transcript=synchronized_transcript,
        )
        if self._segments:
            report = asyncio.create_task(_report(self._segments.popleft(), playback_position * 1000, interrupted))
            self._reports.add(report)
            report.add_done_callback(self._reports.discard)


async def _report(turns: dict[SpokenTurn, float], played_ms: float, interrupted: bool) -> None:
    for spoken, captured_ms in turns.items():
        heard_ms = min(max(played_ms, 0.0), captured_ms)
        played_ms -= captured_ms
        await spoken.line.heard(spoken.turn, heard_ms, interrupted=interrupted)
