"""Runs that have their results, without a worker."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from core.models import model_versions, recipes
from core.rescoring import runs
from core.rescoring.requests import RunRequest
from tests.events import MANIFEST, RECIPE


class Seen(NamedTuple):
    """Pictures of a run that are alike: what people said of them, what was recorded (None: nothing), what is now."""

    said: str | None
    before: str | None
    after: str
    number: int = 1


def make_versions(engine: Engine, number: int = 3) -> None:
    """A recipe with so many ready versions; the first is active."""
    manifest = MANIFEST | {"architecture": {"name": "none"}}
    with engine.begin() as connection:
        recipes.create(connection, RECIPE, actor="test")
        for one in range(1, number + 1):
            made, _ = model_versions.register(
                connection, RECIPE, sha256=bytes([one]) * 32, manifest=manifest, actor="test"
            )
            model_versions.mark_ready(connection, made.id)


def assess(engine: Engine, seen: Sequence[Seen] = (), *, version: int = 2, **asked: Any) -> UUID:
    """A completed run of a version over these pictures; `after` may be `failed`."""
    request = RunRequest.model_validate(
        {"recipe": RECIPE, "model_version": version, "source": {"where": {}}, "max_failure_rate": 1, **asked}
    )
    with engine.begin() as connection:
        run = runs.create(connection, request, actor="test")
        add_results(connection, run.id, seen)
        connection.execute(text("UPDATE rescore_runs SET planned_all_at = now() WHERE id = :id"), {"id": run.id})
        runs.settle(connection, run.id)
        assert runs.get(connection, run.id).state == "completed"
    return run.id


def add_results(connection: Connection, run_id: UUID, seen: Sequence[Seen]) -> None:
    """Results of a run that is running, reviewed as it says."""
    for one in seen:
        given = {"run": run_id, **one._asdict()}
        connection.execute(
            text("""
                WITH result AS (
                    INSERT INTO rescore_results (run_id, number, inspection_id, before_verdict, anomaly_score, verdict,
                        error_code)
                    SELECT :run, (SELECT count(*) FROM rescore_results WHERE run_id = :run) + one, uuidv7(),
                        CAST(:before AS text), CASE WHEN :after <> 'failed' THEN 0.1 END,
                        nullif(:after, 'failed'), CASE WHEN :after = 'failed' THEN 'image_missing' END
                    FROM generate_series(1, :number) AS one
                    RETURNING inspection_id
                )
                INSERT INTO reviews (inspection_id, verdict, reviewer, reason, actor)
                SELECT inspection_id, CAST(:said AS text), 'a person', 'looked', 'test' FROM result
                WHERE CAST(:said AS text) IS NOT NULL
            """),
            given,
        )
    connection.execute(
        text("""
            UPDATE rescore_runs SET state = 'running', started_at = now(), planned = greatest(planned, has.done),
                total = greatest(total, has.done), completed = has.done - has.failed, failed = has.failed,
                ok_to_ng = has.ok_to_ng
            FROM (
                SELECT count(*) AS done, count(error_code) AS failed,
                    count(*) FILTER (WHERE before_verdict = 'ok' AND verdict = 'ng') AS ok_to_ng
                FROM rescore_results WHERE run_id = :run
            ) AS has
            WHERE id = :run
        """),
        {"run": run_id},
    )
