"""Spans: a session and its turns, by an exporter in memory; and nothing at all where OpenTelemetry is missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from streamer.server.tracing import SessionTrace, span


@pytest.fixture(scope="module")
def in_memory() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # A process has one provider for good.
    trace.set_tracer_provider(provider)
    yield exporter
    provider.shutdown()


@pytest.fixture
def exporter(in_memory: InMemorySpanExporter) -> InMemorySpanExporter:
    in_memory.clear()
    return in_memory


def finished(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """Spans that are over, turns by their ids."""
    spans: dict[str, ReadableSpan] = {}
    for one in exporter.get_finished_spans():
        attributes: Any = one.attributes
        spans[str(attributes.get("turn", one.name))] = one
    return spans


def test_a_session_is_a_span_and_its_turns_lie_below_it(exporter: InMemorySpanExporter) -> None:
    session = SessionTrace(session="s-1", key=None)
    session.turn_opened("a", speaker="S1")
    session.turn_event("a", "queued", position=2)
    session.turn_opened("b")
    session.turn_event("a", "prefill")
    session.turn_event("a", "first_audio", ttfa_ms=70.5)
    session.turn_ended("a", "end", frames=14)
    session.turn_ended("b", "error")
    assert "session" not in finished(exporter)
    session.end("closed by the client")
    spans = finished(exporter)
    whole, a, b = spans["session"], spans["a"], spans["b"]
    assert whole.attributes == {"session": "s-1", "reason": "closed by the client"}
    for turn in (a, b):
        assert turn.name == "turn"
        assert turn.parent is not None
        assert whole.context is not None
        assert turn.parent.span_id == whole.context.span_id
    assert a.attributes == {"turn": "a", "speaker": "S1", "reason": "end", "frames": 14}
    assert [event.name for event in a.events] == ["queued", "prefill", "first_audio"]
    assert a.events[0].attributes == {"position": 2}
    assert a.status.is_ok
    assert b.status.status_code is trace.StatusCode.ERROR


def test_the_end_of_a_session_ends_its_turns_and_later_words_do_nothing(exporter: InMemorySpanExporter) -> None:
    session = SessionTrace()
    session.turn_opened("a")
    session.turn_opened("a")
    session.turn_event("unknown", "queued")
    session.turn_ended("unknown", "end")
    for _ in range(2):
        session.end("gone")
    session.turn_opened("b")
    session.turn_event("a", "first_audio")
    session.turn_ended("b", "end")
    names = sorted(str(one.name) for one in exporter.get_finished_spans())
    assert names == ["session", "turn"]
    assert dict(finished(exporter)["a"].attributes or {})["reason"] == "cancelled"


def test_a_block_is_a_span_and_its_failure_is_marked_without_its_words(exporter: InMemorySpanExporter) -> None:
    with span("outer", n=1, nothing=None):
        with pytest.raises(ValueError, match="private words"):
            with span("inner"):
                raise ValueError("private words")
    spans = finished(exporter)
    assert spans["outer"].attributes == {"n": 1}
    assert spans["inner"].parent == spans["outer"].context
    assert spans["inner"].attributes == {"error.type": "ValueError"}
    assert spans["inner"].status.status_code is trace.StatusCode.ERROR
    assert "private" not in spans["inner"].to_json()


@pytest.mark.parametrize("hide", ["import sys; sys.modules['opentelemetry'] = None\n", ""], ids=["missing", "unset"])
def test_without_opentelemetry_or_its_exporter_nothing_happens(hide: str) -> None:
    script = (
        f"{hide}"
        "from streamer.server.tracing import SessionTrace, TracingUnavailable, span, start_tracing\n"
        "with span('x', n=1):\n"
        "    session = SessionTrace(session='s')\n"
        "    session.turn_opened('a')\n"
        "    session.turn_event('a', 'queued', position=1)\n"
        "    session.turn_ended('a', 'error')\n"
        "    session.end('done')\n"
        "import sys; sys.modules['opentelemetry.exporter'] = None\n"
        "try:\n"
        "    start_tracing('http://localhost:4318/v1/traces')\n"
        "except TracingUnavailable as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "pip install 'dialogue-streamer[otel]'" in done.stdout
    assert done.stderr == ""
