"""`make bench-page`: the page over 50,000 inspections, in Debian's chromium.

What a page of the gallery costs the server, how smoothly it scrolls, and how fast the overview appears. BENCH_ARGS=N
replaces the 50,000. Pixels are drawn by the processor here, so frame times are upper bounds.
"""

import datetime as dt
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from playwright.sync_api import Page, ViewportSize, sync_playwright
from sqlalchemy import create_engine, text

from benchmarks.speed.images import JPEG, distinct_images
from benchmarks.speed.linewatch import RECIPE
from linewatch import Client, Submitted
from tests.fixtures.part_images import write_bundle

INSPECTIONS = 50_000
IMAGES = 100
SCREEN: ViewportSize = {"width": 1440, "height": 900}
SCROLLED_SECONDS = 20
VISITS = 5

# Copies of the inspections that a worker has scored: other ids and times, the same images.
_COPY = text("""
INSERT INTO inspections (id, recipe_id, priority, metadata, image_day, image_sha256, attempt, line_id, station_id,
    part_id, model_version_id, threshold, status, anomaly_score, verdict, reasons, timings_ms, created_at, finished_at)
SELECT uuidv7(-ago), recipe_id, priority, metadata, image_day, image_sha256, attempt, 'line-1', 'st-' || n % 4,
    'SN-' || n, model_version_id, threshold, status, anomaly_score, verdict, reasons, timings_ms, created_at - ago,
    finished_at - ago
FROM (SELECT *, row_number() OVER (ORDER BY id) AS place FROM inspections) AS scored
JOIN LATERAL (
    SELECT n, make_interval(secs => 86400 * n / CAST(:number AS float8)) AS ago
    FROM generate_series(scored.place, :number, :images) AS n
) AS copies ON true
""")

_FRAMES = """seconds => new Promise((resolve) => {
    const times = [];
    const until = performance.now() + seconds * 1000;
    let last = performance.now();
    const step = (now) => {
        times.push(now - last);
        last = now;
        scrollBy(0, 60);
        if (now < until) requestAnimationFrame(step);
        else resolve(times.slice(1));
    };
    requestAnimationFrame(step);
})"""

_FIGURES = """() => {
    const { responseStart, domContentLoadedEventEnd: loaded } = performance.getEntriesByType("navigation")[0];
    const first = performance.getEntriesByName("first-contentful-paint")[0].startTime;
    const files = performance.getEntriesByType("resource");
    return {
        "first byte (ms)": responseStart,
        "first contentful paint (ms)": first,
        "largest contentful paint (ms)": measured.largest,
        "DOM content loaded (ms)": loaded,
        "total blocking time (ms)": measured.blocked,
        "layout shift": measured.shift,
        "requests": files.length + 1,
        "transferred (kB)": files.reduce((sum, file) => sum + file.transferSize, 0) / 1000,
    };
}"""

_PAINTS = """() => {
    window.measured = { shift: 0, blocked: 0, largest: 0 };
    const watch = (type, see) => new PerformanceObserver((list) => list.getEntries().forEach(see)).observe({
        type, buffered: true,
    });
    watch("largest-contentful-paint", (entry) => { measured.largest = entry.startTime; });
    watch("layout-shift", (entry) => { if (!entry.hadRecentInput) measured.shift += entry.value; });
    watch("longtask", (entry) => { measured.blocked += Math.max(0, entry.duration - 50); });
}"""


