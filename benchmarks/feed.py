"""`make bench-feed`: whether the feed skips a result under many writers, and whether its cost grows with the table.

Writers finish results as workers do, in transactions that stay open for random times, while a reader follows the feed.
Then pages of feeds of three sizes are timed in turns, so that all ratios come from one run.
"""

import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import Connection, Engine, text

from core.database import create_pool, create_unbounded
from core.feed import feed
from core.inspection import inspections
from core.models import recipes
from core.queue import finishing
from core.queue.finishing import Outcome
from core.settings import Settings
from linewatch.server.embedded.servers import EmbeddedServers
from migrations.__main__ import migrate

WRITERS = 10
RESULTS = 100_000  # per writer
MINIBATCH = 250
DELAYS = (0.0, 0.0, 0.002, 0.01, 0.05)  # seconds between finishing and committing
SIZES = (10_000, 100_000, 1_000_000)
PAGE = 100
ROUNDS = 200

_RUNNING = text("""
    INSERT INTO work (id, recipe_id, priority, metadata, image_day, image_sha256, state, attempt, threshold)
    SELECT uuidv7(), :recipe_id, 'live', '{}', current_date, '\\x00', 'running', 1, 0.5 FROM generate_series(1, :number)
    RETURNING id
""")


@contextmanager
def create_database(servers: EmbeddedServers, name: str) -> Iterator[Engine]:
    """Create and migrate a database with one recipe and one image, and yield a connection pool."""
    settings = Settings(
        database_url=SecretStr(servers.database_url.replace("/linewatch?", f"/{name}?")),
        redis_url=SecretStr(servers.redis_url),
    )
    admin = create_unbounded(
        settings.model_copy(update={"database_url": SecretStr(servers.database_url)}), name="bench"
    )
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    migrate(create_unbounded(settings, name="bench"))
    engine = create_pool(settings, size=WRITERS + 4, name="bench")
    with engine.begin() as connection:
        recipes.create(connection, "bench", actor="bench")
        connection.execute(text("INSERT INTO images VALUES (current_date, '\\x00', 'image/png', 1, 1, 1)"))
    yield engine
    engine.dispose()


def write(engine: Engine, recipe_id: int, seed: int) -> list[UUID]:
    """Finish results in minibatches, each committed after a random delay. Return their inspection ids."""
    random = Random(seed)  # noqa: S311 - no secret
    written: list[UUID] = []
    while len(written) < RESULTS:
        with engine.begin() as connection:
            ids = list(connection.execute(_RUNNING, {"recipe_id": recipe_id, "number": MINIBATCH}).scalars())
        outcomes = [Outcome(work_id, 1, "completed", anomaly_score=0.25, verdict="ok") for work_id in ids]
        with engine.begin() as connection:
            finishing.finish(connection, outcomes)
            time.sleep(random.choice(DELAYS))
        written += ids
    return written


def follow(engine: Engine, done: threading.Event) -> list[UUID]:
    """Read the feed page by page until the writers are done and a page is empty. Return the ids in feed order."""
    received: list[UUID] = []
    cursor: str | None = None
    while True:
        writers_done = done.is_set()
        page, cursor = read_page(engine, cursor)
        received += page
        if writers_done and not page:
            return received
        if not page:
            time.sleep(0.01)


def read_page(engine: Engine, cursor: str | None, limit: int = 1000) -> tuple[list[UUID], str]:
    """Return the inspection ids of the page after the cursor, and the next cursor."""
    with engine.begin() as connection:
        state = feed.number_entries(connection)
        page = feed.read(connection, state, feed.start_cursor(connection, state, cursor), limit=limit)
        return [entry.inspection_id for entry in page.entries], str(page.next_cursor)


def soak(servers: EmbeddedServers) -> bool:
    """Run many writers and one reader. Return whether the reader received each result exactly once."""
    with create_database(servers, "soak") as engine, ThreadPoolExecutor(WRITERS + 1) as pool:
        done = threading.Event()
        started = time.perf_counter()
        reader = pool.submit(follow, engine, done)
        writers = [pool.submit(write, engine, 1, seed) for seed in range(WRITERS)]
        written = Counter(inspection_id for writer in writers for inspection_id in writer.result())
        seconds = time.perf_counter() - started
        done.set()
        received = Counter(reader.result())
    repeated = sum(count > 1 for count in received.values())
    missing = len(written - received)
    unknown = len(received - written)
    print(
        f"{WRITERS} writers × {RESULTS:,} results in {seconds:.0f} s ({len(written) / seconds:,.0f} per second): "
        f"{len(received):,} received, {missing} missing, {repeated} received more than once, {unknown} unknown"
    )
    return not (repeated or missing or unknown)


