"""The merged log as JSON: what a process logs as an object keeps its fields, and text becomes an object."""

import io
import json

from linewatch.server.logs import Logs


def test_each_line_is_an_object_with_its_process() -> None:
    stream = io.StringIO()
    logs = Logs(stream)
    logs.is_json = True
    logs.write("api", '{"time": "2026-01-02T12:00:00.000+00:00", "message": "ready", "request_id": "r"}')
    logs.write("postgres", "LOG:  ready")
    logs.write("io", "[1]")
    first, second, third = map(json.loads, stream.getvalue().splitlines())
    assert first == {
        "process": "api",
        "time": "2026-01-02T12:00:00.000+00:00",
        "message": "ready",
        "request_id": "r",
    }
    assert (second["process"], second["message"]) == ("postgres", "LOG:  ready")
    assert second["time"].endswith("+00:00")
    assert third["message"] == "[1]"


def test_text_has_the_time_and_the_process_first() -> None:
    stream = io.StringIO()
    Logs(stream).write("io", "ready")
    assert stream.getvalue().endswith(" io           | ready\n")
