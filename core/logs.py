"""Logs as JSON, one object a line, with the ids of what the code was working on."""

import json
import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from typing import Any

MAX_TRACEBACK = 4000
"""Characters of a traceback that are kept: its end."""

Ids = Callable[[], Mapping[str, Any]]

_ids: ContextVar[Ids | None] = ContextVar("ids", default=None)


def set_ids(read: Ids) -> None:
    """Set where the ids of the current context come from. They are read when a line is logged."""
    _ids.set(read)


def current_ids() -> Mapping[str, Any]:
    """Return the ids of the current context."""
    read = _ids.get()
    return {} if read is None else read()


class bound:  # noqa: N801 - used like a function
    """Adds ids to all lines that are logged in a `with` block, by this thread or task."""

    def __init__(self, **ids: Any) -> None:
        self._ids = ids

    def __enter__(self) -> None:
        outer = _ids.get()
        ids = self._ids if outer is None else {**outer(), **self._ids}
        self._token: Token[Ids | None] = _ids.set(lambda: ids)

    def __exit__(self, *_: object) -> None:
        _ids.reset(self._token)


class JsonFormatter(logging.Formatter):
    """Formats records as JSON: `time` (RFC 3339, UTC), `level`, `logger`, `message`, ids, and `traceback`."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in current_ids().items() if value is not None},
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)[-MAX_TRACEBACK:]
        return json.dumps(fields, ensure_ascii=False, default=str)
