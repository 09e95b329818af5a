"""Leases of claimed inspections. Workers renew them. Once a dead worker's lease expires, its claim is queued again."""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from core.queue.claiming import Claim
from core.settings import MAX_LEASE_SECONDS

RESCUES_TO_SCORE_ALONE = 2
"""After so many expired leases, an image is claimed and scored alone, so that it takes no other with it."""
MAX_RESCUES = 5
"""After so many expired leases, an image is `poison`: it is not scored again."""


def renew(connection: Connection, claims: Sequence[Claim], lease_seconds: float) -> None:
    """Extend the leases of claims that are still held."""
    connection.execute(
        text("""
            WITH mine AS (
                SELECT work.id FROM work
                JOIN unnest(CAST(:ids AS uuid[]), CAST(:attempts AS int[])) AS held(id, attempt)
                  ON work.id = held.id AND work.attempt = held.attempt
                WHERE work.state = 'running' ORDER BY work.id FOR UPDATE OF work SKIP LOCKED
            )
            UPDATE work SET lease_until = clock_timestamp() + make_interval(secs => :lease)
            FROM mine WHERE work.id = mine.id
        """),
        {
            "ids": [claim.id for claim in claims],
            "attempts": [claim.attempt for claim in claims],
            "lease": lease_seconds,
        },
    )


def reclaim_expired_leases(connection: Connection, *, at_most: int = 1000) -> int:
    """`running → queued` for expired leases; returns how many. Their images are decoded in isolation from now on.

    The table `rescues` records when and how many. Leases that end further ahead than any lease lasts have expired, too:
    the clock was ahead when they were taken.
    """
    rescued: int | None = connection.execute(
        text("""
            WITH expired AS (
                SELECT id FROM work WHERE state = 'running' AND lease_until NOT BETWEEN clock_timestamp()
                    AND clock_timestamp() + make_interval(secs => :longest)
                ORDER BY id LIMIT :at_most FOR UPDATE SKIP LOCKED
            ), rescued AS (
                UPDATE work SET state = 'queued', rescues = rescues + 1, published_at = NULL, lease_until = NULL,
                    worker = NULL, started_at = NULL, model_version_id = NULL, threshold_id = NULL, threshold = NULL,
                    review_threshold = NULL
                FROM expired WHERE work.id = expired.id RETURNING work.id
            )
            INSERT INTO rescues (inspections) SELECT count(*) FROM rescued HAVING count(*) > 0 RETURNING inspections
        """),
        {"at_most": at_most, "longest": MAX_LEASE_SECONDS},
    ).scalar()
    return rescued or 0


def delete_old_rescues(connection: Connection, *, at_most: int) -> int:
    """Delete up to `at_most` records of rescues that are older than a week; returns how many."""
    return connection.execute(
        text("""
            DELETE FROM rescues WHERE id IN (
                SELECT id FROM rescues WHERE at < now() - interval '7 days' ORDER BY at LIMIT :at_most
            )
        """),
        {"at_most": at_most},
    ).rowcount
