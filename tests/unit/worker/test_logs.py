"""Outages of servers are one line of the log each; bugs keep their traceback."""

import logging

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.exc import OperationalError

from worker.logs import without_traceback_of_outages


def log_line(name: str, error: Exception) -> str:
    try:
        try:
            raise error
        finally:
            raise AttributeError("while it was handled")
    except AttributeError as raised:
        record = logging.LogRecord(name, logging.ERROR, "", 1, "Error in %s\nmore", ("timer",), None)
        record.exc_info = (type(raised), raised, raised.__traceback__)
    assert without_traceback_of_outages(record)
    return logging.Formatter("%(message)s").format(record)


@pytest.mark.parametrize(
    "error",
    [RedisConnectionError("closed"), ConnectionResetError("reset"), OperationalError("COMMIT", {}, Exception("ended"))],
)
def test_an_outage_is_one_line(error: Exception) -> None:
    assert log_line("celery.worker", error) == "Error in timer (AttributeError)"


@pytest.mark.parametrize(
    ("name", "error"), [("celery.worker", ValueError("a bug")), ("worker.scoring", RedisConnectionError("closed"))]
)
def test_other_errors_keep_their_traceback(name: str, error: Exception) -> None:
    assert "Traceback" in log_line(name, error)
