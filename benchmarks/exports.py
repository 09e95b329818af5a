"""`make bench-exports`: that an export of many inspections takes no more memory than one of few, and how fast it is.

An api process of its own streams inspections that SQL has made; its resident memory is watched while the file comes.
"""

import os
import signal
import socket
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

from benchmarks.feed import database
from core.documents.exports import Format
from linewatch.server.embedded.servers import EmbeddedServers

FEW, MANY = 20_000, 200_000
WARM_UP = 5_000
MIB = 1024 * 1024
LIMIT = 64 * MIB  # what an export of many may take more than one of few did

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
    """A file that was streamed: bytes, seconds, and what the api held more than before at most, in bytes."""

    size: int
    seconds: float
    growth: int


@contextmanager
def api(engine: Engine, folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """An api on this database: its address, and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {
        "LINEWATCH_DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "LINEWATCH_STORE_URL": f"file://{folder / 'store'}",
        "LINEWATCH_PORT": str(port),
    }
    process = subprocess.Popen([sys.executable, "-m", "api"], env=os.environ | own)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while not _answers(url):
            assert time.monotonic() < deadline, "the api did not start"
            time.sleep(0.1)
        yield url, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def download(url: str, process: psutil.Process, lot: str, kind: Format) -> Download:
    """Stream one file, and look at the process after each piece of it."""
    before = most = process.memory_info().rss
    begun, size = time.perf_counter(), 0
    params = {"lot_id": lot, "format": kind}
    with httpx.stream("GET", f"{url}/v1/inspections/export", params=params, timeout=60) as answer:
        for chunk in answer.iter_raw():
            size += len(chunk)
            most = max(most, process.memory_info().rss)
    return Download(size, time.perf_counter() - begun, most - before)


def measure(url: str, process: psutil.Process, kind: Format) -> bool:
    """Few, then many; whether many took no more memory."""
    download(url, process, "warm-up", kind)
    few, many = download(url, process, "few", kind), download(url, process, "many", kind)
    print(
        f"{kind}: {MANY:,} inspections, {many.size / MIB:.0f} MiB in {many.seconds:.1f} s, "
        f"{MANY / many.seconds:,.0f} a second; {many.seconds / few.seconds:.1f} times as long as {FEW:,}; "
        f"memory grew by {many.growth / MIB:.0f} MiB, with {FEW:,} by {few.growth / MIB:.0f} MiB"
    )
    return many.growth - few.growth <= LIMIT


def main() -> int:
    """Measure on servers of its own; 1 if memory grew with the number of inspections."""
    with tempfile.TemporaryDirectory(prefix="lw-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with (
            EmbeddedServers(folder / "servers", fsync=False) as servers,
            database(servers, "exports") as engine,
        ):
            with engine.begin() as connection:
                for lot, number in (("warm-up", WARM_UP), ("few", FEW), ("many", MANY)):
                    connection.execute(_FINISHED, {"lot": lot, "number": number})
                connection.execute(text("ANALYZE inspections"))
            with api(engine, folder) as (url, process):
                constant = [measure(url, process, kind) for kind in Format]
    return 0 if all(constant) else 1


if __name__ == "__main__":
    sys.exit(main())
