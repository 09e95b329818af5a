"""The typed responses about legal holds."""

import datetime as dt
from uuid import UUID

from linewatch.types.base import Result


class LegalHold(Result, frozen=True):
    """A hold on a lot or on a part, of all recipes: its inspections, reviews and images are not removed.

    Attributes:
        lot_id, part_id: one of them; the other is null.
        reason, actor: why, and who set it: the API key, as `key:` and its prefix; `local` if authentication is off.
        released_at, released_by, release_reason: null while it is active.
    """

    id: UUID
    lot_id: str | None
    part_id: str | None
    reason: str
    actor: str
    created_at: dt.datetime
    released_at: dt.datetime | None
    released_by: str | None
    release_reason: str | None

    @property
    def state(self) -> str:
        """`active` or `released`."""
        return "active" if self.released_at is None else "released"


class LegalHoldPage(Result, frozen=True):
    """One page of holds."""

    items: list[LegalHold]
    next_cursor: str | None