def grow_feed(engine: Engine, size: int) -> None:
    """Insert finished inspections with SQL until the feed has `size` numbered entries."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL transaction_timeout = 0; SET LOCAL statement_timeout = 0"))
        existing = feed.number_entries(connection).newest
        connection.execute(
            text("""
                INSERT INTO inspections (id, recipe_id, priority, metadata, image_day, image_sha256, status,
                    anomaly_score, threshold, verdict, reasons, timings_ms)
                SELECT uuidv7(), 1, 'live', '{}', current_date, '\\x00', 'completed', 0.25, 0.5, 'ok', '{}', '{}'
                FROM generate_series(1, :more)
            """),
            {"more": size - existing},
        )
    newest = -1
    while newest < size:
        with engine.begin() as connection:
            newest = feed.number_entries(connection).newest
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def time_page(engine: Engine, cursor: str) -> float:
    """Return the seconds of one page as the api builds it: number new entries, read, and fetch the inspections."""
    started = time.perf_counter()
    with engine.begin() as connection:
        state = feed.number_entries(connection)
    with engine.begin() as connection:
        page = feed.read(connection, state, feed.start_cursor(connection, state, cursor), limit=PAGE)
        rows = inspections.by_ids(connection, [entry.inspection_id for entry in page.entries])
    seconds = time.perf_counter() - started
    assert len(rows) == PAGE
    return seconds


def middle_cursor(engine: Engine, size: int) -> str:
    """Return the cursor at the middle of a feed of this size."""
    with engine.begin() as connection:
        state = feed.number_entries(connection)
        return str(feed._cursor_at(connection, state, size // 2))


def explain_page(connection: Connection, size: int) -> str:
    """Return the executed query plan of a page from the middle of a feed of this size."""
    lines = connection.execute(
        text(
            "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS) "
            + feed._READ.format(filters="AND event = 'final'")
        ),
        {"after": size // 2, "newest": size, "limit": PAGE},
    ).scalars()
    return "\n".join(f"    {line}" for line in lines)


def compare_sizes(servers: EmbeddedServers) -> None:
    """Time pages from the middle of feeds of three sizes, in turns."""
    with (
        create_database(servers, "small") as small,
        create_database(servers, "medium") as medium,
        create_database(servers, "large") as large,
    ):
        engines = dict(zip(SIZES, (small, medium, large), strict=True))
        cursors = {}
        for size, engine in engines.items():
            grow_feed(engine, size)
            cursors[size] = middle_cursor(engine, size)
        times: dict[int, list[float]] = {size: [] for size in SIZES}
        for _ in range(ROUNDS):
            for size, engine in engines.items():
                times[size].append(time_page(engine, cursors[size]))
        smallest = statistics.median(times[SIZES[0]])
        for size in SIZES:
            seconds = statistics.median(times[size])
            ratio = seconds / smallest
            print(f"{size:>9,} entries: a page of {PAGE} in {1000 * seconds:6.2f} ms, {ratio:5.2f} × the smallest feed")
        for size in (SIZES[0], SIZES[-1]):
            with engines[size].begin() as connection:
                print(f"plan at {size:,} entries:\n{explain_page(connection, size)}")
        measure_held_snapshot(large)


def measure_held_snapshot(engine: Engine) -> None:
    """Measure the cost of a snapshot that a dump, say, holds open: vacuum cannot remove numbered rows meanwhile."""
    with engine.connect() as other, other.begin():
        other.execute(text("SET LOCAL transaction_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"))
        other.execute(text("DECLARE held CURSOR FOR SELECT * FROM images"))
        before = statistics.median(time_numbering(engine))
        for _ in range(100):
            with engine.begin() as connection:
                feed.append(connection, [(UUID(int=number), 1) for number in range(1_000)], "final")
            with engine.begin() as connection:
                feed.number_entries(connection)
        after = statistics.median(time_numbering(engine))
    print(
        f"a check for new entries takes {1000 * after:.2f} ms while a held snapshot keeps 100,000 numbered ones, "
        f"{after / before:.1f} × the time without the snapshot"
    )


def time_numbering(engine: Engine) -> list[float]:
    """Return the seconds of 50 checks for new entries."""
    times = []
    for _ in range(50):
        started = time.perf_counter()
        with engine.begin() as connection:
            feed.number_entries(connection)
        times.append(time.perf_counter() - started)
    return times


def main() -> int:
    """Measure on temporary servers. Return 1 if the reader does not receive each result exactly once."""
    with tempfile.TemporaryDirectory(prefix="lw-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with EmbeddedServers(folder / "servers", fsync=False) as servers:
            parts = sys.argv[1:] or ["soak", "pages"]
            complete = "soak" not in parts or soak(servers)
            if "pages" in parts:
                compare_sizes(servers)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
