"""An agent that is interrupted: silence at once, and both the server and the LLM's context keep what was heard."""

from __future__ import annotations

from typing import Any

from clients.pipecat_running import CHUNK_MS, Call, calling, reply_frames
from msgspec.structs import replace
from pipecat.frames.frames import (
    InterruptionFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from server.test_server_live_text import texts
from serving import LIMITS, running

from streamer.server import DialogueServer
from streamer_client import Sampling
from streamer_client.pipecat import DialogueTTSService

GREEDY = Sampling(audio_temperature=0, text_temperature=0)
LONG = replace(LIMITS, max_turn_audio_ms=8000)
TEXT = "One two three four five six seven eight nine ten."
CHUNKS = 12
HEARD_MS = CHUNKS * CHUNK_MS


class Truncations:
    """What the service tells of turns that were cut: (context, text, heard_ms)."""

    def __init__(self, tts: DialogueTTSService) -> None:
        self.told: list[tuple[str | None, str, int]] = []

        async def note(_: Any, context_id: str | None, text: str, heard_ms: int) -> None:
            self.told.append((context_id, text, heard_ms))

        tts.add_event_handler("on_turn_truncated", note)


def service(server: DialogueServer, **options: Any) -> DialogueTTSService:
    return DialogueTTSService(url=server.url, sampling=GREEDY, seed=1, **options)


async def played(call: Call, n_chunks: int) -> None:
    """Return when so many chunks were played, and no more can be."""
    await call.heard.until(lambda: len(call.heard.of(TTSAudioRawFrame)) >= n_chunks)


async def interrupted(call: Call) -> int:
    """Interrupt, and return how many frames the service had handed on by then."""
    await call.say(InterruptionFrame())
    await call.heard.until(lambda: call.heard.of(InterruptionFrame))
    return next(i for i, frame in enumerate(call.spoken.down) if isinstance(frame, InterruptionFrame))


async def test_an_interruption_while_the_turn_is_made() -> None:
    async with running(LONG, max_unsent_frames=3, max_lead_s=1.0) as server:
        tts = service(server)
        cuts = Truncations(tts)
        async with calling(tts, allowed_chunks=CHUNKS) as call:
            await call.reply(*(f"{word} " for word in TEXT.split()))
            await played(call, CHUNKS)
            at = await interrupted(call)
            await call.reply("Yes?")
            await call.spoken.until(lambda: len(call.contexts) > 1)
            call.speaker.allow(1000)
            await call.stopped(1)
        first, second = call.contexts
        after = [frame for frame in call.spoken.down[at:] if isinstance(frame, TTSAudioRawFrame | TTSStartedFrame)]
        assert {frame.context_id for frame in after} == {second}, "no sound of what was interrupted"
        ((context_id, text, heard_ms),) = cuts.told
        assert context_id == first
        assert heard_ms == HEARD_MS
        assert TEXT.startswith(text.removesuffix("."))
        assert text != TEXT
        # The dialogue goes on from what was heard.
        assert "ten" not in texts(server)[-1]
        assert "[S1]" + text in texts(server)[-1]
    assert TEXT.startswith(call.assistant_messages[0])
    assert "ten" not in call.assistant_messages[0]
    assert call.assistant_messages[1:] == ["Yes?"]
    assert not call.before.errors


async def test_an_interruption_when_all_audio_waits_in_the_transport() -> None:
    """The server is done and Pipecat's audio context closed; the listener is still in the middle of it."""
    async with running(LIMITS) as server:
        tts = service(server)
        cuts = Truncations(tts)
        async with calling(tts, allowed_chunks=CHUNKS) as call:
            await call.reply(TEXT)
            await call.stopped(1)
            await played(call, CHUNKS)
            await interrupted(call)
            await call.reply("Yes?")
            call.speaker.allow(1000)
            await call.stopped(2)
        assert [(context_id, heard_ms) for context_id, _, heard_ms in cuts.told] == [(call.contexts[0], HEARD_MS)]
        assert cuts.told[0][1] in TEXT
        assert "ten" not in texts(server)[-1]
    n_bytes = HEARD_MS * 24 * 2 + len(call.audio(call.contexts[1]))
    assert 0 <= len(call.speaker.played) - n_bytes <= CHUNK_MS * 24 * 2, "nothing else was played"
    assert call.assistant_messages[-1] == "Yes?"
    assert not call.before.errors


async def test_what_is_heard_to_its_end_is_not_cut() -> None:
    async with running() as server:
        tts = service(server)
        cuts = Truncations(tts)
        async with calling(tts) as call:
            await call.reply("Good morning.")
            await call.heard_out(1)
            await call.reply(TEXT)
            await call.heard_out(2)
            await interrupted(call)
            await call.reply("Yes?")
            await call.stopped(3)
        assert TEXT in texts(server)[-1]
    assert not cuts.told
    assert call.assistant_messages == ["Good morning.", TEXT, "Yes?"]


async def test_the_second_turn_counts_from_what_was_heard_of_the_first() -> None:
    """What the transport threw away is not played later, so it does not count."""
    async with running(LIMITS) as server:
        tts = service(server)
        cuts = Truncations(tts)
        async with calling(tts, allowed_chunks=CHUNKS) as call:
            await call.reply(TEXT)
            await call.stopped(1)
            await played(call, CHUNKS)
            await interrupted(call)
            await call.reply("Nine eight seven six five four three two one.")
            await call.stopped(2)
            # One chunk of the first turn was in the transport's hands.
            call.speaker.allow(CHUNKS + 1)
            await played(call, 2 * CHUNKS + 1)
            await call.say(InterruptionFrame())
            await call.heard.until(lambda: len(call.heard.of(InterruptionFrame)) == 2)
            await call.reply("Yes?")
            await call.stopped(3)
        assert [heard_ms for _, _, heard_ms in cuts.told] == [HEARD_MS, HEARD_MS]


async def test_an_interruption_before_anything_is_heard() -> None:
    async with running() as server:
        async with calling(service(server), allowed_chunks=0) as call:
            begin, *rest = reply_frames("Forget ", "this.")
            await call.say(begin, *rest[:-1])
            await call.spoken.until(lambda: call.contexts)
            await call.say(InterruptionFrame())
            await call.reply("Yes?")
            await call.spoken.until(lambda: len(call.contexts) > 1)
            call.speaker.allow(1000)
            await call.spoken.until(lambda: call.spoken.of(TTSStoppedFrame, call.contexts[1]))
        assert "Forget" not in texts(server)[-1]
    assert call.assistant_messages == ["Yes?"]
    assert not call.before.errors


async def test_what_must_not_be_interrupted_is_not() -> None:
    async with running() as server:
        tts = service(server)
        cuts = Truncations(tts)
        async with calling(tts, allowed_chunks=3) as call:
            notice = TTSSpeakFrame("This call is recorded.")
            notice.interruptible = False
            await call.say(notice)
            await played(call, 3)
            await interrupted(call)
            call.speaker.allow(1000)
            await call.stopped(1)
    assert not cuts.told
    assert bytes(call.speaker.played) == call.audio()
    assert "".join(f"{word.text} " for word in call.spoken.of(TTSTextFrame)) == "This call is recorded. "


async def test_two_interruptions_at_once() -> None:
    async with running(LIMITS) as server:
        tts = service(server)
        cuts = Truncations(tts)
        async with calling(tts, allowed_chunks=CHUNKS) as call:
            await call.reply(TEXT)
            await played(call, CHUNKS)
            await call.say(InterruptionFrame(), InterruptionFrame())
            await call.heard.until(lambda: len(call.heard.of(InterruptionFrame)) == 2)
            await call.reply("Yes?")
            call.speaker.allow(1000)
            await call.spoken.until(
                lambda: len(call.contexts) > 1 and call.spoken.of(TTSStoppedFrame, call.contexts[1])
            )
    assert [heard_ms for _, _, heard_ms in cuts.told] == [HEARD_MS]
    assert not call.before.errors
