"""`make bench-growth`: whether Linewatch slows down as results pile up, what it uses when idle, and how it starts.

The running system gets 10,000, 100,000 and then a million stored inspections, with their images and feed entries. At
each size, images are sent through the front door while a report is read again and again, and pages of the feed and of
the listing are timed. At last 100,000 images are sent, and the memory of each process is noted on the way. Autovacuum
is on. BENCH_ARGS="SIZE …" replaces the sizes.
"""

import http.client
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from pydantic import SecretStr
from sqlalchemy import Engine, text

from benchmarks.speed.bundles import write_reference_bundle
from benchmarks.speed.contender import Contender
from benchmarks.speed.cpu import cpu_between, usage
from benchmarks.speed.images import JPEG
from benchmarks.speed.linewatch import RECIPE, running
from benchmarks.speed.load import Load
from benchmarks.speed.run import run
from core.database import create_unbounded
from core.settings import Settings

SIZES: Final = (10_000, 100_000, 1_000_000)
AT_ONCE: Final = 50_000
IMAGES: Final = 1500
RUNS: Final = 3
ENDURANCE: Final = 10
"""How many times 10,000 images are sent at last."""
PAGES: Final = 200
IDLE_SECONDS: Final = 30.0
SETTLE_SECONDS: Final = 120.0
REPORT_PAUSE: Final = 0.2

# Over the last thirty days, one image each; 3 % ng.
_IMAGES = text("""
INSERT INTO images SELECT current_date, decode(lpad(to_hex(n), 64, '0'), 'hex'), 'image/jpeg', 900, 900, 92000
FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS n
""")
_INSPECTIONS = text("""
INSERT INTO inspections (id, recipe_id, priority, metadata, image_day, image_sha256, attempt, line_id, station_id,
    part_id, model_version_id, threshold, status, anomaly_score, verdict, reasons, timings_ms, created_at, finished_at)
SELECT uuidv7(-ago), recipes.id, 'live', '{}', current_date, decode(lpad(to_hex(n), 64, '0'), 'hex'), 1,
    'line-' || n % 3, 'st-' || n % 7, 'SN-' || n, recipes.active_version_id, 0.5, 'completed', score,
    CASE WHEN score >= 0.5 THEN 'ng' ELSE 'ok' END, '{}', '{"total": 24.0}', now() - ago, now() - ago
FROM (
    SELECT n, make_interval(secs => random() * 30 * 86400) AS ago, exp(random_normal(-1.6, 0.5)) AS score
    FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS n
) AS drawn, recipes WHERE recipes.name = :recipe
""")


@dataclass(frozen=True)
class Size:
    """What was measured at one size: rates in images per second, times in milliseconds, memory in MiB by process."""

    stored: int
    rates: list[float]
    feed_ms: float
    listing_ms: float
    ng_listing_ms: float
    memory: dict[str, int]


def fill(engine: Engine, first: int, last: int) -> None:
    """Store inspections, and wait until the dispatcher has numbered their feed entries and counted them."""
    for start in range(first, last, AT_ONCE):
        numbers = {"first": start + 1, "last": min(start + AT_ONCE, last)}
        with engine.begin() as connection:
            connection.execute(_IMAGES, numbers)
            connection.execute(_INSPECTIONS, {**numbers, "recipe": RECIPE})
    deadline = time.monotonic() + SETTLE_SECONDS + (last - first) / 1000
    unnumbered = text("SELECT count(*) FROM feed_unnumbered")
    while _scalar(engine, unnumbered) and time.monotonic() < deadline:
        time.sleep(1)
    time.sleep(min(SETTLE_SECONDS, (last - first) / 10_000))  # for autovacuum and the counts


def _scalar(engine: Engine, query: Any) -> int:
    with engine.begin() as connection:
        return int(connection.execute(query).scalar_one())


