"""Slices: the parts of a run's source that workers claim and score.

    queued ──claim (attempt + 1, lease)──► running ──all of its items have results──► deleted
      ▲                                     │
      └── release (live work, shutdown), reclaim (lease expired): existing results stay

`attempt` is a fencing token, like that of an inspection: only the current attempt can write results, and it writes
them in one transaction with the slice's progress and the run's counters. So each image has one result, even if two
workers score the same slice.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import Connection, text

from core.errors import Failure
from core.models.verdicts import Verdict
from core.queue import bulk_share
from core.queue.leases import RESCUES_TO_SCORE_ALONE
from core.rescoring import runs
from core.rescoring.maintenance_windows import MaintenanceWindow
from core.rescoring.run_thresholds import RunThreshold
from core.rescoring.tables import rescore_results
from core.settings import MAX_LEASE_SECONDS


@dataclass(frozen=True)
class SliceClaim:
    """A slice that a worker has claimed.

    Attributes:
        first: the number of its first image in the run; identifies the slice.
        done: how many of its items have results already.
        items: all of its items, as the planner wrote them.
        rescues: how often its lease has expired or its scoring has raised something unexpected. If ever, an image of
            the slice may be at fault. From `RESCUES_TO_SCORE_ALONE` on, it counts only what the next image may have
            caused: each result sets it back to that.
    """

    run_id: UUID
    first: int
    attempt: int
    items: list[dict[str, Any]]
    done: int
    rescues: int


@dataclass(frozen=True)
class RecordedResult:
    """What was recorded for an inspection when the run scored it."""

    model_version_id: int | None
    anomaly_score: float | None
    threshold: float | None
    verdict: Verdict | None


@dataclass(frozen=True)
class RunImage:
    """One image of a run, and what is known about its part.

    Attributes:
        number: its position in the run's source, from 1.
        path: for an image of a folder or manifest, relative to it.
        image_day, image_sha256: where a stored image is. An image of an archive gets the SHA-256 once it is read.
        before: what was recorded for the inspection; None for an image of an archive.
        failure: why the image cannot be read at all: the code, and the detail for people.
    """

    number: int
    inspection_id: UUID | None = None
    path: str | None = None
    external_id: str | None = None
    part_id: str | None = None
    lot_id: str | None = None
    line_id: str | None = None
    station_id: str | None = None
    captured_at: dt.datetime | None = None
    metadata: dict[str, Any] | None = None
    image_day: dt.date | None = None
    image_sha256: bytes | None = None
    before: RecordedResult | None = None
    failure: tuple[Failure, str] | None = None


@dataclass(frozen=True)
class ImageResult:
    """The result of an image: a score and a verdict, or an error."""

    image: RunImage
    threshold: RunThreshold | None = None
    anomaly_score: float | None = None
    verdict: Verdict | None = None
    reasons: list[str] = field(default_factory=list)
    error_code: Failure | None = None
    error_detail: str | None = None


_CLAIM = text("""
WITH picked AS (
    SELECT slice.run_id, slice.first FROM rescore_slices AS slice
    JOIN rescore_runs AS run ON run.id = slice.run_id
    WHERE slice.state = 'queued' AND slice.run_id = ANY(CAST(:runs AS uuid[])) AND run.state = 'running'
    ORDER BY run.kind = 'archive', slice.run_id, slice.first
    LIMIT 1 FOR UPDATE OF slice SKIP LOCKED
)
UPDATE rescore_slices AS slice SET state = 'running', attempt = slice.attempt + 1, worker = :worker,
    lease_until = clock_timestamp() + make_interval(secs => :lease)
