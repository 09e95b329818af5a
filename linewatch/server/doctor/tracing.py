"""Checks of traces."""

import socket
from urllib.parse import urlsplit

from core.tracing import traces
from core.tracing.traces import TracingError
from linewatch.server.doctor.findings import Finding

TIMEOUT = 3.0


def check_traces() -> list[Finding]:
    """Check that traces can be exported, if the environment asks for them, and that their collector can be reached."""
    if not traces.is_requested():
        return []
    try:
        traces.start("linewatch-doctor")
    except TracingError as error:
        return [
            Finding("traces", "error", str(error), "change the variable; the api and the workers end because of it")
        ]
    traces.stop()
    endpoint = urlsplit(traces.endpoint())
    address = endpoint.hostname or "", endpoint.port or (443 if endpoint.scheme == "https" else 80)
    where = f"{address[0]} port {address[1]}"
    try:
        socket.create_connection(address, TIMEOUT).close()
    except OSError as error:
        remedy = "start the collector, or change OTEL_EXPORTER_OTLP_ENDPOINT; until then spans are dropped"
        return [Finding("traces", "warning", f"the collector on {where} cannot be reached: {error}", remedy)]
    return [Finding("traces", "ok", f"the collector on {where} accepts connections")]
