"""The log of the workers and the dispatcher."""

import logging
import sys
from collections.abc import Iterator
from typing import Literal

from core.logs import JsonFormatter
from worker.outages import OUTAGE

CHATTY = ("celery", "kombu", "httpx")


def set_up_logging(log_format: Literal["text", "json"]) -> None:
    """Log one line for each record to standard error; to text, the supervisor adds the time."""
    handler = logging.StreamHandler(sys.stderr)
    is_json = log_format == "json"
    handler.setFormatter(JsonFormatter() if is_json else logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    handler.addFilter(without_traceback_of_outages)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def without_traceback_of_outages(record: logging.LogRecord) -> bool:
    """Log one line instead of a traceback if Celery reports that a server cannot be used: that is expected to happen.

    Celery and kombu raise further errors while they handle a lost connection, so the whole chain counts.
    """
    error = record.exc_info[1] if record.exc_info else None
    if record.name.partition(".")[0] in CHATTY and any(isinstance(each, OUTAGE) for each in _chain(error)):
        record.msg = f"{record.getMessage().strip().splitlines()[0]} ({type(error).__name__})"
        record.args, record.exc_info, record.exc_text = (), None, None
    return True


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
