"""The page about a run: made by a worker from real images, whole in itself, and safe against what others wrote."""

import base64
import io
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from uuid import UUID

import pytest
from PIL import Image
from sqlalchemy import Engine, text

from core.rescoring.reports import report
from core.settings import Settings
from core.storage.image_store import bundle_key, failure_key, report_key
from tests.fixtures.html_pages import Page
from tests.fixtures.part_images import png
from tests.fixtures.random_results import review
from tests.fixtures.rescoring_workers import RescoringHarness
from worker.pipeline.loaded_models import Models, ModelUnavailable
from worker.rescoring.report_rendering import ReportRenderer

EVIL = '<script>alert("1")</script>&amp;'


@pytest.fixture
def night(settings: Settings, engine: Engine) -> Iterator[RescoringHarness]:
    one = RescoringHarness(settings, engine)
    yield one
    one.close()


@pytest.fixture
def reporter(night: RescoringHarness) -> Iterator[ReportRenderer]:
    models = Models(night.settings, night.engine, night.store)
    one = ReportRenderer(night.settings, night.engine, night.store, models, night.notifier)
    yield one
    one.close()


def made(night: RescoringHarness, reporter: ReportRenderer, run_id: UUID) -> str:
    """The page about a run as a worker leaves it in the store, checked for what holds of every page."""
    key = report_key(run_id, report.build_report(night.engine, run_id).digest)
    reporter.make(run_id, key)
    page = night.store.read(key).decode()
    parsed = Page(page)
    assert "script" not in parsed.tags
    assert parsed.sources
    assert all(source.startswith("data:image/") for source in parsed.sources)
    assert not re.search(r"(?:url\(|@import|https?:)", re.sub(r"data:image/[^\"]*", "", page))
    return page


def images(page: str, what: str) -> list[Image.Image]:
    found = re.findall(rf'<img alt="{what}" src="data:image/jpeg;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


def test_what_would_change_is_shown_before_and_after(
    night: RescoringHarness, reporter: ReportRenderer, bundle: Path, another_bundle: Path
) -> None:
    night.version(bundle)
    night.version(another_bundle)
    ids = night.inspect([0.01] * 15 + [0.2] * 5, part_id=EVIL, line_id="<b>", station_id=None)
    run_id = night.run(2, threshold=1e-9)  # whatever is scored is ng
    assert night.run_until_done(run_id).state == "completed"
    with night.engine.begin() as connection:
        review(connection, ids[0], "ok", reviewer="<i>me</i>")
    page = made(night, reporter, run_id)
    assert [len(images(page, what)) for what in ("the part", "heat before", "heat after")] == [12, 12, 12]
    assert all(max(one.size) <= 320 for one in images(page, "heat after"))
    said = unescape(re.sub(r"<[^>]+>", "", page))
    assert said.count(EVIL) == 12
    for words in (
        "ring: what version 2 would change",
        "against version 1",
        "15ok → ng",
        "Were ok, would be ng",
        "1e-09",
    ):
        assert words in said, words
    assert "Were ng, would be ok" not in said
    assert "1 reviewed ok would newly be rejected" in said


def test_images_of_an_archive_are_shown_by_their_scores(
    night: RescoringHarness, reporter: ReportRenderer, bundle: Path
) -> None:
    night.version(bundle)
    night.archive.mkdir()
    for seed in range(14):
        (night.archive / f"<{seed:02}>.png").write_bytes(png(seed))
    (night.archive / "broken.png").write_bytes(b"broken")
    run_id = night.run(1, source={"folder": str(night.archive)}, max_failure_rate=1)
    night.run_until_done(run_id)
    results = sorted(night.results(run_id), key=lambda row: -(row.anomaly_score or 0))
    (night.archive / results[0].path).write_bytes(png(99))
    (night.archive / results[1].path).unlink()
    page = made(night, reporter, run_id)
    assert [len(images(page, what)) for what in ("the part", "heat before", "heat after")] == [10, 0, 10]
    said = unescape(re.sub(r"<[^>]+>", "", page))
    shown = re.findall(r"(<\d\d>\.png)no\.", said.replace("\n", ""))
    assert shown == [row.path for row in results[:12]]
    for words in ("The highest scores", "has changed since", "Nothing was recorded", "image_undecodable", "broken.png"):
        assert words in said, words


def test_a_version_that_is_gone_leaves_its_heat_out(
    night: RescoringHarness, reporter: ReportRenderer, bundle: Path, another_bundle: Path
) -> None:
    night.version(bundle)
    night.version(another_bundle)
    night.inspect([0.01] * 3)
    run_id = night.run(2, threshold=1e-9)
    night.run_until_done(run_id)
    with night.engine.begin() as connection:
        digests = connection.execute(text("SELECT sha256 FROM model_versions ORDER BY version")).scalars().all()
    night.store.path(bundle_key(digests[0])).unlink()
    page = made(night, reporter, run_id)
    assert [len(images(page, what)) for what in ("the part", "heat before", "heat after")] == [3, 0, 3]
    assert "Version 1 could not be loaded" in page
    # Without the run's own version there is no page: another worker may have it.
    night.store.path(bundle_key(digests[1])).unlink()
    fresh = ReportRenderer(
        night.settings, night.engine, night.store, Models(night.settings, night.engine, night.store), night.notifier
    )
    with pytest.raises(ModelUnavailable):
        fresh.make(run_id, report_key(run_id, "other"))
    fresh.close()
    assert not night.store.holds(failure_key(report_key(run_id, "other")))


def test_a_run_without_results_has_a_page(night: RescoringHarness, reporter: ReportRenderer, bundle: Path) -> None:
    night.version(bundle)
    run_id = night.run(1)
    key = report_key(run_id, "digest")
    reporter.make(run_id, key)
    page = Page(night.store.read(key).decode())
    assert page.sources == []


def test_there_is_no_page_about_a_run_that_there_is_not(night: RescoringHarness, reporter: ReportRenderer) -> None:
    run_id = UUID(int=7)
    key = report_key(run_id, "digest")
    reporter.make(run_id, key)
    assert night.store.read(failure_key(key)).decode() == f"There is no re-scoring run {run_id}."
