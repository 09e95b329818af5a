"""Slices: the parts of a run's source that workers take. A slice that is done is no row any more.

    queued ──claim (attempt + 1, lease)──► running ──all of its items have results──► gone
      ▲                                     │
      └── release (the line comes first, a stop), rescue (lease ran out): what was done stays done

`attempt` is a fence, as that of an inspection: results count only for the attempt that holds the slice, and they are
written together with the slice's progress and the run's counters. So a slice done twice leaves one result an image.
"""

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import Connection, text

from core.errors import Failure
from core.models.verdicts import Verdict
from core.queue import bulk_share
from core.rescoring import runs
from core.rescoring.maintenance_windows import Window
from core.rescoring.run_thresholds import RunThreshold
from core.rescoring.tables import rescore_results


@dataclass(frozen=True)
class Claim:
    """A slice that a worker holds.

    Attributes:
        first: the number of its first image in the run; it names the slice.
        done: how many of its items have their results already.
        items: all of its items, as the planner wrote them.
        rescues: how often its lease ran out: its images are suspect then.
    """

    run_id: UUID
    first: int
    attempt: int
    items: list[dict[str, Any]]
    done: int
    rescues: int


@dataclass(frozen=True)
class RecordedResult:
    """What was recorded of an inspection when it was scored again."""

    model_version_id: int | None
    anomaly_score: float | None
    threshold: float | None
    verdict: Verdict | None


@dataclass(frozen=True)
class RunImage:
    """One image of a run, and whatever is known of the part on it.

    Attributes:
        number: its place in the run's source, from 1.
        path: of an image in a folder or of a manifest, relative to it.
        image_day, image_sha256: where a stored image lies; the second is also noted of one that was read elsewhere.
        failure: why it cannot even be tried, with the detail for people.
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
class Result:
    """How an image came out: a score and a verdict, or an error."""

    subject: RunImage
    limit: RunThreshold | None = None
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


def claim(connection: Connection, *, worker: str, lease_seconds: float) -> Claim | None:
    """Take the next slice of the runs that may run now, those of challengers first; None if there is none."""
    row = connection.execute(
        _CLAIM, {"runs": runs_open_now(connection), "worker": worker, "lease": lease_seconds}
    ).one_or_none()
    return None if row is None else Claim(**row._mapping)


def runs_open_now(connection: Connection) -> list[UUID]:
    """The runs that are queued or running, and are not outside their window."""
    rows = connection.execute(
        text("""
            SELECT id, "window", time_zone, clock_timestamp() AS now FROM rescore_runs
            WHERE state IN ('queued', 'running')
        """)
    )
    return [row.id for row in rows if row.window is None or Window.parse(row.window, row.time_zone).is_open(row.now)]


def waiting(connection: Connection) -> int:
    """How many slices could be taken now."""
    return int(
        connection.execute(
            text("""
                SELECT count(*) FROM rescore_slices AS slice JOIN rescore_runs AS run ON run.id = slice.run_id
                WHERE slice.state = 'queued' AND slice.run_id = ANY(CAST(:runs AS uuid[])) AND run.state = 'running'
            """),
            {"runs": runs_open_now(connection)},
        ).scalar_one()
    )


_MINE = "run_id = :run_id AND first = :first AND attempt = :attempt AND state = 'running'"


def _key(claim: Claim) -> dict[str, Any]:
    return {"run_id": claim.run_id, "first": claim.first, "attempt": claim.attempt}


def renew(connection: Connection, claim: Claim, lease_seconds: float) -> bool:
    """Extend the lease; False when the slice should be let go: it is another's, or its run may not run now."""
    renewed = connection.execute(
        text(f"""
            UPDATE rescore_slices SET lease_until = clock_timestamp() + make_interval(secs => :lease)
            WHERE {_MINE} RETURNING run_id
        """),  # noqa: S608 - the condition is a constant of ours
        {**_key(claim), "lease": lease_seconds},
    ).one_or_none()
    return renewed is not None and claim.run_id in runs_open_now(connection)


def release(connection: Connection, claim: Claim) -> None:
    """`running → queued`, what is left of the slice goes to the next worker."""
    connection.execute(
        text(f"UPDATE rescore_slices SET state = 'queued', lease_until = NULL, worker = NULL WHERE {_MINE}"),  # noqa: S608
        _key(claim),
    )


def reclaim_expired_leases(connection: Connection, *, at_most: int = 100) -> int:
    """`running → queued` for leases that ran out; returns how many. Their images are suspect from now on.

    Slices of ended runs are removed.
    """
    connection.execute(
        text("""
            DELETE FROM rescore_slices AS slice USING (
                SELECT left_over.run_id, left_over.first FROM rescore_slices AS left_over
                JOIN rescore_runs AS run ON run.id = left_over.run_id
                WHERE run.state IN ('completed', 'failed', 'cancelled')
                  AND (left_over.state = 'queued' OR left_over.lease_until < clock_timestamp())
                FOR UPDATE OF left_over SKIP LOCKED
            ) AS ended WHERE slice.run_id = ended.run_id AND slice.first = ended.first
        """)
    )
    return connection.execute(
        text("""
            WITH expired AS (
                SELECT run_id, first FROM rescore_slices WHERE state = 'running' AND lease_until < clock_timestamp()
                LIMIT :at_most FOR UPDATE SKIP LOCKED
            )
            UPDATE rescore_slices AS slice SET state = 'queued', rescues = rescues + 1, lease_until = NULL,
                worker = NULL
            FROM expired WHERE slice.run_id = expired.run_id AND slice.first = expired.first
        """),
        {"at_most": at_most},
    ).rowcount