FROM picked WHERE slice.run_id = picked.run_id AND slice.first = picked.first
RETURNING slice.run_id, slice.first, slice.attempt, slice.items, slice.done, slice.rescues
""")


def claim(connection: Connection, *, worker: str, lease_seconds: float) -> SliceClaim | None:
    """Claim the next slice of the runs that may work now, challengers first. Returns None if there is none."""
    row = connection.execute(
        _CLAIM, {"runs": runnable_run_ids(connection), "worker": worker, "lease": lease_seconds}
    ).one_or_none()
    return None if row is None else SliceClaim(**row._mapping)


def runnable_run_ids(connection: Connection) -> list[UUID]:
    """Return the runs that are queued or running and whose maintenance window, if they have one, is open."""
    rows = connection.execute(
        text("""
            SELECT id, "window", time_zone, clock_timestamp() AS now FROM rescore_runs
            WHERE state IN ('queued', 'running')
        """)
    )
    return [
        row.id
        for row in rows
        if row.window is None or MaintenanceWindow.parse(row.window, row.time_zone).is_open(row.now)
    ]


def count_claimable(connection: Connection) -> int:
    """Return the number of slices that could be claimed now."""
    return int(
        connection.execute(
            text("""
                SELECT count(*) FROM rescore_slices AS slice JOIN rescore_runs AS run ON run.id = slice.run_id
                WHERE slice.state = 'queued' AND slice.run_id = ANY(CAST(:runs AS uuid[])) AND run.state = 'running'
            """),
            {"runs": runnable_run_ids(connection)},
        ).scalar_one()
    )


# The condition under which a claim is still valid.
_CLAIMED = "run_id = :run_id AND first = :first AND attempt = :attempt AND state = 'running'"


def _key(claim: SliceClaim) -> dict[str, Any]:
    return {"run_id": claim.run_id, "first": claim.first, "attempt": claim.attempt}


def renew(connection: Connection, claim: SliceClaim, lease_seconds: float) -> bool:
    """Extend the lease. Returns False if the claim was lost, or if the run may not work now: then release the slice."""
    renewed = connection.execute(
        text(f"""
            UPDATE rescore_slices SET lease_until = clock_timestamp() + make_interval(secs => :lease)
            WHERE {_CLAIMED} RETURNING run_id
        """),  # noqa: S608 - the condition is a constant
        {**_key(claim), "lease": lease_seconds},
    ).one_or_none()
    return renewed is not None and claim.run_id in runnable_run_ids(connection)


def release(connection: Connection, claim: SliceClaim, *, suspect: bool = False) -> None:
    """`running → queued`: another worker can claim the rest of the slice.

    Args:
        suspect: count a rescue, since one of its images may be at fault.
    """
    connection.execute(
        text(f"""
            UPDATE rescore_slices SET state = 'queued', lease_until = NULL, worker = NULL, rescues = rescues + :suspect
            WHERE {_CLAIMED}
        """),  # noqa: S608 - the condition is a constant
        {**_key(claim), "suspect": int(suspect)},
    )


def reclaim_expired_leases(connection: Connection, *, at_most: int = 100) -> int:
    """`running → queued` for slices whose lease has expired. Returns how many.

    Each counts a rescue, since one of its images may have killed the worker. Slices of runs that ended are deleted.
    """
    connection.execute(
        text("""
            DELETE FROM rescore_slices AS slice USING (
                SELECT left_over.run_id, left_over.first FROM rescore_slices AS left_over
                JOIN rescore_runs AS run ON run.id = left_over.run_id
                WHERE run.state IN ('completed', 'failed', 'cancelled')
                  AND (left_over.state = 'queued' OR left_over.lease_until NOT BETWEEN clock_timestamp()
                    AND clock_timestamp() + make_interval(secs => :longest))
                FOR UPDATE OF left_over SKIP LOCKED
            ) AS ended WHERE slice.run_id = ended.run_id AND slice.first = ended.first
        """),
        {"longest": MAX_LEASE_SECONDS},
    )
    return connection.execute(
        text("""
            WITH expired AS (
                SELECT run_id, first FROM rescore_slices WHERE state = 'running'
                  AND lease_until NOT BETWEEN clock_timestamp()
                    AND clock_timestamp() + make_interval(secs => :longest)
                LIMIT :at_most FOR UPDATE SKIP LOCKED
            )
            UPDATE rescore_slices AS slice SET state = 'queued', rescues = rescues + 1, lease_until = NULL,
                worker = NULL
            FROM expired WHERE slice.run_id = expired.run_id AND slice.first = expired.first
        """),
        {"at_most": at_most, "longest": MAX_LEASE_SECONDS},
    ).rowcount


@dataclass(frozen=True)
class WriteOutcome:
    """Whether the claim was still valid, so that the results were written, and whether that ended the run."""

    claim_valid: bool
    run_ended: bool = False


def write(connection: Connection, claim: SliceClaim, results: Sequence[ImageResult]) -> WriteOutcome:
    """Write the results of a slice's next items and count them. Writes nothing if the claim was lost.

    Results that were written are not written again: a commit may succeed though its connection breaks.

    Args:
        results: of the items that follow those that are done, in their order.
    """
    locked = text(f"SELECT done FROM rescore_slices WHERE {_CLAIMED} FOR UPDATE")  # noqa: S608
    done = connection.execute(locked, _key(claim)).scalar()
    if done is None:
        return WriteOutcome(claim_valid=False)
    if results and results[-1].image.number < claim.first + done:
        return WriteOutcome(claim_valid=True)
    if results and results[0].image.number != claim.first + done:
        raise ValueError(f"results begin with number {results[0].image.number}, not with {claim.first + done}")
    _copy(connection, claim.run_id, results)
    _advance(connection, claim, done + len(results))
    run_ended = runs.add_to_counters(connection, claim.run_id, _counts(results))
    bulk_share.note_scored(connection, len(results))
    return WriteOutcome(claim_valid=True, run_ended=run_ended)


def _advance(connection: Connection, claim: SliceClaim, done: int) -> None:
    items_left = done < len(claim.items)
    statement = (
        "UPDATE rescore_slices SET done = :done, rescues = least(rescues, :alone)"
        if items_left
        else "DELETE FROM rescore_slices"
    )
    connection.execute(
        text(f"{statement} WHERE {_CLAIMED}"), {**_key(claim), "done": done, "alone": RESCUES_TO_SCORE_ALONE}
    )


_COLUMNS = tuple(column.name for column in rescore_results.c if column.name != "scored_at")
_COPY = f"COPY rescore_results ({', '.join(_COLUMNS)}) FROM STDIN"


def _copy(connection: Connection, run_id: UUID, results: Sequence[ImageResult]) -> None:
    """Write the rows with COPY, which is several times faster than INSERT."""
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
        for result in results:
            row = _row(run_id, result)
            copy.write_row([row[name] for name in _COLUMNS])


def _row(run_id: UUID, result: ImageResult) -> dict[str, Any]:
    image, before, threshold = result.image, result.image.before, result.threshold
    columns = {name: value for name, value in vars(image).items() if name in rescore_results.c}
    return columns | {
        "run_id": run_id,
        "metadata": None if image.metadata is None else Jsonb(image.metadata),
        "before_model_version_id": before and before.model_version_id,
        "before_score": before and before.anomaly_score,
        "before_threshold": before and before.threshold,
        "before_verdict": before and before.verdict,
        "anomaly_score": result.anomaly_score,
        "threshold": threshold and threshold.threshold,
        "review_threshold": threshold and threshold.review_threshold,
        "verdict": result.verdict,
        "reasons": result.reasons,
        "error_code": result.error_code,
        "error_detail": result.error_detail,
    }


def _counts(results: Sequence[ImageResult]) -> dict[str, int]:
    counts = dict.fromkeys(runs.COUNTERS, 0)
    for result in results:
        counts["failed" if result.verdict is None else "completed"] += 1
        if result.verdict is not None:
            counts[result.verdict] += 1
            before = result.image.before
            flip = f"{before.verdict}_to_{result.verdict}" if before is not None else ""
            if flip in counts:
                counts[flip] += 1
    return counts


_INSPECTIONS = text("""
SELECT id, external_id, part_id, lot_id, line_id, station_id, image_day, image_sha256,
    model_version_id, anomaly_score, threshold, verdict
