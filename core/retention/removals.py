"""What a step of retention removed, and what all steps need."""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, Engine, text

from core import removal_lock
from core.retention import rules
from core.retention.rules import Rules

Kind = Literal["images", "inspections", "re-scoring runs", "bundles", "training reports"]


@dataclass(frozen=True)
class Removal:
    """Something that was removed, or would be.

    Attributes:
        recipe_id: None for images that no inspection has.
        bytes: what that frees on disks.
    """

    recipe_id: int | None
    kind: Kind
    number: int
    bytes: int


Step = list[Removal]
"""What one step has removed; often nothing. Between two steps a round may end, also by a kill."""


@dataclass(frozen=True)
class Scope:
    """What the steps of one round share.

    Attributes:
        today: the day in UTC.
        feed_days: see `core.settings.Settings`.
    """

    engine: Engine
    today: dt.date
    feed_days: int

    @contextmanager
    def deciding(self) -> Iterator[tuple[Connection, Rules]]:
        """A transaction that decides on removals by the rules of now."""
        with self.engine.begin() as connection:
            removal_lock.take(connection)
            yield connection, self.rules(connection)

    def rules(self, connection: Connection) -> Rules:
        """Read the rules of now."""
        return rules.read(connection, today=self.today, feed_days=self.feed_days)


_MAKE_DUE = text("""
    INSERT INTO retention_days (day, due_on, lost_rows)
    SELECT day, :today, true FROM unnest(CAST(:days AS date[])) AS day ORDER BY day
    ON CONFLICT (day) DO UPDATE SET due_on = excluded.due_on, lost_rows = true, checked_at = clock_timestamp()
""")


def make_due(connection: Connection, days: set[dt.date], today: dt.date) -> None:
    """Have the images of days checked again, because inspections of them were removed."""
    if days:
        connection.execute(_MAKE_DUE, {"days": sorted(days), "today": today})
