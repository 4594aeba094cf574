"""/metrics: what was counted, what the engine says of itself, and the bounds on labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from engine_reader import Reader, request
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from serving import WAIT_S, new_speech

from streamer import __version__
from streamer.engine import Engine, EngineConfig, EngineEvent, GenerationRequest, Refused
from streamer.engine.counters import STEP_BOUNDS_S
from streamer.models import SamplingParams
from streamer.null_engine import NullConfig, NullEngine
from streamer.performance import TurnReport
from streamer.server import DialogueServer
from streamer.server.metrics import Metrics
from streamer.server.readiness import readiness
from streamer.speech import Speech


@pytest.fixture
def speech() -> Iterator[Speech]:
    speech = new_speech(max_sessions=2, max_waiting=1, kv_rows=1024, max_lead_s=None)
    yield speech
    speech.close()


Samples = dict[tuple[str, ...], float]


def samples(metrics: Metrics) -> Samples:
    """All samples by name and label values."""
    families = text_string_to_metric_families(metrics.render("text/plain")[0].decode())
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def nowhere(event: EngineEvent) -> None:
    """A listener that takes no note."""


def test_what_the_server_reports_is_counted(speech: Speech) -> None:
    metrics = Metrics(speech, lambda: 7)
    for _ in range(3):
        metrics.session_opened()
    metrics.session_closed()
    metrics.session_resumed()
    metrics.received(100)
    metrics.sent("audio", 300)
    metrics.sent("audio", 5)
    metrics.sent("message", 20)
    metrics.http_request("/v1/voices/{id}", 404)
    metrics.turn_completed(TurnReport("a", 0, 10, 800, 120.0, 0.25, "end"))
    metrics.turn_completed(TurnReport("b", 1, 0, 0, None, None, "cancelled"))
    got = samples(metrics)
    assert got["streamer_sockets",] == 7
    assert got["streamer_sessions",] == 2
    assert got["streamer_sessions_opened_total",] == 3
    assert got["streamer_sessions_resumed_total",] == 1
    assert (got["streamer_received_messages_total",], got["streamer_received_bytes_total",]) == (1, 100)
    assert got["streamer_sent_messages_total", "audio"] == 2
    assert got["streamer_sent_bytes_total", "audio"] == 305
    assert got["streamer_sent_bytes_total", "message"] == 20
    assert got["streamer_http_requests_total", "/v1/voices/{id}", "404"] == 1
    assert got["streamer_turns_total", "end"] == got["streamer_turns_total", "cancelled"] == 1
    assert got["streamer_turn_audio_seconds_total",] == pytest.approx(0.8)
    # A turn in which nothing was spoken has no first audio.
    assert got["streamer_turn_first_audio_seconds_count",] == 1
    assert got["streamer_turn_first_audio_seconds_sum",] == pytest.approx(0.12)
    assert got["streamer_turn_first_audio_seconds_bucket", "0.1"] == 0
    assert got["streamer_turn_first_audio_seconds_bucket", "0.15"] == 1
    assert got["streamer_turn_first_audio_seconds_bucket", "+Inf"] == 1
    assert got["streamer_turn_real_time_factor_bucket", "0.2"] == 0
    assert got["streamer_turn_real_time_factor_bucket", "0.3"] == 1
    assert got["streamer_build_info", speech.name, __version__] == 1
    assert got["process_resident_memory_bytes",] > 0


def test_peers_can_not_make_up_labels(speech: Speech) -> None:
    metrics = Metrics(speech, lambda: 0)
    for n in range(1000):
        metrics.refused(f"code-{n}")
        metrics.http_request(f"/{n}", 404)
    metrics.refused("queue_full")
    got = samples(metrics)
    assert {key[1]: n for key, n in got.items() if key[0] == "streamer_refusals_total"} == {
        "other": 1000,
        "queue_full": 1,
    }
    requests = {key[1]: n for key, n in got.items() if key[0] == "streamer_http_requests_total"}
    assert len(requests) < 100
    assert sum(requests.values()) == 1000


def test_the_engines_figures_are_those_of_the_moment(speech: Speech) -> None:
    metrics = Metrics(speech, lambda: 0)
    before = samples(metrics)
    assert before["streamer_engine_healthy",] == 1
    assert before["streamer_engine_steps_total",] == before["streamer_engine_streams",] == 0
    assert before["streamer_engine_streams_limit",] == 2
    assert before["streamer_engine_kv_blocks_limit",] == 1024 / 16
    stream = speech.engine.open_stream()
    speech.engine.submit(request(max_rows=40), stream, nowhere)
    with pytest.raises(Refused):
        speech.engine.submit(request(max_rows=100_000), stream, nowhere)
    assert speech.engine.wait_idle(WAIT_S)
    got = samples(metrics)
    assert got["streamer_engine_streams",] == 1
    assert got["streamer_engine_refused_total",] == 1
    assert got["streamer_engine_decoded_rows_total",] >= 30
    assert got["streamer_engine_prefilled_rows_total",] == len(request().prompt_rows)
    assert got["streamer_engine_frames_total",] >= 20
    # Every step is timed but the last before a rest.
    n_timed = got["streamer_engine_step_seconds_count",]
    assert got["streamer_engine_steps_total",] > n_timed >= 20
    assert got["streamer_engine_step_seconds_bucket", "+Inf"] == n_timed
    assert 0 < got["streamer_engine_step_seconds_sum",] < n_timed * STEP_BOUNDS_S[-1]
    speech.engine.close_stream(stream)
    assert samples(metrics)["streamer_engine_streams",] == 0


def test_servers_of_one_process_count_for_themselves(speech: Speech) -> None:
    one, other = Metrics(speech, lambda: 1), Metrics(speech, lambda: 2)
    one.session_opened()
    assert samples(one)["streamer_sessions",] == 1
    assert samples(other)["streamer_sessions",] == 0


def test_the_null_engine_has_figures_too(speech: Speech) -> None:
    audio = np.zeros((3, 1920), np.float32)
    null = NullEngine(np.zeros((3, 4), np.int64), audio, EngineConfig(max_unsent_frames=50), NullConfig(50)).start()
    real, speech.engine = speech.engine, null
    try:
        stream = null.open_stream()
        rows = torch.zeros(2, 5, dtype=torch.int64)
        null.submit(GenerationRequest(rows, SamplingParams(), 1, 10 + 4), stream, nowhere)
        null.played(stream, 100.0)
        assert null.wait_idle(WAIT_S)
        got = samples(Metrics(speech, lambda: 0))
        assert got["streamer_engine_frames_total",] == 10
        assert got["streamer_engine_streams",] == 1
    finally:
        speech.engine = real
        null.stop()


def test_the_accept_header_picks_the_format(speech: Speech) -> None:
    metrics = Metrics(speech, lambda: 0)
    metrics.session_opened()
    body, content_type = metrics.render("application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    families: list[Any] = list(openmetrics_families(body.decode()))
    assert "streamer_sessions_opened" in {family.name for family in families}
    for accept in (
        "",
        "*/*",
        "text/plain",
        "application/openmetrics-text; version=abc",
        "text/plain;version=x;",
        ";,;=",
    ):
        body, content_type = metrics.render(accept)
        assert content_type.startswith("text/plain"), accept
        assert b"streamer_sessions 1.0" in body


def test_ready_until_it_is_full_failed_or_stopping(speech: Speech) -> None:
    state = DialogueServer(speech).state
    assert readiness(state) == (True, "ready")
    engine = speech.engine
    assert isinstance(engine, Engine)
    # Nobody takes its frames, so it keeps its memory, and there is none for another.
    reader = Reader(engine, keeps_up=False).submit(request(max_rows=700))
    reader.wait_frames(1)
    assert readiness(state)[0]
    stream = engine.open_stream()
    assert readiness(state) == (False, "all 2 sessions are taken")
    engine.close_stream(stream)
    assert readiness(state)[0]
    engine.submit(request(max_rows=700), reader.stream, nowhere)
    assert readiness(state) == (False, "all 1 places of the queue are taken")
    engine.close_stream(reader.stream)
    assert engine.wait_idle(WAIT_S)
    assert readiness(state)[0]
    engine._step_failure = "RuntimeError: the device is gone"
    assert readiness(state) == (False, "RuntimeError: the device is gone")
    state.draining = True
    assert readiness(state) == (False, "the server is stopping")
