"""What the server tells Prometheus: its own counts, and the engine's figures at the moment they are asked for.

Counts are plain integers that only the event loop changes: a counter with a lock costs more than a frame may.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from streamer import __version__
from streamer.engine.counters import STEP_BOUNDS_S, Counters
from streamer.performance import TurnReport
from streamer.server.logs import dropped_records
from streamer.speech import Speech
from streamer_protocol import ErrorCode

Sent = Literal["audio", "message"]

FIRST_AUDIO_BOUNDS_S: Final = (0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)
REAL_TIME_BOUNDS: Final = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 3.0)
# More routes than the server has: a caller who passes raw paths by mistake costs this much memory and no more.
_MAX_ROUTES: Final = 64
_OTHER: Final = "other"
_CODES: Final = frozenset(code.value for code in ErrorCode)


class _Distribution:
    """How often a value fell between bounds, and the sum of all values."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        return _histogram(name, text, self._bounds, self._counts, self._sum)


class _Tally:
    """Totals by labels, which the caller keeps few."""

    def __init__(self, *labels: str) -> None:
        self._labels = labels
        self.counts: dict[tuple[str, ...], float] = {}

    def add(self, *values: str, n: float = 1) -> None:
        self.counts[values] = self.counts.get(values, 0) + n

    def family(self, name: str, text: str) -> CounterMetricFamily:
        family = CounterMetricFamily(name, text, labels=self._labels)
        for values, count in sorted(self.counts.items()):
            family.add_metric(values, count)
        return family


