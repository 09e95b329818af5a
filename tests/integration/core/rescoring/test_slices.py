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
from tests.fixtures.rescoring_workers import RescoringHarness

IMAGES = 23


@pytest.fixture
def night(settings: Settings, engine: Engine, bundle: Path) -> Iterator[RescoringHarness]:
    """An archive scored by version 1; one verdict in two was `ng`."""
    made = RescoringHarness(settings, engine)
    made.version(bundle)
    yield made
    made.close()


def half_ng(number: int) -> list[float]:
    return [0.01 if seed % 2 else 0.9 for seed in range(number)]


def test_another_version_scores_the_whole_archive(night: RescoringHarness, another_bundle: Path) -> None:
    ids = night.inspect(half_ng(IMAGES), line_id="line-2")
    second = night.version(another_bundle)
    run = night.run_until_done(night.run(second))
    assert (run.state, run.total, run.planned, run.done) == ("completed", IMAGES, IMAGES, IMAGES)
    results = night.results(run.id)
    assert [one.number for one in results] == list(range(1, IMAGES + 1))
    assert [one.inspection_id for one in results] == sorted(ids)
    model = load_detector(read_folder(another_bundle), device="cpu", max_pixels=10**6)
    by_id = {one.inspection_id: one for one in results}
    expected = model.score([model.prepare(png(seed)) for seed in range(IMAGES)]).scores
    assert [by_id[one].anomaly_score for one in ids] == pytest.approx(expected.tolist(), rel=1e-5)
    assert {one.threshold for one in results} == {0.5}
    assert [by_id[one].before_verdict for one in ids] == ["ng" if seed % 2 == 0 else "ok" for seed in range(IMAGES)]
    assert run.counts["ok"] + run.counts["ng"] == IMAGES
    assert run.counts["ng_to_ok"] == sum(one.before_verdict == "ng" and one.verdict == "ok" for one in results)


def test_another_threshold_needs_no_network(night: RescoringHarness) -> None:
    night.inspect([0.01 * seed for seed in range(IMAGES)])
    run_id = night.run(threshold=0.1, review_threshold=0.08)
    night.plan()  # without any worker
    run = night.get(run_id)
    assert (run.state, run.total, run.done) == ("completed", IMAGES, IMAGES)
    results = night.results(run_id)
    assert [one.anomaly_score for one in results] == [0.01 * seed for seed in range(IMAGES)]
    assert [one.verdict for one in results] == ["ok"] * 8 + ["review"] * 2 + ["ng"] * 13
    assert run.counts["ng_to_ok"] == sum(one.before_verdict == "ng" and one.verdict == "ok" for one in results) > 0


def test_only_what_the_version_has_not_scored_is_scored(night: RescoringHarness, another_bundle: Path) -> None:
    night.inspect(half_ng(5))
    night.version(another_bundle)
    with night.engine.begin() as connection:
        connection.execute(text("UPDATE recipes SET active_version_id = (SELECT max(id) FROM model_versions)"))
    night.inspect(half_ng(7))
    run_id = night.run(1)
    night.plan()
    assert night.get(run_id).done == 5
    run = night.run_until_done(run_id)
    assert (run.state, run.done) == ("completed", 12)
    assert [one.number for one in night.results(run_id)] == list(range(1, 13))
    assert night.run_until_done(night.run(1, recompute=True)).done == 12


def test_an_empty_source_is_a_completed_run(night: RescoringHarness) -> None:
    run = night.run_until_done(night.run())
    assert (run.state, run.total, run.done) == ("completed", 0, 0)


def test_a_broken_image_fails_alone_and_too_many_end_the_run(night: RescoringHarness, another_bundle: Path) -> None:
    ids = night.inspect(half_ng(IMAGES))
    second = night.version(another_bundle)
    break_one(night, ids[3])
    run = night.run_until_done(night.run(second))
    assert (run.state, run.counts["failed"], run.done) == ("completed", 1, IMAGES)
    assert [one.error_code for one in night.results(run.id) if one.error_code] == ["image_checksum_mismatch"]
    strict = night.run_until_done(night.run(second, max_failure_rate=0))
    assert strict.state == "failed"
    assert "1 of 23 images failed" in (strict.reason or "")


def break_one(night: RescoringHarness, inspection_id: UUID) -> None:
    with night.engine.begin() as connection:
        row = connection.execute(
            text("SELECT image_day, image_sha256 FROM inspections WHERE id = :id"), {"id": inspection_id}
        ).one()
    night.store.put(f"{row.image_day:%Y/%m/%d}/{row.image_sha256.hex()}", b"not what it was")


def test_a_run_is_given_up_in_its_midst_when_it_fails_too_often(night: RescoringHarness, another_bundle: Path) -> None:
    for one in night.inspect(half_ng(120)):
        break_one(night, one)
    run = night.run_until_done(night.run(night.version(another_bundle)))
    assert run.state == "failed"
    assert runs.MIN_RESULTS_TO_ABORT <= run.done < 120
    with night.engine.begin() as connection:
        slices.reclaim_expired_leases(connection)
        assert connection.execute(text("SELECT count(*) FROM rescore_slices")).scalar_one() == 0


