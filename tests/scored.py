"""Runs with random results, written as a worker would have, and what a person would count in them."""

import datetime as dt
import random
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine, insert, text

from core.rescoring.tables import rescore_results
from core.tables import reviews

MOMENT = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
_VERDICTS = ("ok", "ng", "review")


def random_rows(number: int, *, seed: int = 0, version_id: int | None = 1) -> list[dict[str, Any]]:
    """Rows of `rescore_results` of every kind: seen before or not, failed, with thresholds of no use."""
    draw = random.Random(seed)
    return [_row(draw, one, version_id) for one in range(1, number + 1)]


def _row(draw: random.Random, number: int, version_id: int | None) -> dict[str, Any]:
    threshold = draw.choice([0.5, 0.5, 2.0, 1e-12, 0.0, -1.0])
    before = draw.random() < 0.8
    failed = draw.random() < 0.1
    kind = draw.choice(["image_missing", "poison"])
    inspected = before or draw.random() < 0.5
    return {
        "number": number,
        "inspection_id": uuid4() if inspected else None,
        "path": None if inspected else f"a/{number}<b>.png",
        "external_id": draw.choice([None, 'x, "y"\r\n']),
        "part_id": f"P-{number}",
        "lot_id": draw.choice([None, "L<1>"]),
        "line_id": draw.choice([None, "1", "2"]),
        "station_id": draw.choice([None, "A", "B"]),
        "captured_at": draw.choice([None, MOMENT]),
        "metadata": draw.choice([None, {"ä": 1}]),
        "image_day": MOMENT.date() if inspected else None,
        "image_sha256": number.to_bytes(32),
        "before_model_version_id": version_id if before else None,
        "before_score": draw.expovariate(2) if before else None,
        "before_threshold": draw.choice([0.5, 0.0]) if before else None,
        "before_verdict": draw.choice(_VERDICTS) if before else None,
        "anomaly_score": None if failed else draw.choice([0.0, 1e-300, 1e300, draw.expovariate(1), draw.random()]),
        "threshold": None if failed else threshold,
        "review_threshold": None,
        "verdict": None if failed else draw.choice(_VERDICTS),
        "reasons": [] if failed else draw.choice([[], ["input_dark"]]),
        "error_code": kind if failed else None,
        "error_detail": f"{kind} <{number}>" if failed else None,
        "scored_at": MOMENT,
    }


def write(engine: Engine, run_id: UUID, rows: list[dict[str, Any]]) -> None:
    """Enter the rows as results of a run that is running."""
    with engine.begin() as connection:
        connection.execute(insert(rescore_results), [{"run_id": run_id, **row} for row in rows])
        failed = sum(row["error_code"] is not None for row in rows)
        connection.execute(
            text("""
                UPDATE rescore_runs SET state = 'running', started_at = now() - interval '10 seconds', total = :done,
                    planned = :done, completed = :done - :failed, failed = :failed WHERE id = :id
            """),
            {"id": run_id, "done": len(rows), "failed": failed},
        )


def review(connection: Connection, inspection_id: UUID, verdict: str, **own: str) -> None:
    """What a person says of an inspection."""
    said = {"reviewer": "a person", "reason": "looked", "actor": "test", **own}
    connection.execute(insert(reviews).values(inspection_id=inspection_id, verdict=verdict, **said))


def review_some(engine: Engine, rows: list[dict[str, Any]], *, seed: int = 0) -> dict[int, str]:
    """Reviews of every third picture that was inspected, some of them twice; the newest verdict by number."""
    draw = random.Random(seed)
    said = {}
    with engine.begin() as connection:
        for row in rows:
            if row["inspection_id"] is None or draw.random() > 0.33:
                continue
            for _ in range(draw.choice([1, 1, 2])):
                said[row["number"]] = draw.choice(["ok", "ng"])
                review(connection, row["inspection_id"], said[row["number"]])
    return said
