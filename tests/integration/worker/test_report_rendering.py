"""The HTML report of a run: rendered by a worker, self-contained, and safe against foreign text."""

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
from tests.fixtures.random_results import add_review
from tests.fixtures.rescoring_workers import RescoringPipeline
from worker.pipeline.loaded_models import Models, ModelUnavailable
from worker.rescoring.report_rendering import ReportRenderer

EVIL = '<script>alert("1")</script>&amp;'


@pytest.fixture
def pipeline(settings: Settings, engine: Engine) -> Iterator[RescoringPipeline]:
    pipeline = RescoringPipeline(settings, engine)
    yield pipeline
    pipeline.close()


@pytest.fixture
def renderer(pipeline: RescoringPipeline) -> Iterator[ReportRenderer]:
    models = Models(pipeline.settings, pipeline.engine, pipeline.store)
    renderer = ReportRenderer(pipeline.settings, pipeline.engine, pipeline.store, models, pipeline.notifier)
    yield renderer
    renderer.close()


def rendered_report(pipeline: RescoringPipeline, renderer: ReportRenderer, run_id: UUID) -> str:
    """Render the report of a run, check what holds for every report, and return it."""
    key = report_key(run_id, report.build_report(pipeline.engine, run_id).digest)
    renderer.make(run_id, key)
    page = pipeline.store.read(key).decode()
    parsed = Page(page)
    assert "script" not in parsed.tags
    assert parsed.sources
    assert all(source.startswith("data:image/") for source in parsed.sources)
    assert not re.search(r"(?:url\(|@import|https?:)", re.sub(r"data:image/[^\"]*", "", page))
    return page


def images(page: str, alt: str) -> list[Image.Image]:
    encoded_images = re.findall(rf'<img alt="{alt}" src="data:image/jpeg;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(encoded_image))) for encoded_image in encoded_images]


def test_changed_parts_are_shown_before_and_after(
    pipeline: RescoringPipeline, renderer: ReportRenderer, bundle: Path, another_bundle: Path
) -> None:
    pipeline.add_version(bundle)
    pipeline.add_version(another_bundle)
    ids = pipeline.inspect([0.01] * 15 + [0.2] * 5, part_id=EVIL, line_id="<b>", station_id=None)
    run_id = pipeline.create_run(2, threshold=1e-9)  # every score is ng
    assert pipeline.run_until_done(run_id).state == "completed"
    with pipeline.engine.begin() as connection:
        add_review(connection, ids[0], "ok", reviewer="<i>me</i>")
    page = rendered_report(pipeline, renderer, run_id)
    assert [len(images(page, alt)) for alt in ("the part", "heat before", "heat after")] == [12, 12, 12]
    assert all(max(image.size) <= 320 for image in images(page, "heat after"))
    page_text = unescape(re.sub(r"<[^>]+>", "", page))
    assert page_text.count(EVIL) == 12
    for words in (
        "ring: what version 2 would change",
        "against version 1",
        "15ok → ng",
        "Were ok, would be ng",
        "1e-09",
    ):
        assert words in page_text, words
    assert "Were ng, would be ok" not in page_text
    assert "1 reviewed ok would newly be rejected" in page_text


def test_images_of_an_archive_are_shown_by_score(
    pipeline: RescoringPipeline, renderer: ReportRenderer, bundle: Path
) -> None:
    pipeline.add_version(bundle)
    pipeline.archive.mkdir()
    for seed in range(14):
        (pipeline.archive / f"<{seed:02}>.png").write_bytes(png(seed))
    (pipeline.archive / "broken.png").write_bytes(b"broken")
    run_id = pipeline.create_run(1, source={"folder": str(pipeline.archive)}, max_failure_rate=1)
    pipeline.run_until_done(run_id)
    results = sorted(pipeline.results(run_id), key=lambda row: -(row.anomaly_score or 0))
    (pipeline.archive / results[0].path).write_bytes(png(99))
    (pipeline.archive / results[1].path).unlink()
    page = rendered_report(pipeline, renderer, run_id)
    assert [len(images(page, alt)) for alt in ("the part", "heat before", "heat after")] == [10, 0, 10]
    page_text = unescape(re.sub(r"<[^>]+>", "", page))
    shown = re.findall(r"(<\d\d>\.png)no\.", page_text.replace("\n", ""))
    assert shown == [row.path for row in results[:12]]
    for words in ("The highest scores", "has changed since", "no earlier results", "image_undecodable", "broken.png"):
        assert words in page_text, words


def test_heatmaps_of_an_unavailable_version_are_omitted(
    pipeline: RescoringPipeline, renderer: ReportRenderer, bundle: Path, another_bundle: Path
) -> None:
    pipeline.add_version(bundle)
    pipeline.add_version(another_bundle)
    pipeline.inspect([0.01] * 3)
    run_id = pipeline.create_run(2, threshold=1e-9)
    pipeline.run_until_done(run_id)
    with pipeline.engine.begin() as connection:
        digests = connection.execute(text("SELECT sha256 FROM model_versions ORDER BY version")).scalars().all()
    pipeline.store.path(bundle_key(digests[0])).unlink()
    page = rendered_report(pipeline, renderer, run_id)
    assert [len(images(page, alt)) for alt in ("the part", "heat before", "heat after")] == [3, 0, 3]
    assert "Version 1 could not be loaded" in page
    # Without the version of the run there is no report: another worker may be able to load it.
    pipeline.store.path(bundle_key(digests[1])).unlink()
    fresh = ReportRenderer(
        pipeline.settings,
        pipeline.engine,
        pipeline.store,
        Models(pipeline.settings, pipeline.engine, pipeline.store),
        pipeline.notifier,
    )
    with pytest.raises(ModelUnavailable):
        fresh.make(run_id, report_key(run_id, "other"))
    fresh.close()
    assert not pipeline.store.holds(failure_key(report_key(run_id, "other")))


def test_a_run_without_results_has_a_page(pipeline: RescoringPipeline, renderer: ReportRenderer, bundle: Path) -> None:
    pipeline.add_version(bundle)
    run_id = pipeline.create_run(1)
    key = report_key(run_id, "digest")
    renderer.make(run_id, key)
    page = Page(pipeline.store.read(key).decode())
    assert page.sources == []


def test_an_unknown_run_has_no_page(pipeline: RescoringPipeline, renderer: ReportRenderer) -> None:
    run_id = UUID(int=7)
    key = report_key(run_id, "digest")
    renderer.make(run_id, key)
    assert pipeline.store.read(failure_key(key)).decode() == f"There is no re-scoring run {run_id}."
