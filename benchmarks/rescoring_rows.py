"""`make bench-rescoring-rows`: runs over a million stored results, judged again or planned for scoring. Reads no image.

Prints the time to plan a slice and to read the progress for the first, the middle and the last tenth of the archive.
Both should stay constant.
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
    """Create a recipe with two versions, and inspections that the first version has scored."""
    with engine.begin() as connection:
        recipes.create(connection, RECIPE, actor="bench")
        for number in (1, 2):
            manifest = {"threshold": {"value": 0.5, "calibration": None}, "review_threshold": None}
            version, _ = model_versions.register(
                connection, RECIPE, sha256=bytes([number]) * 32, manifest=manifest, actor="bench"
            )
            model_versions.mark_ready(connection, version.id)
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


class RescoringPipeline:
    """The planner, called as the dispatcher calls it."""

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


def time_call(action: Callable[[], object]) -> float:
    """Return the milliseconds that a call takes."""
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000


def judge_again(harness: RescoringPipeline, rows: int) -> None:
    """Judge the stored scores by another threshold, and time it and the report."""
    run_id = harness.run(1, threshold=0.4)
    started = time.perf_counter()
    harness.planner.plan(run_id)
    seconds = time.perf_counter() - started
    run = harness.progress(run_id)
    assert (run.state, run.done) == ("completed", rows), run
    print(f"{rows} stored scores judged again in {seconds:.1f} s, {rows / seconds:.0f} per second; {run.counts}")
    print(f"report after {time_call(lambda: report.build_report(harness.engine, run_id)) / 1000:.1f} s")


def plan_scoring(harness: RescoringPipeline, rows: int) -> None:
    """Plan a run of the second version, and write invented results for each slice as soon as it exists."""
    run_id = harness.run(2)
    planning, reading = [], []
    started = time.perf_counter()
    while not (run := harness.progress(run_id)).final:
        assert time.perf_counter() - started < LIMIT_SECONDS, run
        planned = run.planned
        milliseconds = time_call(lambda: harness.planner.plan(run_id))
        if added := harness.progress(run_id).planned - planned:
            planning.append(milliseconds / (added / harness.settings.rescore_slice))
        _write_invented_results(harness)
        reading.append(time_call(lambda: harness.progress(run_id)))
    print(f"{rows} images planned, and invented results written, in {time.perf_counter() - started:.0f} s")
    for name, times in (("planning a slice", planning[1:]), ("reading the progress", reading)):
        tenth = max(1, len(times) // 10)
        parts = (times[:tenth], times[len(times) // 2 :][:tenth], times[-tenth:])
        first, middle, last = (statistics.median(part) for part in parts)
        print(f"{name:20} first tenth {first:.2f} ms, middle {middle:.2f} ms, last {last:.2f} ms ({last / first:.2f})")


def _write_invented_results(harness: RescoringPipeline) -> None:
    while True:
        with harness.engine.begin() as connection:
            claim = slices.claim(connection, worker="bench", lease_seconds=60)
            if claim is None:
                return
            images = slices.run_images(connection, claim)
        results = [ImageResult(image, RunThreshold(0.5), 0.25, "ok") for image in images]
        with harness.engine.begin() as connection:
            slices.write(connection, claim, results)


def main() -> int:
    """Measure on temporary servers."""
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
            harness = RescoringPipeline(settings, engine)
            judge_again(harness, rows)
            plan_scoring(harness, rows)
            harness.notifier.close()
            engine.dispose()
            unbounded.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