class Metrics(Collector):
    """One server's figures, in a registry of its own. Everything but :meth:`render` belongs to the event loop.

    ``n_sockets``: how many WebSockets are open now.
    """

    def __init__(self, speech: Speech, n_sockets: Callable[[], int]) -> None:
        self._speech = speech
        self._n_sockets = n_sockets
        self._opened = self._closed = self._resumed = 0
        # [messages, bytes]
        self._sent = {"audio": [0, 0], "message": [0, 0]}
        self._received = [0, 0]
        self._turns = _Tally("reason")
        self._refusals = _Tally("code")
        self._requests = _Tally("route", "status")
        self._routes: set[str] = set()
        self._audio_s = 0.0
        self._first_audio = _Distribution(FIRST_AUDIO_BOUNDS_S)
        self._real_time = _Distribution(REAL_TIME_BOUNDS)
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def session_opened(self) -> None:
        """A session was started."""
        self._opened += 1

    def session_closed(self) -> None:
        """A session has ended, for good."""
        self._closed += 1

    def session_resumed(self) -> None:
        """A session went on over a new connection."""
        self._resumed += 1

    def turn_completed(self, report: TurnReport) -> None:
        """A turn is over, whatever way."""
        self._turns.add(report.reason)
        self._audio_s += report.audio_ms / 1000
        if report.ttfa_ms is not None:
            self._first_audio.add(report.ttfa_ms / 1000)
        if report.rtf is not None:
            self._real_time.add(report.rtf)

    def refused(self, code: str) -> None:
        """A client was told an error; codes that the protocol does not have count as ``other``."""
        self._refusals.add(str(code) if code in _CODES else _OTHER)

    def received(self, n_bytes: int) -> None:
        """A WebSocket message came in."""
        self._received[0] += 1
        self._received[1] += n_bytes

    def sent(self, kind: Sent, n_bytes: int) -> None:
        """A WebSocket message left."""
        counts = self._sent[kind]
        counts[0] += 1
        counts[1] += n_bytes

    def http_request(self, route: str, status: int) -> None:
        """An HTTP request was answered. ``route`` is the pattern that matched, such as ``/v1/voices/{id}``."""
        if route not in self._routes:
            if len(self._routes) >= _MAX_ROUTES:
                route = _OTHER
            self._routes.add(route)
        self._requests.add(route, str(status))

    def render(self, accept: str) -> tuple[bytes, str]:
        """The figures of now and their content type, OpenMetrics if the ``Accept`` header asks for it.

        Takes milliseconds: for a worker thread.
        """
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):
            # The library trips over versions that are none; who asks so gets what everyone understands.
            encode, content_type = choose_encoder("")
        return bytes(encode(self._registry)), content_type

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are unique, and asking the engine for them at registration would be too early."""
        return []

    def collect(self) -> Iterable[Metric]:
        """All families; called by the registry."""
        yield InfoMetricFamily("streamer_build", "Version and model.", _labels(self._speech))
        yield from self._traffic()
        yield from self._speaking()
        yield from _engine(self._speech)

    def _traffic(self) -> Iterable[Metric]:
        yield _gauge("streamer_sockets", "WebSockets open.", self._n_sockets())
        yield _gauge("streamer_sessions", "Sessions open.", self._opened - self._closed)
        yield _counter("streamer_sessions_opened", "Sessions started.", self._opened)
        yield _counter("streamer_sessions_resumed", "Sessions that went on over a new connection.", self._resumed)
        sent = list(self._sent.items())
        for i, what in enumerate(("messages", "bytes")):
            family = CounterMetricFamily(f"streamer_sent_{what}", f"WebSocket {what} sent, by kind.", labels=["kind"])
            for kind, counts in sent:
                family.add_metric([kind], counts[i])
            yield family
            yield _counter(f"streamer_received_{what}", f"WebSocket {what} received.", self._received[i])
        yield self._refusals.family("streamer_refusals", "Errors told to clients, by code.")
        yield self._requests.family("streamer_http_requests", "HTTP requests answered, by route and status.")
        yield _counter("streamer_log_dropped", "Log lines dropped, their reader too slow.", dropped_records())

    def _speaking(self) -> Iterable[Metric]:
        yield self._turns.family("streamer_turns", "Turns over, by reason.")
        yield _counter("streamer_turn_audio_seconds", "Audio of turns that are over.", self._audio_s)
        text = "From when a turn could begin to its first audio sent."
        yield self._first_audio.family("streamer_turn_first_audio_seconds", text)
        text = "Time spent on a turn by the length of its audio: below 1 is faster than real time."
        yield self._real_time.family("streamer_turn_real_time_factor", text)


def _engine(speech: Speech) -> Iterable[Metric]:
    engine = speech.engine
    c, held = engine.counters(), engine.holdings()
    gauges = {
        "healthy": ("1 while the engine works, 0 after a failure.", float(engine.failure is None)),
        "streams": ("Sessions that hold a place in the engine.", held.streams),
        "streams_limit": ("Sessions that the engine has places for.", engine.config.max_sessions),
        "queue_length": ("Turns that wait for the engine.", c.waiting),
        "queue_limit": ("Turns that may wait before more are refused.", engine.config.max_waiting),
        "turns_running": ("Turns with a slot in the batch.", c.running),
        "turns_resting": ("Turns paused, far ahead of their listeners.", c.resting),
        "turns_parked": ("Turns that have lent their slot to another.", c.lending),
        "batch_size": ("Turns decoded in the newest step.", c.batch),
        "batch_limit": ("Turns that a step can decode.", engine.config.max_batch),
        "kv_blocks_used": ("KV cache blocks held by turns.", held.blocks),
        "kv_blocks_limit": ("KV cache blocks.", c.kv_blocks),
    }
    for name, (text, value) in gauges.items():
        yield _gauge(f"streamer_engine_{name}", text, value)
    if c.least_lead_s is not None:
        text = "Audio in hand of the listener nearest to running dry."
        yield _gauge("streamer_engine_least_lead_seconds", text, c.least_lead_s)
    for name, (text, value) in _engine_totals(c).items():
        yield _counter(f"streamer_engine_{name}", text, value)
    text = "Time of a step, from its beginning to the next one's."
    yield _histogram("streamer_engine_step_seconds", text, STEP_BOUNDS_S, c.step_times, c.step_s)


def _engine_totals(c: Counters) -> dict[str, tuple[str, float]]:
    return {
        "steps": ("Steps begun.", c.steps),
        "decoded_rows": ("Rows decoded.", c.decoded_rows),
        "prefilled_rows": ("Rows of prompts computed.", c.prefilled_rows),
        "frames": ("Audio frames made, 80 ms each.", c.frames),
        "refused": ("Turns refused by the engine.", c.refused),
        "parked": ("Slots lent to other turns.", c.parked),
        "predicted_underruns": ("Frames made after their listener, by its clock, had run dry.", c.predicted_underruns),
        "predicted_underrun_seconds": ("Silence that those listeners heard, by their clocks.", c.predicted_underrun_s),
    }


def _labels(speech: Speech) -> dict[str, str]:
    return {"version": __version__, "model": speech.name}


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _histogram(
    name: str, text: str, bounds: Sequence[float], counts: Sequence[int], total: float
) -> HistogramMetricFamily:
    """From counts between bounds, the last one of what lies above all; Prometheus wants them summed up."""
    buckets: list[tuple[str, float]] = []
    n = 0
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        n += count
        buckets.append((bound, n))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=total)
