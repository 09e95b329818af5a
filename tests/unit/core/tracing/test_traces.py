"""When tracing is on, what it refuses, and contexts."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.tracing import traces
from core.tracing.traces import TracingError
from tests.fixtures.otlp_receiver import running_collector

NOWHERE = "http://127.0.0.1:1"
CONTEXT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def _stopped() -> Iterator[None]:
    yield
    traces.stop()


def test_it_is_off_by_default_and_then_does_nothing() -> None:
    traces.start("test")
    traces.record("span", CONTEXT, 0.0, 1.0)
    traces.describe_current({"name": "value"})
    traces.stop()
    assert not traces.is_on()
    assert traces.begin("span", CONTEXT, 0.0) is None
    assert (traces.provider(), traces.current_context(), traces.current_trace_id()) == (None, None, None)


def test_while_it_is_off_no_exporter_is_imported() -> None:
    """Libraries import parts of OpenTelemetry themselves: FastAPI its interface, redis-py the SDK if it is there."""
    modules = ("api.app", "worker.delivery.webhooks", "worker.pipeline.scoring_pipeline")
    unwanted = ("opentelemetry.exporter", "core.tracing.exporting")
    script = f"import sys, {', '.join(modules)}; sys.exit(any(name in sys.modules for name in {unwanted}))"
    assert subprocess.run([sys.executable, "-c", script], timeout=120, check=False).returncode == 0


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_the_standard_variables_switch_it_off(monkeypatch: pytest.MonkeyPatch, off: dict[str, str]) -> None:
    for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, **off}.items():
        monkeypatch.setenv(name, value)
    traces.start("test")
    assert not traces.is_on()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "OTEL_EXPORTER_OTLP_ENDPOINT must look like http://"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "grpc://c"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT must look like"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf, not 'grpc'"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER must be otlp or none, not 'zipkin'"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "7"}, "an OTEL_ variable is wrong: max_export_batch_size must be"),
    ],
)
def test_what_would_export_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variables: dict[str, str], message: str
) -> None:
    for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TracingError, match=re.escape(message)):
        traces.start("test")
    with pytest.raises(SystemExit) as ended:
        traces.start_or_exit("test")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"linewatch: {message}")


def test_without_its_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NOWHERE)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "core.tracing.exporting", raising=False)
    with pytest.raises(TracingError, match=re.escape("pip install 'linewatch[tracing]'")):
        traces.start("test")


_STATE = st.from_regex(r"[a-z]{1,8}=[a-z0-9 ]{0,20}[a-z0-9](,[a-z]{9,12}=[a-z0-9]{1,9})?", fullmatch=True)


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.none() | _STATE)
def test_a_context_is_continued_as_it_is(trace: int, span: int, state: str | None) -> None:
    context = f"00-{trace:032x}-{span:016x}-01" + (f" {state}" if state else "")
    assert traces.trace_id(context) == f"{trace:032x}"
    headers = traces.headers(context)
    assert headers.pop("traceparent") == context[:55]
    assert headers == ({"tracestate": state} if state else {})


def test_the_service_is_named_by_the_environment_or_by_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for variables, expected in (
        ({}, "linewatch-test"),
        ({"OTEL_SERVICE_NAME": "plant-7"}, "plant-7"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=plant-8,site=north"}, "plant-8"),
    ):
        with running_collector() as collector, monkeypatch.context() as environment:
            for name, value in {**collector.variables, **variables}.items():
                environment.setenv(name, value)
            traces.start("linewatch-test")
            traces.record("span", CONTEXT, time.perf_counter(), time.perf_counter())
            traces.stop()
        [span] = collector.spans
        assert (span.service, span.trace_id, span.parent) == (expected, CONTEXT[3:35], CONTEXT[36:52])


_RECORDING_A_THOUSAND_SPANS = f"""
import logging, time
from core.tracing import traces

logging.basicConfig(format="%(levelname)s %(msg)s")
traces.start("test")
for _ in range(1000):
    traces.record("span", {CONTEXT!r}, time.perf_counter(), time.perf_counter())
stopping = time.monotonic()
traces.stop()
print(time.monotonic() - stopping)
"""


def test_a_collector_that_is_away_costs_two_seconds_at_the_end_and_few_lines() -> None:
    """In a process of its own, which ends the threads that still try."""
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE,
        "OTEL_BSP_SCHEDULE_DELAY": "10",
        "OTEL_BSP_MAX_QUEUE_SIZE": "64",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8",
    }
    command = [sys.executable, "-c", _RECORDING_A_THOUSAND_SPANS]
    ended = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=120, check=True)
    assert float(ended.stdout) < 10  # OpenTelemetry alone would take up to 30
    messages = [line for line in ended.stderr.splitlines() if line.startswith(("WARNING ", "ERROR "))]
    assert messages
    assert len(messages) == len(set(messages))
