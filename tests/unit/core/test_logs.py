"""A JSON log line is an object with the ids of what the code was working on."""

import datetime as dt
import json
import logging
import threading
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from core.logs import MAX_TRACEBACK, JsonFormatter, bound, current_ids, set_ids

ID = UUID("0193e0c8-0000-7000-8000-000000000000")


def line(message: str, *arguments: object, error: BaseException | None = None) -> dict[str, Any]:
    record = logging.LogRecord("api.routes", logging.WARNING, "", 1, message, arguments, None)
    if error is not None:
        record.exc_info = (type(error), error, error.__traceback__)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


@given(st.text())
def test_any_message_is_one_line(message: str) -> None:
    found = line("%s", message)
    assert (found["message"], found["level"], found["logger"]) == (message, "warning", "api.routes")
    assert dt.datetime.fromisoformat(found["time"]).utcoffset() == dt.timedelta(0)


def test_ids_are_those_of_the_innermost_block() -> None:
    assert current_ids() == {}
    with bound(inspection_ids=[ID], batch_id=None):
        with bound(inspection_ids=None, inspection_id=ID):
            assert line("x").items() >= {"inspection_id": str(ID)}.items()
            assert "inspection_ids" not in line("x")
        assert line("x")["inspection_ids"] == [str(ID)]
        assert "batch_id" not in line("x")
    assert current_ids() == {}


def test_ids_of_a_context_are_read_when_a_line_is_logged() -> None:
    def log() -> None:
        path: dict[str, str] = {}
        set_ids(lambda: {"request_id": "r", **path})
        path["batch_id"] = "b"
        lines.append(line("x"))

    lines: list[dict[str, Any]] = []
    thread = threading.Thread(target=log)
    thread.start()
    thread.join()
    assert (lines[0]["request_id"], lines[0]["batch_id"]) == ("r", "b")
    assert current_ids() == {}


def test_a_traceback_keeps_its_end() -> None:
    try:
        raise ValueError("x" * MAX_TRACEBACK + " the end")
    except ValueError as error:
        found = line("failed", error=error)
    assert len(found["traceback"]) == MAX_TRACEBACK
    assert found["traceback"].endswith("the end")
