"""Spans by OpenTelemetry's SDK, exported over OTLP/HTTP from a thread of their own.

The SDK reads the standard variables `OTEL_…`. It holds a bounded number of spans (`OTEL_BSP_MAX_QUEUE_SIZE`, 2048 by
default) and drops further ones, so a collector that is slow or away costs no more than that.
"""

import logging
import os
import threading
import time
from collections.abc import Sequence
from functools import cached_property, lru_cache
from importlib.metadata import version

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace import Span as OpenTelemetrySpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from core.tracing import traces
from core.tracing.traces import Attributes, Kind

STOP_SECONDS = 2.0
"""How long the spans that are left may take to be exported when the process stops."""
CLOCK_TOLERANCE_NS = 1_000_000
"""The wall clock may differ by this from the steady clock before spans follow it."""
REPEAT_SECONDS = 600.0
"""A message of the SDK is logged again after this time."""

_LOGGERS = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")
_KINDS = {
    "internal": SpanKind.INTERNAL,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
    "client": SpanKind.CLIENT,
}
_PROPAGATOR = TraceContextTextMapPropagator()


class Span:
    """A span that has begun."""

    def __init__(self, span: OpenTelemetrySpan) -> None:
        self._span = span

    @cached_property
    def context(self) -> str:
        """Continues its trace."""
        return _context(self._span.get_span_context())

    def end(self, ended: float, *, attributes: Attributes | None = None, error: str | None = None) -> None:
        """End the span; `error` is the type of the error with which it ended."""
        self._span.set_attributes(attributes or {})
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end(_CLOCK.epoch(ended))

    def add_link(self, context: str) -> None:
        """Link the span to another one."""
        self._span.add_link(_span_context(context))


class Exporting:
    """Creates spans and exports them until `stop`."""

    def __init__(self, service: str) -> None:
        """See `core.tracing.traces.start`.

        Raises:
            ValueError: a variable `OTEL_…` has an impossible value.
        """
        self.provider = TracerProvider(resource=_resource(service), shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self.provider.get_tracer("linewatch", version("linewatch"))
        _SELDOM.forget()
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_SELDOM)

    def stop(self) -> None:
        """Export the spans that are left; a collector that does not answer in `STOP_SECONDS` does not get them."""
        # The SDK would try for up to 30 s. Both this thread and its own end with the process.
        stopping = threading.Thread(target=self.provider.shutdown, name="traces-stop", daemon=True)
        stopping.start()
        stopping.join(STOP_SECONDS)

    def current_context(self) -> str | None:
        """See `core.tracing.traces.current_context`."""
        current = get_current_span().get_span_context()
        return _context(current) if current.trace_flags.sampled else None

    def current_trace_id(self) -> str | None:
        """See `core.tracing.traces.current_trace_id`."""
        current = get_current_span().get_span_context()
        return f"{current.trace_id:032x}" if current.is_valid else None

    def describe_current(self, attributes: Attributes) -> None:
        """See `core.tracing.traces.describe_current`."""
        get_current_span().set_attributes(dict(attributes))

    def begin(
        self,
        name: str,
        parent: str,
        begun: float,
        kind: Kind,
        attributes: Attributes | None,
        links: Sequence[str],
    ) -> Span | None:
        """See `core.tracing.traces.begin`. None if the sampler of this process drops the span."""
        span = self._tracer.start_span(
            name,
            _parsed(parent),
            _KINDS[kind],
            attributes,
            [Link(_span_context(link)) for link in links],
            _CLOCK.epoch(begun),
        )
        return Span(span) if span.get_span_context().trace_flags.sampled else None


class Seldom(logging.Filter):
    """Passes each message once in some seconds: a collector that is away must not fill the log."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._passed: dict[str, float] = {}

    def forget(self) -> None:
        """Pass every message again."""
        self._passed.clear()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged. Records of one template are one message."""
        message, now = str(record.msg), time.monotonic()
        if now - self._passed.get(message, -self._seconds) < self._seconds:
            return False
        self._passed[message] = now
        return True


_SELDOM = Seldom(REPEAT_SECONDS)


def _resource(service: str) -> Resource:
    """The resource of all spans. What the environment says about it comes first."""
    attributes = {SERVICE_VERSION: version("linewatch")}
    named = f"{SERVICE_NAME}=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if not (named or os.environ.get("OTEL_SERVICE_NAME")):
        attributes[SERVICE_NAME] = service
    return Resource.create(attributes)


def _context(span: SpanContext) -> str:
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, set_span_in_context(NonRecordingSpan(span)))
    return " ".join(carrier[name] for name in ("traceparent", "tracestate") if name in carrier)


@lru_cache(1024)
def _parsed(context: str) -> Context:
    return _PROPAGATOR.extract(traces.headers(context))


def _span_context(context: str) -> SpanContext:
    return get_current_span(_parsed(context)).get_span_context()


class _Clock:
    """Converts times of `time.perf_counter` to nanoseconds since 1970, in their order while nobody sets the clock."""

    def __init__(self) -> None:
        self._offset = 0

    def epoch(self, moment: float) -> int:
        offset = time.time_ns() - time.perf_counter_ns()
        if abs(offset - self._offset) > CLOCK_TOLERANCE_NS:
            self._offset = offset
        return self._offset + int(moment * 1e9)


_CLOCK = _Clock()
