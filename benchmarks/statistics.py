"""`make bench-statistics`: what the figures, listings and histograms of a page cost over days of inspections.

Inserts a day of 50,000 and one of a million inspections, counts them as the dispatcher does, and times what the api
reads. BENCH_ARGS=N replaces the million.
"""

import datetime as dt
import statistics as stats
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import SecretStr
from sqlalchemy import Connection, Engine, text

from core.database import create_unbounded
from core.feed import feed
from core.inspection import inspections, score_histogram, threshold_preview
from core.inspection.inspections import Filters
from core.models import model_versions, recipes
from core.settings import Settings
from core.statistics import counting, statistics
from core.statistics.buckets import Bucket, find_edges
from linewatch.server.embedded.servers import EmbeddedServers
from migrations.__main__ import migrate

SMALL, LARGE = 50_000, 1_000_000
AT_ONCE = 50_000
ROUNDS = 5
DAY = dt.timedelta(days=1)

# Seven stations on three lines, times to verdict around 40 ms, 3 % ng, 2 % review, a few failures.
_INSERT = text("""
INSERT INTO inspections (id, recipe_id, priority, metadata, image_day, image_sha256, attempt, line_id, station_id,
    part_id, model_version_id, threshold, status, error_code, anomaly_score, verdict, reasons, timings_ms, created_at,
    finished_at)
SELECT uuidv7(-ago), :recipe_id, 'live', '{}', current_date, '\\x01', 1, 'line-' || n % 7 % 3, 'st-' || n % 7,
    'SN-' || n, :version_id, 0.5, CASE WHEN bad THEN 'failed' ELSE 'completed' END,
    CASE WHEN bad THEN 'image_undecodable' END, CASE WHEN NOT bad THEN score END,
    CASE WHEN bad THEN NULL WHEN score >= 0.5 THEN 'ng' WHEN score >= 0.45 THEN 'review' ELSE 'ok' END, '{}',
    '{"total": 24.0}', now() - ago, now() - ago + took
FROM (
    SELECT n, make_interval(secs => 86400 * (1 - n / CAST(:total AS float8)) + :days * 86400) AS ago,
        exp(random_normal(-1.6, 0.5)) AS score, random() < 0.002 AS bad,
        make_interval(secs => exp(random_normal(-3.2, 0.6))) AS took
    FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS n
) AS drawn
""")


def prepare(engine: Engine, large: int) -> None:
    """Insert a small day of one recipe, and of another one a large day after one by an earlier version."""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO images VALUES (current_date, '\\x01', 'image/png', 4, 3, 10)"))
        for name in ("small", "large"):
            recipes.create(connection, name, actor="bench")
            for number in (1, 2):
                manifest = {"threshold": {"value": 0.5, "calibration": None}, "review_threshold": None}
                version, _ = model_versions.register(
                    connection, name, sha256=bytes([number]) * 32, manifest=manifest, actor="bench"
                )
                model_versions.mark_ready(connection, version.id)
    for recipe, version_number, total, days in (("large", 1, large, 1), ("large", 2, large, 0), ("small", 1, SMALL, 0)):
        for first in range(1, total + 1, AT_ONCE):
            with engine.begin() as connection:
                version = model_versions.get(connection, recipe, version_number)
                ids = {"recipe_id": version.recipe_id, "version_id": version.id}
                last = min(total, first + AT_ONCE - 1)
                connection.execute(_INSERT, {**ids, "total": total, "days": days, "first": first, "last": last})
        _number(engine)


def _number(engine: Engine) -> None:
    newest, before = -1, None
    while newest != before:
        before = newest
        with engine.begin() as connection:
            newest = feed.number_entries(connection).newest
    _vacuum(engine)


