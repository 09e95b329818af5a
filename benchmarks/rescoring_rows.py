"""`make bench-rescoring-rows`: a million stored results judged anew, and planned for the network; no image is read.

What planning a slice and asking for the progress cost is shown for the first, the middle and the last tenth of the
archive: both should stay flat.
"""

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import Engine, text

from core.database import create_pool, create_unbounded
from core.models import model_versions, recipes
from core.queue.notifications import Notifier
from core.rescoring import runs, slices
from core.rescoring.reports import report
from core.rescoring.requests import RunRequest
from core.rescoring.run_thresholds import RunThreshold
from core.rescoring.slices import ImageResult
from core.settings import Settings
from linewatch.server.embedded.servers import EmbeddedServers
from migrations.__main__ import migrate
from worker.rescoring.planning import Planner

ROWS = 1_000_000
RECIPE = "rows"
LIMIT_SECONDS = 900


def prepare(engine: Engine, rows: int) -> None:
    """A recipe with two versions, and inspections that the first has scored."""
    with engine.begin() as connection:
        recipes.create(connection, RECIPE, actor="bench")
        for number in (1, 2):
            manifest = {"threshold": {"value": 0.5, "calibration": None}, "review_threshold": None}
            made, _ = model_versions.register(
                connection, RECIPE, sha256=bytes([number]) * 32, manifest=manifest, actor="bench"
            )
            model_versions.mark_ready(connection, made.id)
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO inspections (id, recipe_id, priority, metadata, image_day, image_sha256, attempt,
                    line_id, station_id, model_version_id, threshold_id, threshold, status, anomaly_score, verdict,
                    reasons, timings_ms, created_at)
                SELECT uuidv7(), 1, 'live', '{}', current_date, sha256(n::text::bytea), 1,
                    'line-' || n % 3, 'st-' || n % 7, 1, 1, 0.5, 'completed', (n % 1000) / 1000.0,
                    CASE WHEN n % 1000 >= 500 THEN 'ng' ELSE 'ok' END, '{}', '{}', clock_timestamp()
                FROM generate_series(1, :rows) AS n
            """),
            {"rows": rows},
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))


class RescoringHarness:
    """The planner, asked as the dispatcher does."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.engine = engine
        self.settings = settings
        self.notifier = Notifier(settings)
        self.planner = Planner(settings, engine, self.notifier, threading.Event())

    def run(self, version: int, threshold: float | None = None) -> UUID:
        request = RunRequest.model_validate(
            {"recipe": RECIPE, "model_version": version, "source": {"where": {}}, "threshold": threshold}
        )
        with self.engine.begin() as connection:
            return runs.create(connection, request, actor="bench").id

    def progress(self, run_id: UUID) -> runs.Run:
        with self.engine.begin() as connection:
            return runs.get(connection, run_id)


def timed(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return (time.perf_counter() - begun) * 1000


def judge(night: RescoringHarness, rows: int) -> None:
    run_id = night.run(1, threshold=0.4)
    begun = time.perf_counter()
    night.planner.plan(run_id)
    took = time.perf_counter() - begun
    run = night.progress(run_id)
    assert (run.state, run.done) == ("completed", rows), run
    print(f"{rows} stored scores judged anew and written in {took:.1f} s, {rows / took:.0f} a second; {run.counts}")
    print(f"the report of these after {timed(lambda: report.build_report(night.engine, run_id)) / 1000:.1f} s")


def plan(night: RescoringHarness, rows: int) -> None:
    """Plan for the network, while results are made up as soon as there are slices."""
    run_id = night.run(2)
    planning, writing, asking = [], [], []
    begun = time.perf_counter()
    while not (run := night.progress(run_id)).final:
        assert time.perf_counter() - begun < LIMIT_SECONDS, run
        planned = run.planned
        took = timed(lambda: night.planner.plan(run_id))
        if added := night.progress(run_id).planned - planned:
            planning.append(took / (added / night.settings.rescore_slice))
        writing.append(timed(lambda: _make_up(night)))
        asking.append(timed(lambda: night.progress(run_id)))
    print(f"{rows} images planned, and results made up for them, in {time.perf_counter() - begun:.0f} s")
    for name, seen in (("planning a slice", planning[1:]), ("asking for progress", asking)):
        tenth = max(1, len(seen) // 10)
        parts = (seen[:tenth], seen[len(seen) // 2 :][:tenth], seen[-tenth:])
        first, middle, last = (statistics.median(part) for part in parts)
        print(f"{name:20} first tenth {first:.2f} ms, middle {middle:.2f} ms, last {last:.2f} ms ({last / first:.2f})")


def _make_up(night: RescoringHarness) -> None:
    while True:
        with night.engine.begin() as connection:
            claim = slices.claim(connection, worker="bench", lease_seconds=60)
            if claim is None:
                return
            subjects = slices.run_images(connection, claim)
        results = [ImageResult(one, RunThreshold(0.5), 0.25, "ok") for one in subjects]
        with night.engine.begin() as connection:
            slices.write(connection, claim, results)


def main() -> int:
    """Measure on servers of its own."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory(prefix="lw-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with EmbeddedServers(folder / "servers") as servers:
            settings = Settings(
                database_url=SecretStr(servers.database_url),
                redis_url=SecretStr(servers.redis_url),
                store_url=(folder / "store").as_uri(),
            )
            unbounded = create_unbounded(settings, name="bench")
            migrate(unbounded)
            prepare(unbounded, rows)
            engine = create_pool(settings, size=6, name="bench")
            night = RescoringHarness(settings, engine)
            judge(night, rows)
            plan(night, rows)
            night.notifier.close()
            engine.dispose()
            unbounded.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