@dataclass(frozen=True)
class Written:
    """What became of a write: whether the slice was ours, and whether its run has ended by it."""

    held: bool
    run_ended: bool = False


def write(connection: Connection, claim: Claim, results: Sequence[Result]) -> Written:
    """Write the results of a slice's next items and count them; nothing is written where the slice is not ours.

    `results` follow those that are done, in the order of the items.
    """
    held = connection.execute(text(f"SELECT done FROM rescore_slices WHERE {_MINE} FOR UPDATE"), _key(claim)).scalar()  # noqa: S608
    if held is None:
        return Written(held=False)
    if results and results[0].subject.number != claim.first + held:
        raise ValueError(f"results begin with number {results[0].subject.number}, not with {claim.first + held}")
    _copy(connection, claim.run_id, results)
    _advance(connection, claim, held + len(results))
    run_ended = runs.add_to_counters(connection, claim.run_id, _counts(results))
    bulk_share.note_scored(connection, len(results))
    return Written(held=True, run_ended=run_ended)


def _advance(connection: Connection, claim: Claim, done: int) -> None:
    is_left = done < len(claim.items)
    statement = "UPDATE rescore_slices SET done = :done" if is_left else "DELETE FROM rescore_slices"
    connection.execute(text(f"{statement} WHERE {_MINE}"), {**_key(claim), "done": done})


_COLUMNS = tuple(column.name for column in rescore_results.c if column.name != "scored_at")
_COPY = f"COPY rescore_results ({', '.join(_COLUMNS)}) FROM STDIN"


def _copy(connection: Connection, run_id: UUID, results: Sequence[Result]) -> None:
    """Write many rows as one stream; it is several times quicker than INSERT."""
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
        for one in results:
            row = _row(run_id, one)
            copy.write_row([row[name] for name in _COLUMNS])


def _row(run_id: UUID, result: Result) -> dict[str, Any]:
    subject, before = result.subject, result.subject.before
    own = {name: value for name, value in vars(subject).items() if name in rescore_results.c}
    return own | {
        "run_id": run_id,
        "metadata": None if subject.metadata is None else Jsonb(subject.metadata),
        "before_model_version_id": before and before.model_version_id,
        "before_score": before and before.anomaly_score,
        "before_threshold": before and before.threshold,
        "before_verdict": before and before.verdict,
        "anomaly_score": result.anomaly_score,
        "threshold": result.limit and result.limit.threshold,
        "review_threshold": result.limit and result.limit.review_threshold,
        "verdict": result.verdict,
        "reasons": result.reasons,
        "error_code": result.error_code,
        "error_detail": result.error_detail,
    }


def _counts(results: Sequence[Result]) -> dict[str, int]:
    counts = dict.fromkeys(runs.COUNTED, 0)
    for one in results:
        counts["failed" if one.verdict is None else "completed"] += 1
        if one.verdict is not None:
            counts[one.verdict] += 1
            before = one.subject.before
            flip = f"{before.verdict}_to_{one.verdict}" if before is not None else ""
            if flip in counts:
                counts[flip] += 1
    return counts


_SUBJECTS = text("""
SELECT id, external_id, part_id, lot_id, line_id, station_id, image_day, image_sha256,
    model_version_id, anomaly_score, threshold, verdict
FROM inspections WHERE id = ANY(CAST(:ids AS uuid[]))
""")


def run_images(connection: Connection, claim: Claim) -> list[RunImage]:
    """The images of a slice that have no results yet, in the order of its items."""
    numbered = list(enumerate(claim.items, start=claim.first))[claim.done :]
    ids = [item["id"] for _, item in numbered if "id" in item]
    found = {str(row.id): row for row in connection.execute(_SUBJECTS, {"ids": ids})} if ids else {}
    return [
        _inspected(number, found.get(item["id"]), item["id"]) if "id" in item else _unseen(number, item)
        for number, item in numbered
    ]


def _inspected(number: int, row: Any, inspection_id: str) -> RunImage:
    if row is None:
        return RunImage(number, failure=(Failure.IMAGE_MISSING, f"Inspection {inspection_id} no longer exists."))
    names = ("external_id", "part_id", "lot_id", "line_id", "station_id", "image_day", "image_sha256")
    return RunImage(
        number,
        inspection_id=row.id,
        before=RecordedResult(row.model_version_id, row.anomaly_score, row.threshold, row.verdict),
        **{name: getattr(row, name) for name in names},
    )


def _unseen(number: int, item: dict[str, Any]) -> RunImage:
    given = dict(item)
    failure = given.pop("failure", None)
    captured_at = given.pop("captured_at", None)
    return RunImage(
        number,
        **given,
        captured_at=None if captured_at is None else dt.datetime.fromisoformat(captured_at),
        failure=None if failure is None else (Failure(failure[0]), failure[1]),
    )


def as_json(items: Sequence[dict[str, Any]]) -> str:
    """Items as a slice keeps them."""
    return json.dumps(items, ensure_ascii=False, separators=(",", ":"))