@contextmanager
def running(folder: Path) -> Iterator[tuple[str, str]]:
    """Run `linewatch up`; yields its address and that of its database."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LINEWATCH_")}
    command = [sys.executable, "-m", "linewatch.cli", "up", "--port", "0", "--data", str(folder / "data")]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process,
    ):
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip().removeprefix("ready: ")
            [api] = [child for child in psutil.Process(process.pid).children() if child.cmdline()[-2:] == ["-m", "api"]]
            yield url, api.environ()["LINEWATCH_DATABASE_URL"]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def prepare(url: str, database: str, folder: Path, number: int) -> None:
    """Let a worker score some images, and copy their inspections until there are `number`."""
    with Client(url, timeout=120) as lw:
        lw.create_recipe(RECIPE)
        lw.upload_bundle(RECIPE, write_bundle(folder / "bundle"))
        for outcome in lw.submit_many(distinct_images(JPEG, IMAGES), recipe=RECIPE):
            assert isinstance(outcome, Submitted), outcome
    with httpx.Client(base_url=url, timeout=60) as http:
        _wait(lambda: _scored(http), IMAGES)
        engine = create_engine(database)
        with engine.begin() as connection:
            connection.execute(_COPY, {"number": number - IMAGES, "images": IMAGES})
        engine.dispose()
        _wait(lambda: _scored(http), number)


def _scored(http: httpx.Client) -> int:
    since = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
    answer = http.get("/v1/statistics", params={"since": since.isoformat(), "recipe": RECIPE}).raise_for_status()
    return sum(item["totals"]["verdict"]["ok"] + item["totals"]["verdict"]["ng"] for item in answer.json()["items"])


def _wait(count: Callable[[], int], number: int) -> None:
    deadline = time.monotonic() + 300
    while (counted := count()) < number:
        if time.monotonic() > deadline:
            raise SystemExit(f"only {counted} of {number} inspections are counted")
        time.sleep(0.5)


def measure_listing(url: str) -> None:
    """Time each page of the gallery, from the newest inspection to the oldest, and some thumbnails."""
    pages, thumbnails, cursor = [], [], None
    with httpx.Client(base_url=url, timeout=60) as http:
        while True:
            query = {"recipe": RECIPE, "limit": 60, **({"cursor": cursor} if cursor else {})}
            seconds, answer = _timed(http, "/v1/inspections", query)
            pages.append(seconds)
            document = answer.json()
            if len(pages) % 40 == 1:
                thumbnails += [
                    _timed(http, f"/v1/inspections/{each['id']}/thumbnail")[0] for each in document["items"][:20]
                ]
            if (cursor := document["next_cursor"]) is None:
                break
    report("a page of 60 inspections, from request to answer", pages, "ms")
    report("a thumbnail", thumbnails, "ms")


def _timed(http: httpx.Client, path: str, query: dict[str, Any] | None = None) -> tuple[float, httpx.Response]:
    started = time.perf_counter()
    answer = http.get(path, params=query).raise_for_status()
    return (time.perf_counter() - started) * 1000, answer


def measure_scrolling(page: Page) -> None:
    """Scroll the gallery by 60 pixels a frame, and time the frames."""
    page.goto(f"/inspections?recipe={RECIPE}")
    page.locator("article.card").first.wait_for()
    page.wait_for_timeout(1000)
    frames: list[float] = page.evaluate(_FRAMES, SCROLLED_SECONDS)
    report(f"frames while scrolling for {SCROLLED_SECONDS} s", frames, "ms")
    late = sum(frame > 50 for frame in frames)
    print(f"  frames longer than 50 ms: {late} of {len(frames)} ({late / len(frames):.1%})")
    cards, nodes = page.locator("article.card").count(), page.evaluate("document.querySelectorAll('*').length")
    height = page.evaluate("Math.round(scrollY)")
    print(f"  scrolled {height:,} pixels; in the document: {cards} cards, {nodes:,} elements")


def measure_overview(page: Page) -> None:
    """Visit the overview with an empty cache, and read what Lighthouse reads."""
    measured: dict[str, list[float]] = {}
    for _ in range(VISITS):
        context = page.context.browser.new_context(base_url=page.url.partition("/inspections")[0], viewport=SCREEN)  # type: ignore[union-attr]
        visit = context.new_page()
        visit.add_init_script(f"({_PAINTS})()")
        visit.goto("/")
        visit.locator(".recipe-panel").first.wait_for()
        visit.wait_for_timeout(1500)
        for name, value in visit.evaluate(_FIGURES).items():
            measured.setdefault(name, []).append(value)
        context.close()
    for name, values in measured.items():
        report(f"overview, {name}", values, "")


def report(name: str, values: Sequence[float], unit: str) -> None:
    """Print the median, the 95th percentile and the largest value."""
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    median, largest = statistics.median(ordered), ordered[-1]
    print(f"{name}: median {median:.4g}, p95 {p95:.4g}, max {largest:.4g} {unit} (n={len(ordered)})")


def main() -> int:
    """Measure on a temporary system."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else INSPECTIONS
    executable = shutil.which("chromium")
    if executable is None:
        print("A browser is missing: apt-get install chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="lw-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with running(folder) as (url, database), sync_playwright() as playwright:
            prepare(url, database, folder, number)
            measure_listing(url)
            browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
            page = browser.new_page(base_url=url, viewport=SCREEN)
            measure_scrolling(page)
            measure_overview(page)
            browser.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
