"""Compare the revision of a database's schema with the revision that this code needs."""

from dataclasses import dataclass
from functools import cache

from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

import migrations


@dataclass(frozen=True)
class Schema:
    """The schema of a database.

    Attributes:
        revision: of the database; None if it is empty.
        needed: the revision that this code needs.
        is_known: whether this code has the migration to `revision`; if not, a newer version has migrated the database.
    """

    revision: str | None
    needed: str
    is_known: bool

    @property
    def is_older(self) -> bool:
        """Whether the database must be migrated before this code can use it. Newer schemas only add to older ones."""
        return self.revision is None or (self.is_known and self.revision != self.needed)

    @property
    def why_waiting(self) -> str:
        """What is missing while `is_older`."""
        found = "The database is empty" if self.revision is None else f"The schema has revision {self.revision}"
        return f"{found}; this version needs {self.needed}. Run `linewatch migrate`."


def read_schema(connection: Connection) -> Schema:
    """Read the revision of a database."""
    needed, known = _revisions()
    is_empty = connection.execute(text("SELECT to_regclass('alembic_version') IS NULL")).scalar_one()
    revision = None if is_empty else connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return Schema(revision, needed, revision in known)


def newest_revision() -> str:
    """The revision that this code needs."""
    return _revisions()[0]


def known_revisions() -> frozenset[str]:
    """All revisions that this code can migrate from."""
    return _revisions()[1]


@cache
def _revisions() -> tuple[str, frozenset[str]]:
    scripts = ScriptDirectory(migrations.__path__[0])
    head = scripts.get_current_head()
    assert head is not None  # noqa: S101 - there are migrations
    return head, frozenset(script.revision for script in scripts.walk_revisions())
