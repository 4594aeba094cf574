"""OpenTelemetry spans of sessions and turns, for whoever has it set up; otherwise every call here does nothing.

Spans go to the process's own tracer provider: one that :func:`start_tracing` makes, or one that
``opentelemetry-instrument`` brought. What is spoken is in no span.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import threading
from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType
from typing import Any, Final

from streamer import __version__

_TRACER: Final = "streamer"
_STOP_S: Final = 5.0
Value = str | bool | int | float | None


class TracingUnavailable(Exception):
    """Tracing was asked for, and a package that it needs is not installed."""


@contextlib.contextmanager
def span(name: str, **attributes: Value) -> Iterator[Any]:
    """A span around a block of code, the parent of those opened inside; yields it, or None without OpenTelemetry.

    An exception that leaves the block is recorded in the span, without its message, which may quote a client.
    """
    api = _api()
    if api is None:
        yield None
        return
    tracer = api.get_tracer(_TRACER, __version__)
    with tracer.start_as_current_span(
        name, attributes=_present(attributes), record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except Exception as error:
            current.set_attribute("error.type", type(error).__qualname__)
            current.set_status(api.StatusCode.ERROR)
            raise


class SessionTrace:
    """The span of one session and, below it, one for each turn, by what its listener is told.

    For one event loop; calls for turns that are not open, or after the end, do nothing.
    """

    def __init__(self, **attributes: Value) -> None:
        self._api = _api()
        self._turns: dict[str, Any] = {}
        self._session = self._open("session", None, attributes)

    def turn_opened(self, turn: str, **attributes: Value) -> None:
        """A turn was asked for."""
        if self._session is not None and self._session.is_recording() and turn not in self._turns:
            self._turns[turn] = self._open("turn", self._session, {"turn": turn, **attributes})

    def turn_event(self, turn: str, name: str, **attributes: Value) -> None:
        """What became of it: ``queued``, ``prefill``, ``first_audio``."""
        current = self._turns.get(turn)
        if current is not None:
            current.add_event(name, _present(attributes))

    def turn_ended(self, turn: str, reason: str, **attributes: Value) -> None:
        """It is over; ``reason`` ``error`` marks its span as failed."""
        current = self._turns.pop(turn, None)
        if current is not None:
            self._close(current, reason, attributes)

    def end(self, reason: str) -> None:
        """The session is over, and with it the turns that are still open. Twice does no harm."""
        for turn in list(self._turns):
            self.turn_ended(turn, "cancelled")
        session, self._session = self._session, None
        if session is not None:
            self._close(session, reason, {})

    def _open(self, name: str, parent: Any, attributes: dict[str, Value]) -> Any:
        if self._api is None:
            return None
        context = None if parent is None else self._api.set_span_in_context(parent)
        return self._api.get_tracer(_TRACER, __version__).start_span(
            name, context=context, attributes=_present(attributes)
        )

    def _close(self, current: Any, reason: str, attributes: dict[str, Value]) -> None:
        assert self._api is not None
        current.set_attributes({"reason": reason, **_present(attributes)})
        if reason == "error":
            current.set_status(self._api.StatusCode.ERROR)
        current.end()


def start_tracing(endpoint: str) -> Callable[[], None]:
    """Send spans to an OTLP collector, such as ``http://localhost:4318/v1/traces``; returns what ends it.

    Headers, sampling and the rest are taken from OpenTelemetry's own ``OTEL_…`` variables. Raises
    :class:`TracingUnavailable` where the packages are missing.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        text = f"{error.name} is not installed; tracing needs: pip install 'dialogue-streamer[otel]'"
        raise TracingUnavailable(text) from error
    api = _api()
    assert api is not None
    resource = Resource.create({"service.name": _TRACER, "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    api.set_tracer_provider(provider)
    return lambda: _shut_down(provider)


def _shut_down(provider: Any) -> None:
    """Send what is left; a collector that does not answer must not keep the process."""
    last = threading.Thread(target=provider.shutdown, name="tracing stop", daemon=True)
    last.start()
    last.join(_STOP_S)


@cache
def _api() -> ModuleType | None:
    """``opentelemetry.trace``, if it is installed."""
    try:
        found = importlib.util.find_spec("opentelemetry.trace")
    except ModuleNotFoundError:
        found = None
    return None if found is None else importlib.import_module("opentelemetry.trace")


def _present(attributes: dict[str, Value]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
