"""The processes that work in the background, by their heartbeats."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from core.system.documents import LoadedVersion, Worker, WorkerKind

HEARTBEAT_SECONDS = 10.0
LOST_SECONDS = 30.0
"""A worker that missed three heartbeats is lost."""
REMOVED_SECONDS = 300.0


@dataclass(frozen=True)
class Heartbeat:
    """The report of a worker; see `core.system.documents.Worker`.

    Attributes:
        age_seconds: how long the process has been running.
    """

    name: str
    kind: WorkerKind
    state: str
    version: str
    age_seconds: float
    device: str | None = None
    model_version_ids: Sequence[int] = ()
    minibatch_fill: float | None = None
    images_per_second: float | None = None


_BEAT = text("""
INSERT INTO workers (
    name, kind, state, version, device, model_version_ids, minibatch_fill, images_per_second, started_at, heartbeat_at
) VALUES (
    :name, :kind, :state, :version, :device, CAST(:model_version_ids AS bigint[]), :minibatch_fill, :images_per_second,
    clock_timestamp() - make_interval(secs => :age_seconds), clock_timestamp()
)
ON CONFLICT (name) DO UPDATE SET state = excluded.state, model_version_ids = excluded.model_version_ids,
    minibatch_fill = excluded.minibatch_fill, images_per_second = excluded.images_per_second,
    heartbeat_at = excluded.heartbeat_at
""")


def beat(connection: Connection, heartbeat: Heartbeat) -> None:
    """Write the heartbeat of a worker."""
    connection.execute(_BEAT, {**vars(heartbeat), "model_version_ids": list(heartbeat.model_version_ids)})


def remove(connection: Connection, name: str) -> None:
    """Remove a worker that stops."""
    connection.execute(text("DELETE FROM workers WHERE name = :name"), {"name": name})


def remove_lost(connection: Connection) -> int:
    """Remove workers that were lost long ago; returns how many.

    A heartbeat far in the future was written when the clock was ahead: it is removed, too.
    """
    return connection.execute(
        text("""
            DELETE FROM workers WHERE heartbeat_at NOT BETWEEN clock_timestamp() - make_interval(secs => :seconds)
                AND clock_timestamp() + make_interval(secs => :seconds)
        """),
        {"seconds": REMOVED_SECONDS},
    ).rowcount


def list_all(connection: Connection) -> list[Worker]:
    """Return all workers, lost ones included, by kind and start."""
    rows = connection.execute(
        text("""
            SELECT *, CAST(extract(epoch FROM clock_timestamp() - heartbeat_at) AS float8) AS age FROM workers
            ORDER BY array_position(ARRAY['scoring', 'io', 'dispatcher', 'training'], kind), started_at, name
        """)
    ).all()
    loaded = _versions(connection, {version_id for row in rows for version_id in row.model_version_ids})
    return [
        Worker(
            name=row.name,
            kind=row.kind,
            state="lost" if row.age > LOST_SECONDS else row.state,
            version=row.version,
            device=row.device,
            models=[loaded[version_id] for version_id in row.model_version_ids if version_id in loaded],
            minibatch_fill=row.minibatch_fill,
            images_per_second=row.images_per_second,
            started_at=row.started_at,
            heartbeat_at=row.heartbeat_at,
            heartbeat_age_s=max(0.0, round(row.age, 1)),
        )
        for row in rows
    ]


def _versions(connection: Connection, ids: set[int]) -> dict[int, LoadedVersion]:
    rows = connection.execute(
        text("""
            SELECT model_versions.id, recipes.name, model_versions.version FROM model_versions
            JOIN recipes ON recipes.id = model_versions.recipe_id WHERE model_versions.id = ANY(CAST(:ids AS bigint[]))
        """),
        {"ids": list(ids)},
    )
    return {row.id: LoadedVersion(recipe=row.name, version=row.version) for row in rows}