FROM inspections WHERE id = ANY(CAST(:ids AS uuid[]))
""")


def run_images(connection: Connection, claim: SliceClaim) -> list[RunImage]:
    """Return the images of a slice that have no results yet, in the order of its items."""
    numbered = list(enumerate(claim.items, start=claim.first))[claim.done :]
    ids = [item["id"] for _, item in numbered if "id" in item]
    rows = {str(row.id): row for row in connection.execute(_INSPECTIONS, {"ids": ids})} if ids else {}
    return [
        _inspection_image(number, rows.get(item["id"]), item["id"]) if "id" in item else _archive_image(number, item)
        for number, item in numbered
    ]


def _inspection_image(number: int, row: Any, inspection_id: str) -> RunImage:
    if row is None:
        return RunImage(number, failure=(Failure.IMAGE_MISSING, f"Inspection {inspection_id} no longer exists."))
    names = ("external_id", "part_id", "lot_id", "line_id", "station_id", "image_day", "image_sha256")
    return RunImage(
        number,
        inspection_id=row.id,
        before=RecordedResult(row.model_version_id, row.anomaly_score, row.threshold, row.verdict),
        **{name: getattr(row, name) for name in names},
    )


def _archive_image(number: int, item: dict[str, Any]) -> RunImage:
    fields = dict(item)
    failure = fields.pop("failure", None)
    captured_at = fields.pop("captured_at", None)
    return RunImage(
        number,
        **fields,
        captured_at=None if captured_at is None else dt.datetime.fromisoformat(captured_at),
        failure=None if failure is None else (Failure(failure[0]), failure[1]),
    )
