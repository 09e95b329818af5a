"""`make bench-feed`: that the feed skips nothing under many writers, and that its cost does not grow with the table.

Results are finished as workers finish them, in real transactions that are held open for random times, while a reader
follows. Then pages of feeds of three sizes are timed in turns, so that the ratios are of one run.
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
RESULTS = 100_000  # of each writer
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
def database(servers: EmbeddedServers, name: str) -> Iterator[Engine]:
    """A migrated database of this name, with one recipe and one image."""
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
    """Finish results, minibatch after minibatch, each committed after a random delay."""
    random = Random(seed)  # noqa: S311 - no secret
    written: list[UUID] = []
    while len(written) < RESULTS:
        with engine.begin() as connection:
            ids = list(connection.execute(_RUNNING, {"recipe_id": recipe_id, "number": MINIBATCH}).scalars())
        outcomes = [Outcome(one, 1, "completed", anomaly_score=0.25, verdict="ok") for one in ids]
        with engine.begin() as connection:
            finishing.finish(connection, outcomes)
            time.sleep(random.choice(DELAYS))
        written += ids
    return written


def follow(engine: Engine, done: threading.Event) -> list[UUID]:
    """Read the feed page by page until the writers are done and nothing is left."""
    seen: list[UUID] = []
    after: str | None = None
    while True:
        last = done.is_set()
        some, after = read(engine, after)
        seen += some
        if last and not some:
            return seen
        if not some:
            time.sleep(0.01)


def read(engine: Engine, after: str | None, limit: int = 1000) -> tuple[list[UUID], str]:
    with engine.begin() as connection:
        state = feed.number_entries(connection)
        page = feed.read(connection, state, feed.start(connection, state, after), limit=limit)
        return [one.inspection_id for one in page.entries], str(page.following)


def soak(servers: EmbeddedServers) -> bool:
    """Many writers and a reader; whether it saw each result exactly once."""
    with database(servers, "soak") as engine, ThreadPoolExecutor(WRITERS + 1) as pool:
        done = threading.Event()
        begun = time.perf_counter()
        reader = pool.submit(follow, engine, done)
        writers = [pool.submit(write, engine, 1, seed) for seed in range(WRITERS)]
        written = Counter(one for writer in writers for one in writer.result())
        took = time.perf_counter() - begun
        done.set()
        seen = Counter(reader.result())
    twice = sum(count > 1 for count in seen.values())
    missing = len(written - seen)
    print(
        f"{WRITERS} writers × {RESULTS:,} results in {took:.0f} s ({len(written) / took:,.0f} a second): "
        f"{len(seen):,} seen, {missing} missing, {twice} twice, {len(seen - written)} unknown"
    )
    return not (twice or missing or seen - written)


def grow(engine: Engine, to: int) -> None:
    """Finished inspections and their places in the feed, made by SQL."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL transaction_timeout = 0; SET LOCAL statement_timeout = 0"))
        have = feed.number_entries(connection).newest
        connection.execute(
            text("""
                INSERT INTO inspections (id, recipe_id, priority, metadata, image_day, image_sha256, status,
                    anomaly_score, threshold, verdict, reasons, timings_ms)
                SELECT uuidv7(), 1, 'live', '{}', current_date, '\\x00', 'completed', 0.25, 0.5, 'ok', '{}', '{}'
                FROM generate_series(1, :more)
            """),
            {"more": to - have},
        )
    newest = -1
    while newest < to:
        with engine.begin() as connection:
            newest = feed.number_entries(connection).newest
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def page_seconds(engine: Engine, after: str) -> float:
    """One page as the api makes it: number what waits, read, and fetch the inspections."""
    begun = time.perf_counter()
    with engine.begin() as connection:
        state = feed.number_entries(connection)
    with engine.begin() as connection:
        page = feed.read(connection, state, feed.start(connection, state, after), limit=PAGE)
        found = inspections.by_ids(connection, [one.inspection_id for one in page.entries])
    took = time.perf_counter() - begun
    assert len(found) == PAGE
    return took


def middle(engine: Engine, number: int) -> str:
    with engine.begin() as connection:
        state = feed.number_entries(connection)
        return str(feed._at(connection, state, number // 2))


def plan(connection: Connection, number: int) -> str:
    lines = connection.execute(
        text(
            "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS) "
            + feed._READ.format(narrowed="AND event = 'final'")
        ),
        {"after": number // 2, "newest": number, "limit": PAGE},
    ).scalars()
    return "\n".join(f"    {line}" for line in lines)


def flatness(servers: EmbeddedServers) -> None:
    """Pages from the middle of feeds of three sizes, in turns."""
    with (
        database(servers, "small") as small,
        database(servers, "medium") as medium,
        database(servers, "large") as large,
    ):
        engines = dict(zip(SIZES, (small, medium, large), strict=True))
        places = {}
        for size, engine in engines.items():
            grow(engine, size)
            places[size] = middle(engine, size)
        times: dict[int, list[float]] = {size: [] for size in SIZES}
        for _ in range(ROUNDS):
            for size, engine in engines.items():
                times[size].append(page_seconds(engine, places[size]))
        first = statistics.median(times[SIZES[0]])
        for size in SIZES:
            took = statistics.median(times[size])
            print(f"{size:>9,} entries: a page of {PAGE} in {1000 * took:6.2f} ms, {took / first:5.2f} of the smallest")
        for size in (SIZES[0], SIZES[-1]):
            with engines[size].begin() as connection:
                print(f"plan at {size:,} entries:\n{plan(connection, size)}")
        waiting(large)


def waiting(engine: Engine) -> None:
    """What a snapshot held open by others (a dump, say) costs, while numbered rows cannot be cleaned up."""
    with engine.connect() as other, other.begin():
        other.execute(text("SET LOCAL transaction_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"))
        other.execute(text("DECLARE held CURSOR FOR SELECT * FROM images"))
        before = statistics.median(looks(engine))
        for _ in range(100):
            with engine.begin() as connection:
                feed.append(connection, [(UUID(int=number), 1) for number in range(1_000)], "final")
            with engine.begin() as connection:
                feed.number_entries(connection)
        after = statistics.median(looks(engine))
    print(
        f"a look for new entries takes {1000 * after:.2f} ms behind 100,000 numbered ones that a held snapshot keeps, "
        f"{after / before:.1f} of what it takes without"
    )


def looks(engine: Engine) -> list[float]:
    times = []
    for _ in range(50):
        begun = time.perf_counter()
        with engine.begin() as connection:
            feed.number_entries(connection)
        times.append(time.perf_counter() - begun)
    return times


def main() -> int:
    """Measure on servers of its own; 1 if the reader did not see each result exactly once."""
    with tempfile.TemporaryDirectory(prefix="lw-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with EmbeddedServers(folder / "servers", fsync=False) as servers:
            wanted = sys.argv[1:] or ["soak", "pages"]
            whole = "soak" not in wanted or soak(servers)
            if "pages" in wanted:
                flatness(servers)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
