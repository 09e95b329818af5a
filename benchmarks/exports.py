"""`make bench-exports`: the speed of an export, and whether its memory stays constant as inspections grow in number.

A separate api process streams inspections that SQL inserted. Its resident memory is read after each chunk.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from sqlalchemy import Engine, text

from benchmarks.feed import create_database
from core.documents.exports import Format
from linewatch.server.embedded.servers import EmbeddedServers
from tests.fixtures.servers import free_port

FEW, MANY = 20_000, 200_000
WARM_UP = 5_000
MIB = 1024 * 1024
MEMORY_LIMIT = 64 * MIB  # how much more memory the export of MANY may take than that of FEW

_FINISHED = text("""
    INSERT INTO inspections (id, recipe_id, priority, part_id, lot_id, metadata, image_day, image_sha256, created_at,
        attempt, started_at, threshold, status, anomaly_score, verdict, reasons, finished_at, timings_ms)
    SELECT uuidv7(), 1, 'live', 'SN-' || i, :lot, jsonb_build_object('order', md5(i::text), 'shift', 'early'),
        current_date, '\\x00', now(), 1, now(), 0.1, 'completed', i / 7.0, 'ng', ARRAY['input_dark'], now(),
        '{"queue": 12.1, "load": 0.8, "decode": 6.0, "score": 2.25, "total": 24.1}'
    FROM generate_series(1, :number) AS i
""")


@dataclass(frozen=True)
class Download:
    """A streamed file.

    Attributes:
        size: bytes.
        seconds: from the request to the last byte.
        growth: bytes; the largest increase of the api's resident memory during the download.
    """

    size: int
    seconds: float
    growth: int


@contextmanager
def run_api(engine: Engine, folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Run an api on this database and yield its URL and its process."""
    port = free_port()
    environment = {
        "LINEWATCH_DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "LINEWATCH_STORE_URL": f"file://{folder / 'store'}",
        "LINEWATCH_PORT": str(port),
    }
    process = subprocess.Popen([sys.executable, "-m", "api"], env=os.environ | environment)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while not _is_alive(url):
            assert time.monotonic() < deadline, "the api did not start"
            time.sleep(0.1)
        yield url, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _is_alive(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def download(url: str, process: psutil.Process, lot: str, kind: Format) -> Download:
    """Stream one file, and read the memory of the process after each chunk."""
    before = peak = process.memory_info().rss
    started, size = time.perf_counter(), 0
    params = {"lot_id": lot, "format": kind}
    with httpx.stream("GET", f"{url}/v1/inspections/export", params=params, timeout=60) as response:
        for chunk in response.iter_raw():
            size += len(chunk)
            peak = max(peak, process.memory_info().rss)
    return Download(size, time.perf_counter() - started, peak - before)


def measure(url: str, process: psutil.Process, kind: Format) -> bool:
    """Export FEW, then MANY inspections. Return whether the memory of the second stayed within the limit."""
    download(url, process, "warm-up", kind)
    few, many = download(url, process, "few", kind), download(url, process, "many", kind)
    print(
        f"{kind}: {MANY:,} inspections, {many.size / MIB:.0f} MiB in {many.seconds:.1f} s, "
        f"{MANY / many.seconds:,.0f} per second; {many.seconds / few.seconds:.1f} times as long as {FEW:,}; "
        f"memory grew by {many.growth / MIB:.0f} MiB, and by {few.growth / MIB:.0f} MiB for {FEW:,}"
    )
    return many.growth - few.growth <= MEMORY_LIMIT


def main() -> int:
    """Measure on temporary servers. Return 1 if memory grows with the number of inspections."""
    with tempfile.TemporaryDirectory(prefix="lw-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with (
            EmbeddedServers(folder / "servers", fsync=False) as servers,
            create_database(servers, "exports") as engine,
        ):
            with engine.begin() as connection:
                for lot, number in (("warm-up", WARM_UP), ("few", FEW), ("many", MANY)):
                    connection.execute(_FINISHED, {"lot": lot, "number": number})
                connection.execute(text("ANALYZE inspections"))
            with run_api(engine, folder) as (url, process):
                constant = [measure(url, process, kind) for kind in Format]
    return 0 if all(constant) else 1


if __name__ == "__main__":
    sys.exit(main())