def _vacuum(engine: Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def count(engine: Engine) -> None:
    """Count as the dispatcher does: half of the inspections as entries of the feed, the rest backwards in time."""
    with engine.begin() as connection:
        connection.execute(
            text("""
                UPDATE inspection_counts_state SET complete_from = '1970-01-01Z',
                    position = (SELECT max(number) / 2 FROM feed)
            """)
        )
        state = counting.read_state(connection)
    forwards = []
    while counted := _count_once(engine, state):
        forwards.append(counted[0])
        state = counted[1]
    print(f"{counting.ENTRIES_AT_ONCE} entries of the feed counted in {1000 * stats.median(forwards):.0f} ms")
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE inspection_counts"))
        connection.execute(text("UPDATE inspection_counts_state SET complete_from = NULL"))
        state = counting.read_state(connection)
    backwards = []
    while counted := _count_once(engine, state):
        backwards.append(counted[0])
        state = counted[1]
    print(
        f"earlier inspections counted in {len(backwards)} steps of up to {1000 * max(backwards):.0f} ms, "
        f"{sum(backwards):.1f} s in total"
    )
    _vacuum(engine)


def _count_once(engine: Engine, state: counting.State) -> tuple[float, counting.State] | None:
    """Return the seconds of a step and the state after it; None if there was nothing left to count."""
    started = time.perf_counter()
    with engine.begin() as connection:
        counting.count_more(connection)
        after = counting.read_state(connection)
    return None if after == state else (time.perf_counter() - started, after)


def time_read(engine: Engine, name: str, read: Callable[[Connection], object]) -> None:
    """Print the median time of a read, after a first one that is not timed."""
    times = []
    for _ in range(ROUNDS + 1):
        with engine.execution_options(isolation_level="REPEATABLE READ").begin() as connection:
            started = time.perf_counter()
            read(connection)
            times.append(time.perf_counter() - started)
    print(f"{name:55} {1000 * stats.median(times[1:]):6.0f} ms")


def read_statistics(recipe: str | None, since: dt.timedelta, bucket: Bucket | None) -> Callable[[Connection], object]:
    """Return a function that reads the statistics from some time ago until now."""
    now = dt.datetime.now(dt.UTC)
    edges = find_edges(now - since, now, bucket, ZoneInfo("Europe/Berlin"))
    return lambda connection: statistics.read(connection, recipe=recipe, line_id=None, station_id=None, edges=edges)


def list_page(**filters: object) -> Callable[[Connection], object]:
    """Return a function that lists the first page of 100."""
    return lambda connection: inspections.list_page(
        connection,
        Filters(**filters),  # type: ignore[arg-type]
        before=None,
        limit=100,
    )


def measure(engine: Engine, large: int) -> None:
    """Time the reads of a page."""
    for bucket in (None, 3600, 900):
        time_read(engine, f"statistics of {SMALL} a day, bucket {bucket}", read_statistics("small", DAY, bucket))
        time_read(engine, f"statistics of {large} a day, bucket {bucket}", read_statistics("large", DAY, bucket))
    time_read(engine, "statistics of all recipes, 30 days by day", read_statistics(None, 30 * DAY, "day"))
    time_read(engine, "statistics of the last 8 hours by minute", read_statistics("large", DAY / 3, 60))
    time_read(engine, "listing of a recipe", list_page(recipe="large"))
    time_read(engine, "listing of its ng", list_page(recipe="large", verdict="ng"))
    time_read(engine, "listing by a score that nothing has", list_page(recipe="large", min_score=50.0))
    time_read(engine, "listing near the threshold", list_page(recipe="large", min_score_ratio=0.9, max_score_ratio=1.1))
    time_read(engine, "listing of the earlier version", list_page(recipe="large", model_version=1))
    time_read(
        engine,
        "listing of the earlier version by such a score",
        list_page(recipe="large", model_version=1, min_score=50.0),
    )
    since = dt.datetime.now(dt.UTC) - 30 * DAY
    for number in (1, 2):
        with engine.begin() as connection:
            version = model_versions.get(connection, "large", number)
        time_read(
            engine,
            f"histogram of version {number}",
            lambda connection, version=version: score_histogram.read(  # type: ignore[misc]
                connection, version, station_id=None, since=since, until=None, bins=50
            ),
        )
        time_read(
            engine,
            f"preview of a threshold of version {number}",
            lambda connection, version=version: threshold_preview.preview(  # type: ignore[misc]
                connection, version, threshold=0.45, review_threshold=None, station_id=None, since=since
            ),
        )


def main() -> int:
    """Measure on temporary servers."""
    large = int(sys.argv[1]) if len(sys.argv) > 1 else LARGE
    with tempfile.TemporaryDirectory(prefix="lw-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with EmbeddedServers(folder / "servers") as servers:
            settings = Settings(database_url=SecretStr(servers.database_url), redis_url=SecretStr(servers.redis_url))
            engine = create_unbounded(settings, name="bench")
            migrate(engine)
            prepare(engine, large)
            count(engine)
            measure(engine, large)
            engine.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
