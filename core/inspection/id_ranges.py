"""Ranges of ids. An id begins with the time, so a range of ids limits what is read of an index and its partitions."""

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final, Self
from uuid import UUID

from sqlalchemy import ColumnElement, literal, tuple_

from core.partitions import first_id_of
from core.tables import inspections

# `created_at` is the start of the transaction, and the id is generated later within it. The margin covers the longest
# transaction.
_MARGIN = dt.timedelta(minutes=5)
_EARLIEST = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LATEST = dt.datetime(9000, 1, 1, tzinfo=dt.UTC)
_SMALLEST, _LARGEST = UUID(int=0), UUID(int=2**128 - 1)

VERSION_ORDER: Final[list[ColumnElement[Any]]] = [inspections.c.model_version_id.desc(), inspections.c.id.desc()]
"""The order in which the inspections of one version are read newest first, together with `IdRange.of_version`."""


def just_before(moment: dt.datetime) -> UUID:
    """An id that is not above those of inspections accepted from this moment on."""
    return first_id_of(max(moment - _MARGIN, _EARLIEST))


def just_after(moment: dt.datetime) -> UUID:
    """An id that is above those of inspections accepted before this moment."""
    return first_id_of(min(max(moment, _EARLIEST), _LATEST) + _MARGIN)


@dataclass(frozen=True)
class IdRange:
    """Ids from `first` up to, but not at, `end`; None for no limit."""

    first: UUID | None = None
    end: UUID | None = None

    def accepted(self, since: dt.datetime | None, until: dt.datetime | None) -> Self:
        """The part of the range with all inspections that were accepted in a period, and some beside it."""
        first = [] if since is None else [just_before(since)]
        end = [] if until is None else [just_after(until)]
        return type(self)(
            max([*first, *([] if self.first is None else [self.first])], default=None),
            min([*end, *([] if self.end is None else [self.end])], default=None),
        )

    def conditions(self, table: Any) -> list[ColumnElement[bool]]:
        """The conditions on the ids of a table."""
        lower = [] if self.first is None else [table.c.id >= self.first]
        upper = [] if self.end is None else [table.c.id < self.end]
        return lower + upper

    def of_version(self, version_id: int) -> list[ColumnElement[bool]]:
        """The conditions on finished inspections of one model version, with which PostgreSQL reads their own index.

        With an equality and the order of the ids, it would read the newest inspections of all versions until some of
        this one come: it does not know that those of an earlier version are all old.
        """
        key = tuple_(inspections.c.model_version_id, inspections.c.id)
        return [
            inspections.c.model_version_id.is_not(None),
            key >= tuple_(literal(version_id), literal(self.first or _SMALLEST)),
            key <= tuple_(literal(version_id), literal(self.end or _LARGEST)),
        ]


ALL_IDS: Final = IdRange()