class Reader:
    """A client that keeps its connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def get(self, path: str) -> Any:
        """Return the JSON document of a path."""
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {body[:300]!r}")
        return json.loads(body)

    def median_ms(self, path: str) -> float:
        """Return the median time of a path."""
        times = []
        for _ in range(PAGES):
            begun = time.perf_counter()
            self.get(path)
            times.append(time.perf_counter() - begun)
        return 1000 * statistics.median(times)


@contextmanager
def report_beside(port: int) -> Iterator[None]:
    """Read the statistics of thirty days again and again while the block runs."""
    ending = threading.Event()

    def read() -> None:
        reader = Reader(port)
        while not ending.wait(REPORT_PAUSE):
            reader.get(f"/v1/statistics?recipe={RECIPE}&bucket=day")

    thread = threading.Thread(target=read, name="report")
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def measure(contender: Contender, stored: int, first: int) -> Size:
    """Measure the system at this size; `first` is the number of the first image that was not sent before."""
    start = Reader(contender.target.port).get("/v1/results?after=now")["next_cursor"]
    with report_beside(contender.target.port):
        loads = [Load(contender.target, JPEG, IMAGES, first=first + number * IMAGES) for number in range(RUNS)]
        measured = [run(contender, load)[0] for load in loads]
    reader = Reader(contender.target.port)  # the server closes connections that are idle for seconds
    return Size(
        stored,
        [each.rate for each in measured],
        reader.median_ms(f"/v1/results?limit=100&after={start}"),
        reader.median_ms(f"/v1/inspections?recipe={RECIPE}&limit=100"),
        reader.median_ms(f"/v1/inspections?recipe={RECIPE}&verdict=ng&limit=100"),
        {name: round(bytes_ / 2**20) for name, bytes_ in measured[-1].memory_bytes.items()},
    )


def measure_idle(contender: Contender) -> dict[str, float]:
    """Return the share of a core that each process takes when nothing is sent."""
    before = usage(contender.roots)
    time.sleep(IDLE_SECONDS)
    return {name: seconds / IDLE_SECONDS for name, seconds in cpu_between(before, usage(contender.roots)).items()}


def endure(contender: Contender, first: int) -> Iterator[str]:
    """Send 10,000 images again and again, and yield the rate and the MiB of memory of each process after each time."""
    for number in range(ENDURANCE):
        measured, _ = run(contender, Load(contender.target, JPEG, 10_000, first=first + 10_000 * number))
        memory = {name: round(bytes_ / 2**20) for name, bytes_ in measured.memory_bytes.items()}
        yield f"{10_000 * (number + 1)} images sent: {measured.rate:.0f}/s, MiB {memory}"


def main() -> int:
    """Measure on a temporary system."""
    sizes = [int(word) for word in sys.argv[1:]] or SIZES
    with tempfile.TemporaryDirectory() as name:
        bundle = write_reference_bundle(Path(name) / "bundle")
        with running(bundle) as contender:
            engine = _engine_of(contender)
            time.sleep(10)
            idle = measure_idle(contender)
            print(f"idle: {100 * sum(idle.values()):.2f} % of a core", {k: round(100 * v, 2) for k, v in idle.items()})
            stored = 0
            for step, size in enumerate(sizes, start=1):
                fill(engine, stored, size)
                stored = size
                result = measure(contender, size, step * 1_000_000)
                print(result, f"{_scalar(engine, _BYTES) / (stored + step * RUNS * IMAGES):.0f} bytes each", flush=True)
            for line in endure(contender, (len(sizes) + 1) * 1_000_000):
                print(line, flush=True)
            engine.dispose()
    return 0


_BYTES = text("SELECT pg_database_size(current_database())")


def _engine_of(contender: Contender) -> Engine:
    """Connect to the database of the system, whose address its processes have in their environment."""
    supervisor = next(pid for pid, name in contender.roots.items() if name == "supervisor")
    url = psutil.Process(supervisor).environ()["LINEWATCH_DATABASE_URL"]
    return create_unbounded(Settings(database_url=SecretStr(url)), name="bench")


if __name__ == "__main__":
    sys.exit(main())
