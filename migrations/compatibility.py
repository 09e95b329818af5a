"""Which releases work with the schema of a database.

A migration only expands the schema, so the processes of the release before it keep working. What they need is removed
by a later release, which then raises `OLDEST_RELEASE`.

The database keeps this in a comment of the table `alembic_version`, where older releases can read it, which know
nothing of later migrations. Dumps contain it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from packaging.version import Version
from sqlalchemy import Connection, text

OLDEST_RELEASE: Final = "0.1.0"
"""The oldest release whose processes work with the newest schema."""

_READ: Final = text("SELECT obj_description(to_regclass('alembic_version'), 'pg_class')")
_REVISION: Final = text("SELECT max(version_num) FROM alembic_version")


@dataclass(frozen=True)
class SchemaOrigin:
    """Where the schema of a database comes from.

    Attributes:
        revision: of the schema.
        migrated_by: the release that migrated it.
        oldest_release: the oldest release that works with it.
    """

    revision: str
    migrated_by: str
    oldest_release: str

    def allows(self, release: str) -> bool:
        """Return whether the processes of a release work with the schema."""
        return Version(release) >= Version(self.oldest_release)


def read(connection: Connection) -> SchemaOrigin | None:
    """Return the origin of the schema; None if nothing is recorded, as before 0.2.0."""
    comment = connection.execute(_READ).scalar_one()
    if comment is None:
        return None
    fields: Mapping[str, Any] = json.loads(comment)
    return SchemaOrigin(fields["revision"], fields["migrated_by"], fields["oldest_release"])


def record(connection: Connection) -> None:
    """Record that this release has migrated the schema. Changes nothing if its revision has a record."""
    revision = connection.execute(_REVISION).scalar_one()
    recorded = read(connection)
    if recorded is not None and recorded.revision == revision:
        return
    origin = {"revision": revision, "migrated_by": version("linewatch"), "oldest_release": OLDEST_RELEASE}
    connection.exec_driver_sql(f"COMMENT ON TABLE alembic_version IS '{json.dumps(origin)}'")