def test_a_slice_that_two_workers_did_leaves_one_result(night: RescoringHarness, another_bundle: Path) -> None:
    night.inspect(half_ng(IMAGES))
    run_id = night.run(night.version(another_bundle))
    night.plan()
    with night.engine.begin() as connection:
        lost = slices.claim(connection, worker="killed", lease_seconds=0)
        assert lost is not None
        subjects = slices.run_images(connection, lost)
    with night.engine.begin() as connection:
        assert slices.reclaim_expired_leases(connection) == 1
    run = night.run_until_done(run_id)
    assert (run.state, run.done) == ("completed", IMAGES)
    late = [slices.ImageResult(one, error_code=Failure.POISON) for one in subjects]
    with night.engine.begin() as connection:
        assert not slices.write(connection, lost, late).claim_valid
    assert len(night.results(run_id)) == IMAGES


def test_a_run_goes_on_behind_what_a_killed_worker_had_written(night: RescoringHarness, another_bundle: Path) -> None:
    night.inspect(half_ng(IMAGES))
    run_id = night.run(night.version(another_bundle))
    night.plan()
    with night.engine.begin() as connection:
        lost = slices.claim(connection, worker="killed", lease_seconds=0)
        assert lost is not None
        some = slices.run_images(connection, lost)[:3]
        assert slices.write(
            connection, lost, [slices.ImageResult(one, error_code=Failure.POISON) for one in some]
        ).claim_valid
    with night.engine.begin() as connection:
        slices.reclaim_expired_leases(connection)
        connection.execute(text("UPDATE rescore_runs SET max_failure_rate = 1"))
    run = night.run_until_done(run_id)
    assert (run.state, run.done, run.counts["failed"]) == ("completed", IMAGES, 3)


def test_the_planner_keeps_a_bounded_number_of_slices_ahead(night: RescoringHarness, another_bundle: Path) -> None:
    night.inspect(half_ng(planning.SLICES_AHEAD * 10 + 30))
    run_id = night.run(night.version(another_bundle))
    for _ in range(3):
        night.plan()
    with night.engine.begin() as connection:
        assert slices.count_claimable(connection) == planning.SLICES_AHEAD
    assert night.run_until_done(run_id).done == planning.SLICES_AHEAD * 10 + 30


def test_two_planners_plan_each_image_once(night: RescoringHarness, another_bundle: Path) -> None:
    night.inspect(half_ng(IMAGES))
    run_id = night.run(night.version(another_bundle))
    with night.engine.begin() as connection:
        lost = planning.claim(connection, run_id, lease_seconds=0)
        assert lost is not None
    night.plan()
    with night.engine.begin() as connection:
        assert not planning.add_slice(connection, lost, [{"id": str(run_id)}], cursor={}, lease_seconds=9)
    assert night.run_until_done(run_id).done == IMAGES


def test_a_paused_run_stops_and_goes_on_where_it_was(night: RescoringHarness, another_bundle: Path) -> None:
    night.inspect(half_ng(IMAGES))
    run_id = night.run(night.version(another_bundle))
    night.plan()
    with night.engine.begin() as connection:
        runs.pause(connection, run_id, actor="test")
    assert night.run_until_done(run_id).state == "paused"
    assert night.results(run_id) == []
    with night.engine.begin() as connection:
        runs.resume(connection, run_id, actor="test")
    assert night.run_until_done(run_id).state == "completed"


def test_a_cancelled_run_keeps_what_it_has(night: RescoringHarness, another_bundle: Path) -> None:
    night.inspect(half_ng(IMAGES))
    run_id = night.run(night.version(another_bundle))
    night.plan()
    with night.engine.begin() as connection:
        held = slices.claim(connection, worker="slow", lease_seconds=60)
        assert held is not None
        runs.cancel(connection, run_id, actor="test")
    assert night.run_until_done(run_id).state == "cancelled"
    with night.engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM rescore_slices")).scalar_one() == 0


def test_images_of_a_folder_are_scored(night: RescoringHarness) -> None:
    archive = night.archive
    for seed in range(IMAGES):
        folder = archive / f"lot-{seed % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{seed:03}.png").write_bytes(png(seed))
    (archive / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    run = night.run_until_done(night.run(source={"folder": archive.as_uri()}, max_failure_rate=0.5))
    assert (run.state, run.total, run.counts["failed"]) == ("completed", IMAGES + 1, 1)
    results = night.results(run.id)
    assert [one.path for one in results] == sorted(one.path for one in results)
    assert {one.before_verdict for one in results} == {None}


def test_the_line_comes_first(night: RescoringHarness, another_bundle: Path) -> None:
    night.inspect(half_ng(IMAGES))
    run_id = night.run(night.version(another_bundle))
    night.plan()
    with night.line.served():
        assert night.worker.rescore()  # there is more, and it made way
        assert night.results(run_id) == []
        night.worker.rescore(granted=4)  # but for its share
        assert 0 < len(night.results(run_id)) < IMAGES
    night.queues.lpush("live", "waiting")
    done = len(night.results(run_id))
    assert night.worker.rescore()
    assert len(night.results(run_id)) == done
    night.queues.delete("live")
    assert night.run_until_done(run_id).done == IMAGES
