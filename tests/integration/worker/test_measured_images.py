"""A worker stores the brightness, contrast and sharpness of each image that it checks; re-scoring stores nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from core.settings import Settings
from core.vision.bundle.folder import read_folder, write_folder
from core.vision.bundle.manifest import MANIFEST, verify_bundle
from core.vision.input.input_checks import learn_input_ranges, measure_image
from core.vision.input.preprocessing import prepare
from tests.fixtures.part_images import png
from tests.fixtures.scored_days import dispatch
from tests.fixtures.scoring_queue import Queue


@pytest.fixture
def checking_bundle(bundle: Path, tmp_path: Path) -> Path:
    """The bundle with the input ranges of twenty good parts."""
    files = read_folder(bundle)
    manifest = verify_bundle(files)
    measured = [measure_image(prepare(png(seed), manifest.preprocessing, max_pixels=10**6)) for seed in range(20)]
    inputs = learn_input_ranges(measured)
    write_folder(tmp_path / "checking", {**files, MANIFEST: manifest.model_copy(update={"inputs": inputs}).to_json()})
    return tmp_path / "checking"


@pytest.fixture
def queue(settings: Settings, engine: Engine, checking_bundle: Path) -> Iterator[Queue]:
    queue = Queue(settings, engine, checking_bundle)
    yield queue
    queue.close()


def counted(engine: Engine) -> dict[str, int]:
    """The number of counted values of each measure."""
    with engine.begin() as connection:
        rows = connection.execute(text("SELECT measure, sum(count) AS number FROM drift_histograms GROUP BY measure"))
        return {row.measure: row.number for row in rows}


def test_the_measurements_of_each_image_are_stored_and_counted(
    queue: Queue, engine: Engine, settings: Settings, checking_bundle: Path
) -> None:
    ids = queue.upload(6)
    queue.score(ids[:4])
    queue.set_rescues(1)  # the others are decoded in isolation
    queue.score(ids[4:])
    preprocessing = verify_bundle(read_folder(checking_bundle)).preprocessing
    with engine.begin() as connection:
        for seed, inspection_id in enumerate(ids):
            row = connection.execute(
                text("SELECT brightness, contrast, sharpness FROM inspections WHERE id = :id"), {"id": inspection_id}
            ).one()
            expected = measure_image(prepare(png(seed), preprocessing, max_pixels=10**6))
            assert tuple(row) == pytest.approx((expected.brightness, expected.contrast, expected.sharpness), rel=1e-5)
            assert expected.contrast > 1
    dispatch(settings)
    assert counted(engine) == dict.fromkeys(("score", "brightness", "contrast", "sharpness"), 6)
    assert queue.models.throughput.means()[1] > 0
    assert len(queue.models.loaded_ids) == 1
