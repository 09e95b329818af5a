"""The traces of this process. While tracing is off, nothing of OpenTelemetry is imported and nothing is done.

A trace continues in another process by its *context*, a string: the `traceparent` of a span (W3C Trace Context) and,
if it has one, its `tracestate` after a space. Only sampled spans have a context, so others are stored nowhere.

Times are those of `time.perf_counter`. A span may be recorded once it is over, which keeps tracing off the hot path.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from core.tracing.exporting import Exporting, Span

Attributes = Mapping[str, str | int | float]
Kind = Literal["internal", "producer", "consumer", "client"]

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"

_exporting: "Exporting | None" = None


class TracingError(Exception):
    """Tracing is requested, but impossible. The message is one line that says what to change."""


def is_requested() -> bool:
    """Whether the environment asks for traces: it names an OTLP endpoint and does not switch them off."""
    if _variable("OTEL_SDK_DISABLED").lower() == "true" or _variable("OTEL_TRACES_EXPORTER").lower() == "none":
        return False
    return any(map(_variable, ENDPOINTS))


def endpoint() -> str:
    """Return the URL of the collector; empty if the environment names none."""
    return next(filter(None, map(_variable, ENDPOINTS)), "")


def start(service: str) -> None:
    """Start tracing if it is requested.

    Args:
        service: the name of this process in traces, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` has one.

    Raises:
        TracingError: the environment asks for what this process cannot do.
    """
    global _exporting
    if _exporting is not None or not is_requested():
        return
    _check_environment()
    try:
        from core.tracing.exporting import Exporting
    except ModuleNotFoundError:
        raise TracingError(
            f"{_endpoint_variable()} asks for traces, which need pip install 'linewatch[tracing]'; "
            "without them, set OTEL_SDK_DISABLED=true"
        ) from None
    try:
        _exporting = Exporting(service)
    except ValueError as error:
        raise TracingError(f"an OTEL_ variable is wrong: {error}") from error


def start_or_exit(service: str) -> None:
    """Start tracing if it is requested, or print the error in one line and exit with code 2."""
    try:
        start(service)
    except TracingError as error:
        print(f"linewatch: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def stop() -> None:
    """Export the spans that are left, for a short time, and stop tracing."""
    global _exporting
    if _exporting is not None:
        exporting, _exporting = _exporting, None
        exporting.stop()


def is_on() -> bool:
    """Whether this process exports traces."""
    return _exporting is not None


def provider() -> "TracerProvider | None":
    """Return OpenTelemetry's provider, for libraries that trace; None while tracing is off."""
    return None if _exporting is None else _exporting.provider


def current_context() -> str | None:
    """Return the context of the current span; None if there is none, or it is not sampled."""
    return None if _exporting is None else _exporting.current_context()


def current_trace_id() -> str | None:
    """Return the id of the current trace, sampled or not: 32 hexadecimal digits."""
    return None if _exporting is None else _exporting.current_trace_id()


def trace_id(context: str | None) -> str | None:
    """Return the id of the trace of a context: 32 hexadecimal digits."""
    return None if context is None else context[3:35]


def headers(context: str | None) -> dict[str, str]:
    """Return the HTTP headers with which a request continues the trace of a context."""
    if context is None:
        return {}
    traceparent, _, tracestate = context.partition(" ")
    return {"traceparent": traceparent} | ({"tracestate": tracestate} if tracestate else {})


def describe_current(attributes: Attributes) -> None:
    """Set attributes of the current span."""
    if _exporting is not None:
        _exporting.describe_current(attributes)


def record(
    name: str,
    parent: str | None,
    begun: float,
    ended: float,
    *,
    kind: Kind = "internal",
    attributes: Attributes | None = None,
    error: str | None = None,
) -> None:
    """Record a span that is over. Without a parent there is none.

    Args:
        error: the type of the error with which it ended.
    """
    if span := begin(name, parent, begun, kind=kind, attributes=attributes):
        span.end(ended, error=error)


def begin(
    name: str,
    parent: str | None,
    begun: float,
    *,
    kind: Kind = "internal",
    attributes: Attributes | None = None,
    links: Sequence[str] = (),
) -> "Span | None":
    """Begin a span; None without a parent, and while tracing is off.

    Args:
        parent: the context that it continues.
        links: the contexts of further spans that it belongs to.
    """
    if _exporting is None or parent is None:
        return None
    return _exporting.begin(name, parent, begun, kind, attributes, links)


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()


def _endpoint_variable() -> str:
    return next(name for name in ENDPOINTS if _variable(name))


def _check_environment() -> None:
    """Refuse what OpenTelemetry would accept silently, and then export nothing."""
    if not endpoint().startswith(("http://", "https://")):
        raise TracingError(f"{_endpoint_variable()} must look like http://collector:4318")
    if (exporter := _variable("OTEL_TRACES_EXPORTER")) not in ("", "otlp"):
        raise TracingError(f"OTEL_TRACES_EXPORTER must be otlp or none, not {exporter!r}")
    for protocol in PROTOCOLS:
        if _variable(protocol) not in ("", PROTOCOL):
            raise TracingError(
                f"{protocol} must be {PROTOCOL}, not {_variable(protocol)!r}; collectors receive it on port 4318"
            )
