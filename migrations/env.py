"""How Alembic runs here: one migration at a time, and none that waits long for a lock."""

from collections.abc import Callable
from typing import Any

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.schema import SchemaItem

from core.database import create_unbounded
from core.settings import settings
from core.tables import metadata

LOCK_TIMEOUT = "10s"  # a migration that cannot get its lock gives up, rather than stop the line behind it
ONE_AT_A_TIME = 0x4C57_0002  # an advisory lock: a second `linewatch migrate` waits for the first

IncludeObject = Callable[[SchemaItem, str | None, str, bool, SchemaItem | None], bool]


def include_object(_: SchemaItem, name: str | None, kind: str, reflected: bool, __: SchemaItem | None) -> bool:
    """Leave the partitions of `inspections` out of comparisons: they come and go with the months."""
    return not (kind == "table" and reflected and (name or "").startswith("inspections_"))


def _run(connection: Connection) -> None:
    options: dict[str, Any] = {"target_metadata": metadata, "include_object": include_object, "compare_type": True}
    context.configure(connection=connection, **options)
    with context.begin_transaction():
        # Held until the transaction ends; waiting for another migration is not bounded by the lock timeout below.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ONE_AT_A_TIME})
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    with create_unbounded(settings(), name="migrate").connect() as own:
        _run(own)
