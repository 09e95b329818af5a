"""Runs over stored inspections: planned in slices, scored by a worker, each image with exactly one result."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from core.errors import Failure
from core.rescoring import planning, runs, slices
from core.settings import Settings
from core.vision.bundle.folder import read_folder
from core.vision.bundle.loading import load_detector
from tests.fixtures.part_images import png
from tests.fixtures.rescoring_workers import RescoringPipeline

IMAGES = 23


@pytest.fixture
def pipeline(settings: Settings, engine: Engine, bundle: Path) -> Iterator[RescoringPipeline]:
    """An archive scored by version 1; every second verdict is `ng`."""
    pipeline = RescoringPipeline(settings, engine)
    pipeline.add_version(bundle)
    yield pipeline
    pipeline.close()


def half_ng(number: int) -> list[float]:
    return [0.01 if seed % 2 else 0.9 for seed in range(number)]


def test_another_version_scores_the_whole_archive(pipeline: RescoringPipeline, another_bundle: Path) -> None:
    ids = pipeline.inspect(half_ng(IMAGES), line_id="line-2")
    second = pipeline.add_version(another_bundle)
    run = pipeline.run_until_done(pipeline.create_run(second))
    assert (run.state, run.total, run.planned, run.done) == ("completed", IMAGES, IMAGES, IMAGES)
    results = pipeline.results(run.id)
    assert [result.number for result in results] == list(range(1, IMAGES + 1))
    assert [result.inspection_id for result in results] == sorted(ids)
    model = load_detector(read_folder(another_bundle), device="cpu", max_pixels=10**6)
    by_id = {result.inspection_id: result for result in results}
    expected = model.score([model.prepare(png(seed)) for seed in range(IMAGES)]).scores
    assert [by_id[inspection_id].anomaly_score for inspection_id in ids] == pytest.approx(expected.tolist(), rel=1e-5)
    assert {result.threshold for result in results} == {0.5}
    assert [by_id[inspection_id].before_verdict for inspection_id in ids] == [
        "ng" if seed % 2 == 0 else "ok" for seed in range(IMAGES)
    ]
    assert run.counts["ok"] + run.counts["ng"] == IMAGES
    assert run.counts["ng_to_ok"] == sum(result.before_verdict == "ng" and result.verdict == "ok" for result in results)


def test_another_threshold_needs_no_scoring(pipeline: RescoringPipeline) -> None:
    pipeline.inspect([0.01 * seed for seed in range(IMAGES)])
    run_id = pipeline.create_run(threshold=0.1, review_threshold=0.08)
    pipeline.plan()  # without any worker
    run = pipeline.get(run_id)
    assert (run.state, run.total, run.done) == ("completed", IMAGES, IMAGES)
    results = pipeline.results(run_id)
    assert [result.anomaly_score for result in results] == [0.01 * seed for seed in range(IMAGES)]
    assert [result.verdict for result in results] == ["ok"] * 8 + ["review"] * 2 + ["ng"] * 13
    assert (
        run.counts["ng_to_ok"]
        == sum(result.before_verdict == "ng" and result.verdict == "ok" for result in results)
        > 0
    )


def test_only_unscored_inspections_are_scored(pipeline: RescoringPipeline, another_bundle: Path) -> None:
    pipeline.inspect(half_ng(5))
    pipeline.add_version(another_bundle)
    with pipeline.engine.begin() as connection:
        connection.execute(text("UPDATE recipes SET active_version_id = (SELECT max(id) FROM model_versions)"))
    pipeline.inspect(half_ng(7))
    run_id = pipeline.create_run(1)
    pipeline.plan()
    assert pipeline.get(run_id).done == 5
    run = pipeline.run_until_done(run_id)
    assert (run.state, run.done) == ("completed", 12)
    assert [result.number for result in pipeline.results(run_id)] == list(range(1, 13))
    assert pipeline.run_until_done(pipeline.create_run(1, recompute=True)).done == 12


def test_an_empty_source_is_a_completed_run(pipeline: RescoringPipeline) -> None:
    run = pipeline.run_until_done(pipeline.create_run())
    assert (run.state, run.total, run.done) == ("completed", 0, 0)


def test_a_broken_image_fails_alone_and_too_many_fail_the_run(
    pipeline: RescoringPipeline, another_bundle: Path
) -> None:
    ids = pipeline.inspect(half_ng(IMAGES))
    second = pipeline.add_version(another_bundle)
    break_one(pipeline, ids[3])
    run = pipeline.run_until_done(pipeline.create_run(second))
    assert (run.state, run.counts["failed"], run.done) == ("completed", 1, IMAGES)
    assert [result.error_code for result in pipeline.results(run.id) if result.error_code] == [
        "image_checksum_mismatch"
    ]
    strict = pipeline.run_until_done(pipeline.create_run(second, max_failure_rate=0))
    assert strict.state == "failed"
    assert "1 of 23 images failed" in (strict.reason or "")


def break_one(pipeline: RescoringPipeline, inspection_id: UUID) -> None:
    with pipeline.engine.begin() as connection:
        row = connection.execute(
            text("SELECT image_day, image_sha256 FROM inspections WHERE id = :id"), {"id": inspection_id}
        ).one()
    pipeline.store.put(f"{row.image_day:%Y/%m/%d}/{row.image_sha256.hex()}", b"not what it was")


def test_a_run_fails_early_after_too_many_failures(pipeline: RescoringPipeline, another_bundle: Path) -> None:
    for inspection_id in pipeline.inspect(half_ng(120)):
        break_one(pipeline, inspection_id)
    run = pipeline.run_until_done(pipeline.create_run(pipeline.add_version(another_bundle)))
    assert run.state == "failed"
    assert runs.MIN_RESULTS_TO_ABORT <= run.done < 120
    with pipeline.engine.begin() as connection:
        slices.reclaim_expired_leases(connection)
        assert connection.execute(text("SELECT count(*) FROM rescore_slices")).scalar_one() == 0


def test_a_slice_scored_by_two_workers_has_one_result_per_image(
    pipeline: RescoringPipeline, another_bundle: Path
) -> None:
    pipeline.inspect(half_ng(IMAGES))
    run_id = pipeline.create_run(pipeline.add_version(another_bundle))
    pipeline.plan()
    with pipeline.engine.begin() as connection:
        lost = slices.claim(connection, worker="killed", lease_seconds=0)
        assert lost is not None
        subjects = slices.run_images(connection, lost)
    with pipeline.engine.begin() as connection:
        assert slices.reclaim_expired_leases(connection) == 1
    run = pipeline.run_until_done(run_id)
    assert (run.state, run.done) == ("completed", IMAGES)
    late = [slices.ImageResult(subject, error_code=Failure.POISON) for subject in subjects]
    with pipeline.engine.begin() as connection:
        assert not slices.write(connection, lost, late).claim_valid
    assert len(pipeline.results(run_id)) == IMAGES


def test_a_run_resumes_after_the_results_of_a_killed_worker(pipeline: RescoringPipeline, another_bundle: Path) -> None:
    pipeline.inspect(half_ng(IMAGES))
    run_id = pipeline.create_run(pipeline.add_version(another_bundle))
    pipeline.plan()
    with pipeline.engine.begin() as connection:
        lost = slices.claim(connection, worker="killed", lease_seconds=0)
        assert lost is not None
        some = slices.run_images(connection, lost)[:3]
        assert slices.write(
            connection, lost, [slices.ImageResult(subject, error_code=Failure.POISON) for subject in some]
        ).claim_valid
    with pipeline.engine.begin() as connection:
        slices.reclaim_expired_leases(connection)
        connection.execute(text("UPDATE rescore_runs SET max_failure_rate = 1"))
    run = pipeline.run_until_done(run_id)
    assert (run.state, run.done, run.counts["failed"]) == ("completed", IMAGES, 3)


def test_the_planner_plans_a_limited_number_of_slices_ahead(pipeline: RescoringPipeline, another_bundle: Path) -> None:
    pipeline.inspect(half_ng(planning.SLICES_AHEAD * 10 + 30))
    run_id = pipeline.create_run(pipeline.add_version(another_bundle))
    for _ in range(3):
        pipeline.plan()
    with pipeline.engine.begin() as connection:
        assert slices.count_claimable(connection) == planning.SLICES_AHEAD
    assert pipeline.run_until_done(run_id).done == planning.SLICES_AHEAD * 10 + 30


def test_two_planners_plan_each_image_once(pipeline: RescoringPipeline, another_bundle: Path) -> None:
    pipeline.inspect(half_ng(IMAGES))
    run_id = pipeline.create_run(pipeline.add_version(another_bundle))
    with pipeline.engine.begin() as connection:
        lost = planning.claim(connection, run_id, lease_seconds=0)
        assert lost is not None
    pipeline.plan()
    with pipeline.engine.begin() as connection:
        assert not planning.add_slice(connection, lost, [{"id": str(run_id)}], cursor={}, lease_seconds=9)
    assert pipeline.run_until_done(run_id).done == IMAGES


def test_a_paused_run_resumes_where_it_stopped(pipeline: RescoringPipeline, another_bundle: Path) -> None:
    pipeline.inspect(half_ng(IMAGES))
    run_id = pipeline.create_run(pipeline.add_version(another_bundle))
    pipeline.plan()
    with pipeline.engine.begin() as connection:
        runs.pause(connection, run_id, actor="test")
    assert pipeline.run_until_done(run_id).state == "paused"
    assert pipeline.results(run_id) == []
    with pipeline.engine.begin() as connection:
        runs.resume(connection, run_id, actor="test")
    assert pipeline.run_until_done(run_id).state == "completed"


def test_a_cancelled_run_keeps_its_results(pipeline: RescoringPipeline, another_bundle: Path) -> None:
    pipeline.inspect(half_ng(IMAGES))
    run_id = pipeline.create_run(pipeline.add_version(another_bundle))
    pipeline.plan()
    with pipeline.engine.begin() as connection:
        held = slices.claim(connection, worker="slow", lease_seconds=60)
        assert held is not None
        runs.cancel(connection, run_id, actor="test")
    assert pipeline.run_until_done(run_id).state == "cancelled"
    with pipeline.engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM rescore_slices")).scalar_one() == 0


def test_images_of_a_folder_are_scored(pipeline: RescoringPipeline) -> None:
    archive = pipeline.archive
    for seed in range(IMAGES):
        folder = archive / f"lot-{seed % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{seed:03}.png").write_bytes(png(seed))
    (archive / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    run = pipeline.run_until_done(pipeline.create_run(source={"folder": archive.as_uri()}, max_failure_rate=0.5))
    assert (run.state, run.total, run.counts["failed"]) == ("completed", IMAGES + 1, 1)
    results = pipeline.results(run.id)
    assert [result.path for result in results] == sorted(result.path for result in results)
    assert {result.before_verdict for result in results} == {None}


def test_live_inspections_come_first(pipeline: RescoringPipeline, another_bundle: Path) -> None:
    pipeline.inspect(half_ng(IMAGES))
    run_id = pipeline.create_run(pipeline.add_version(another_bundle))
    pipeline.plan()
    with pipeline.live_load.served():
        assert pipeline.worker.rescore()  # more slices are left, but live work comes first
        assert pipeline.results(run_id) == []
        pipeline.worker.rescore(granted=4)  # only its guaranteed share
        assert 0 < len(pipeline.results(run_id)) < IMAGES
    pipeline.queues.lpush("live", "waiting")
    scored = len(pipeline.results(run_id))
    assert pipeline.worker.rescore()
    assert len(pipeline.results(run_id)) == scored
    pipeline.queues.delete("live")
    assert pipeline.run_until_done(run_id).done == IMAGES


def test_inspections_whose_images_were_removed_are_left_out(
    pipeline: RescoringPipeline, engine: Engine, another_bundle: Path
) -> None:
    ids = pipeline.inspect(half_ng(IMAGES))
    second = pipeline.add_version(another_bundle)
    with engine.begin() as connection:
        removed = connection.execute(
            text("""
                UPDATE images SET removed_at = now() FROM inspections
                WHERE inspections.id = ANY(:ids) AND day = image_day AND sha256 = image_sha256 RETURNING inspections.id
            """),
            {"ids": ids[:5]},
        ).scalars()
        gone = set(removed)
    run = pipeline.run_until_done(pipeline.create_run(second))
    assert (run.state, run.total, run.counts["failed"]) == ("completed", IMAGES - 5, 0)
    assert {result.inspection_id for result in pipeline.results(run.id)} == set(ids) - gone
