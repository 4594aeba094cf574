"""The engine: one thread that decodes all sessions together, a row each per step.

Other threads talk to it by commands, it answers through each request's sink. Sequences join and leave the batch at
any row; whatever way one ends, its slot and blocks are free before its Finished event is delivered.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np
import torch

from streamer.codec import AudioCodec
from streamer.engine.blocks import BlockManager
from streamer.engine.config import EngineConfig, Holdings, policy_for
from streamer.engine.counters import Counters, StepMeter
from streamer.engine.events import (
    EngineEvent,
    Finished,
    FinishReason,
    FrameReady,
    GenerationRequest,
    Queued,
    Sink,
    Started,
)
from streamer.engine.playback import PlaybackClock
from streamer.engine.runner import CodecStreamHandle, Generation, Runner
from streamer.engine.scheduler import Plan, Refused, Scheduler
from streamer.engine.step_times import StepTimes
from streamer.models import BLOCK_ROWS, DelayModel, DelayState, FrameAssembler

_log = logging.getLogger(__name__)
# A listener with this much in hand does not notice when a frame comes a few steps later.
_CAN_WAIT_S = 1.0
_BROKEN = "the model's numbers broke down (NaN or infinity)"


class Engine:
    """Runs generations on its own thread. All public methods may be called from any thread."""

    def __init__(self, model: DelayModel, codec: AudioCodec, config: EngineConfig | None = None) -> None:
        self.config = c = config or EngineConfig()
        self.model = model
        self.codec = codec
        blocks = BlockManager(c.kv_rows // BLOCK_ROWS, BLOCK_ROWS)
        times = StepTimes()
        frame_s = codec.config.frame_samples / codec.config.sampling_rate
        self._scheduler: Scheduler[Generation] = Scheduler(
            blocks,
            policy_for(c, model.config.n_vq, frame_s, times),
            n_slots=c.max_batch,
            max_waiting=c.max_waiting,
            prefill_chunk_rows=c.prefill_chunk_rows,
            max_unsent_frames=c.max_unsent_frames,
            frame_s=frame_s,
        )
        self._meter = StepMeter(times)
        self._n_refused = 0
        captured = model.device.type == "cuda" if c.captured is None else c.captured
        self._runner = Runner(
            model,
            codec,
            n_blocks=blocks.n_blocks,
            n_slots=c.max_batch,
            n_streams=c.max_sessions,
            max_sequence_rows=c.max_sequence_rows,
            kv_dtype=torch.float8_e4m3fn if c.kv_format == "fp8" else model.dtype,
            bf16_codec=c.bf16_codec,
            group_frames=1 if captured else c.group_frames,
            captured=captured,
        )
        self._wake = threading.Condition()
        self._commands: deque[Callable[[], None]] = deque()
        self._streams: dict[CodecStreamHandle, PlaybackClock] = {}
        self._live: set[Generation] = set()
        self._stopping = False
        self._admittable = False
        self._busy = False
        self._ended = False
        self._step_failure: str | None = None
        self._leak: str | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def failure(self) -> str | None:
        """What is wrong: a leak, or the last step's error until a step succeeds again; None in health."""
        return self._leak or self._step_failure

    def start(self) -> Engine:
        """Start the thread."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End every generation as cancelled, then the thread; returns when it has ended."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def open_stream(self) -> CodecStreamHandle:
        """A codec stream for a new session; raises :class:`Refused` when all sessions are taken."""
        with self._wake:
            if self._stopping:
                raise Refused("shutting_down", "the engine is stopping")
            if len(self._streams) >= self.config.max_sessions:
                raise Refused("overloaded", f"all {self.config.max_sessions} sessions are taken", 1000)
            stream = CodecStreamHandle()
            self._streams[stream] = PlaybackClock()
            return stream

    def close_stream(self, stream: CodecStreamHandle) -> None:
        """Give a session's codec stream back, ending any generation that still feeds it; twice does no harm."""
        with self._wake:
            if stream in self._streams:
                del self._streams[stream]
                self._command(lambda: self._close_stream(stream))

    def submit(self, request: GenerationRequest, stream: CodecStreamHandle, sink: Sink) -> Generation:
        """Queue a request; its events go to ``sink``, ending with one :class:`Finished`. Raises :class:`Refused`."""
        state = DelayState.after_prompt(self.model.config, request.prompt_rows[:, 0].tolist())
        if not state.is_audio:
            raise ValueError("prompt_rows: the prompt must end in audio_start or in a generation slot")
        generation = Generation(
            n_prompt_rows=len(request.prompt_rows),
            max_rows=request.max_rows,
            prefix_keys=self._scheduler.blocks.prefix_keys(request.prompt_rows.numpy()),
            request=request,
            sink=sink,
            stream=stream,
            state=state,
            assembler=FrameAssembler(self.model.config.n_vq, self.model.config.audio_pad_code),
        )
        with self._wake:
            if self._stopping:
                raise Refused("shutting_down", "the engine is stopping")
            if stream not in self._streams:
                raise Refused("internal", "the session's codec stream is closed")
            generation.clock = self._streams[stream]
            try:
                n_rows, limit = generation.n_prompt_rows + generation.max_rows, self.config.max_sequence_rows
                if n_rows > limit:
                    raise Refused("text_too_long", f"prompt and turn may take {n_rows} rows, the limit is {limit}")
                self._scheduler.submit(generation, time.monotonic())
            except Refused:
                self._n_refused += 1
                raise
            self._live.add(generation)
            self._admittable = True
            self._wake.notify_all()
        return generation

    def cancel(self, generation: Generation) -> None:
        """Stop a generation before its next row; harmless when it is over already."""
        with self._wake:
            self._command(lambda: self._finish(generation, "cancelled"))

    def consumed(self, generation: Generation, n_frames: int) -> None:
        """The reader took ``n_frames``: a generation paused by a slow reader goes on."""
        with self._wake:
            self._command(lambda: self._consume(generation, n_frames))

    def played(self, stream: CodecStreamHandle, played_ms: float) -> None:
        """The listener's report: so much of the session's audio, less what was flushed, has been heard by now."""
        now_s = time.monotonic()
        self._with_clock(stream, lambda clock: clock.played(played_ms / 1000, now_s))

    def flushed(self, stream: CodecStreamHandle) -> None:
        """The listener threw away what was not heard yet, as at a barge-in: the next frame follows silence."""
        now_s = time.monotonic()

        def flush(clock: PlaybackClock) -> None:
            clock.flush(clock.made_s, now_s)
            # What the codec remembers was not heard; the next frame takes a fresh place.
            self._runner.close_stream(stream)

        self._with_clock(stream, flush)

    def counters(self) -> Counters:
        """What was done so far and what is under way. A thread-safe snapshot."""
        with self._wake:
            return self._meter.snapshot(self._scheduler, self._n_refused)

    def holdings(self) -> Holdings:
        """What is held now. A thread-safe snapshot."""
        with self._wake:
            return self._holdings()

    def wait_idle(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing runs, waits or is being given back; False if that took longer than ``timeout_s``."""
        with self._wake:
            return self._wake.wait_for(lambda: not (self._live or self._commands or self._busy), timeout_s)

    def _holdings(self) -> Holdings:
        s = self._scheduler
        return Holdings(s.n_held_slots, s.blocks.n_held, len(s.waiting), len(self._streams), self._runner.streams.held)

    def _with_clock(self, stream: CodecStreamHandle, change: Callable[[PlaybackClock], None]) -> None:
        with self._wake:
            clock = self._streams.get(stream)
            if clock is not None:
                self._command(lambda: change(clock))

    def _command(self, command: Callable[[], None]) -> None:
        if self._ended:
            # Nobody runs commands any more, and nobody else touches what they touch.
            command()
            return
        self._commands.append(command)
        # All are woken, because the engine is not the only one who may be waiting.
        self._wake.notify_all()

    # What follows runs on the engine's thread.

    def _run(self) -> None:
        while True:
            try:
                plan = self._wait_for_work()
                if plan is None:
                    break
                self._step(plan)
                self._step_failure = None
            except Exception as error:
                _log.exception("engine step failed")
                self._meter.rest()
                self._step_failure = f"{type(error).__name__}: {error}"
                # Waiting ones too: were they the cause, the engine would fail on them for ever.
                self._finish_all("error", "the engine failed while this turn was generated")
        self._finish_all("cancelled")
        with self._wake:
            self._ended = True
            while self._commands:
                self._commands.popleft()()
            self._busy = False
            self._wake.notify_all()

    def _wait_for_work(self) -> Plan[Generation] | None:
        """Run commands, admit what can run, and sleep while there is nothing to do; None when it is time to stop."""
        while True:
            with self._wake:
                self._busy = True
                self._admittable = False
                if self._stopping and not self._commands:
                    return None
            # One by one, so that a command that fails takes no other with it.
            while self._commands:
                self._commands.popleft()()
            now_s = time.monotonic()
            self._admit(now_s)
            plan = self._scheduler.plan(now_s)
            if not plan.empty:
                self._meter.begin(plan, now_s)
                return plan
            self._meter.rest()
            self._check_rest()
            with self._wake:
                # With nothing to do, another thread brings work, or time does to one who rests.
                self._busy = False
                self._wake.notify_all()
                wakes_s = self._scheduler.wakes_s()
                rest_s = None if wakes_s is None else max(wakes_s - now_s, 0.0)
                self._wake.wait_for(lambda: self._stopping or self._commands or self._admittable, rest_s)

    def _admit(self, now_s: float) -> None:
        with self._wake:
            admission = self._scheduler.admit(now_s)
            waiting = list(self._scheduler.waiting)
        self._meter.parked(len(admission.parked))
        for generation in admission.parked:
            self._runner.park(generation)
        for generation in admission.resumed:
            self._runner.resume(generation)
        for generation in admission.started:
            self._tell(generation, Started(generation.n_prefilled_rows))
        for position, generation in enumerate(waiting, start=1):
            if generation.queue_position != position:
                generation.queue_position = position
                self._tell(generation, Queued(position))

    def _step(self, plan: Plan[Generation]) -> None:
        for g, n_rows in plan.pieces:
            if g not in self._live:
                continue  # a piece before this one broke down
            if self._runner.prefill(g, n_rows):
                self._scheduler.prefilled(g, n_rows)
            else:
                self._finish(g, "error", _BROKEN)
        batch = plan.decode
        if not batch:
            return
        for g in batch:
            # The tail takes n_vq rows; begun in time, even a turn cut short ends with whole frames.
            if g.state.delayed_length is None:
                g.state.tail_requested = len(g.rows) + self.model.config.n_vq >= g.max_rows
        sampled, broken = self._runner.sample(batch)
        for g in broken:
            self._finish(g, "error", _BROKEN)
        self._scheduler.decoded(sampled)
        drawn_s = time.monotonic()
        results = self._runner.frames(sampled, lambda g: g.clock.lead_s(drawn_s) >= _CAN_WAIT_S)
        now_s = time.monotonic()
        self._meter.frames([self._scheduler.frame_made(r.generation, now_s) for r in results])
        for result in results:
            codes = np.asarray(result.codes)
            frame = FrameReady(codes, result.audio, last=result.last, text_row=result.text_row)
            self._tell(result.generation, frame)
        going_on = []
        for g in sampled:
            if g not in self._live:
                continue  # its sink raised: the slot is another's by now
            if g.over:
                self._finish(g, "max_length" if g.state.tail_requested else "end")
            else:
                going_on.append(g)
        if going_on:
            self._runner.forward(going_on)

    def _finish(self, generation: Generation, reason: FinishReason, error: str | None = None) -> None:
        with self._wake:
            if generation not in self._live:
                return
            self._live.remove(generation)
            self._admittable = True
            blocks = generation.lease.blocks
            freed = self._scheduler.remove(generation, heard=reason != "cancelled")
            if reason == "error":
                # Rows that may be NaN must reach no other session: not by sharing, not by reuse.
                self._scheduler.blocks.forget(blocks)
        if reason == "error":
            try:
                self._runner.pool.clear(freed)
            except Exception:
                # A device that is gone fails here too; its turns must be told all the same.
                _log.exception("blocks could not be cleared")
        width = 1 + self.model.config.n_vq
        rows = np.asarray(generation.rows, dtype=np.int64).reshape(-1, width)
        self._tell(generation, Finished(reason, rows, error))

    def _finish_all(self, reason: FinishReason, error: str | None = None) -> None:
        with self._wake:
            live = list(self._live)
        for generation in live:
            self._finish(generation, reason, error)

    def _tell(self, generation: Generation, event: EngineEvent) -> None:
        try:
            generation.sink(event)
        except Exception:
            _log.exception("a sink raised; its generation is ended")
            self._finish(generation, "cancelled")

    def _consume(self, generation: Generation, n_frames: int) -> None:
        generation.unsent_frames = max(0, generation.unsent_frames - n_frames)

    def _close_stream(self, stream: CodecStreamHandle) -> None:
        with self._wake:
            feeding = [g for g in self._live if g.stream is stream]
        for generation in feeding:
            self._finish(generation, "cancelled")
        self._runner.close_stream(stream)

    def _check_rest(self) -> None:
        """Nothing runs: then nothing may be held."""
        with self._wake:
            held = self._holdings()
            # A command still to be run may be the one that gives back.
            at_rest = not self._live and not self._commands
        if at_rest and (held.slots or held.blocks or held.waiting or held.stream_places > held.streams):
            self._leak = f"resources leaked: {held}"
            _log.error(self._leak)
