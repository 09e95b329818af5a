"""Which images of inspections a training run learns from."""

import datetime as dt
import hashlib
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from core.inspection import reviews
from core.intake import submission
from core.intake.image_decoding import Header
from core.intake.submission import Accepted, NewInspection, StoredImage, Submission
from core.models import recipes
from core.queue import claiming, finishing
from core.queue.finishing import Outcome
from core.training_runs import gathering, images, runs
from core.training_runs.images import NewImage, TrainingImage
from core.training_runs.requests import TrainingRequest
from tests.fixtures.finished_inspections import RECIPE, make_recipe_with_model

DAY = dt.date(2026, 1, 2)


def image(content: str) -> StoredImage:
    return StoredImage(DAY, hashlib.sha256(content.encode()).digest(), 10, Header("image/png", 4, 3))


@pytest.fixture
def plant(engine: Engine) -> "Plant":
    make_recipe_with_model(engine)
    return Plant(engine)


class Plant:
    """Inspects images, named by their content, and gathers them for a run."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def inspect(self, content: str, verdict: Any = "ok", *reviewed: Any, **fields: Any) -> UUID:
        """Inspect an image and review it, in this order."""
        with self.engine.begin() as connection:
            new = NewInspection(image(content), RECIPE, **fields)
            [accepted] = submission.accept(connection, [Submission([new])])
            assert isinstance(accepted, Accepted)
            [inspection] = accepted.inspections
            [claim] = claiming.claim(
                connection,
                recipe_id=accepted.recipe_ids[0],
                ids=[inspection.id],
                priority="live",
                at_most=1,
                lease_seconds=60,
                worker="test",
            )
            finishing.finish(
                connection, [Outcome(claim.id, claim.attempt, "completed", anomaly_score=0.1, verdict=verdict)]
            )
        for said in reviewed:
            with self.engine.begin() as connection:
                reviews.add(connection, inspection.id, verdict=said, reviewer="Jo", reason="looked", actor="test")
        return inspection.id

    def create(self, **inspections: Any) -> UUID:
        request = TrainingRequest.model_validate({"inspections": inspections})
        with self.engine.begin() as connection:
            return runs.create(connection, RECIPE, request, actor="test").id

    def gathered(self, run_id: UUID) -> dict[str, TrainingImage]:
        """Start a run, gather its images and return them by their content."""
        with self.engine.begin() as connection:
            run = runs.start(connection, RECIPE, run_id, actor="test")
        gathering.gather(self.engine, run)
        with self.engine.begin() as connection:
            found = images.all_of(connection, run_id)
            counts = runs.get(connection, RECIPE, run_id).images
        assert sum(counts.values()) == len(found)
        by_digest = {image(name).sha256: name for name in "abcdefgh"}
        return {by_digest[one.sha256]: one for one in found}

    def labels(self, run_id: UUID) -> dict[str, tuple[str, bool]]:
        return {name: (one.label, one.was_rejected) for name, one in self.gathered(run_id).items()}


def test_reviewed_and_effective_parts_are_chosen(plant: Plant) -> None:
    plant.inspect("a", "ok")
    plant.inspect("b", "ng")
    plant.inspect("c", "review")
    plant.inspect("d", "ok", "ok")
    plant.inspect("e", "ng", "ng", "ok")
    plant.inspect("f", "ok", "ok", "ng")
    expected = {"d": ("good", False), "e": ("good", True), "f": ("test/reviewed-ng", False)}
    assert plant.labels(plant.create(good="reviewed")) == expected
    assert plant.labels(plant.create(good="effective")) == {**expected, "a": ("good", False)}
    del expected["f"]
    assert plant.labels(plant.create(good="effective", defects=False)) == {**expected, "a": ("good", False)}


def test_images_that_retention_removed_are_left_out(plant: Plant) -> None:
    plant.inspect("a", "ok")
    plant.inspect("b", "ok", "ok")
    plant.inspect("c", "ok", "ok")
    with plant.engine.begin() as connection:
        connection.execute(
            text("UPDATE images SET removed_at = now() WHERE sha256 = ANY(:digests)"),
            {"digests": [image("a").sha256, image("b").sha256]},
        )
    assert plant.labels(plant.create(good="effective")) == {"c": ("good", False)}


def test_the_newest_review_of_an_image_counts_whatever_its_other_inspections(plant: Plant) -> None:
    plant.inspect("a", "ok", part_id="P1")
    plant.inspect("a", "ok", "ng", part_id="P1")
    plant.inspect("b", "ok", "ng")
    plant.inspect("b", "ng", "ok", part_id="P2")
    plant.inspect("c", "ok", part_id="P3")
    plant.inspect("c", "ok", part_id="P4")
    found = plant.gathered(plant.create(good="effective"))
    assert {name: (one.label, one.part_ids) for name, one in found.items()} == {
        "a": ("test/reviewed-ng", ["P1"]),
        "b": ("good", ["P2"]),
        "c": ("good", ["P4", "P3"]),
    }


def test_the_filters_choose_the_inspections(plant: Plant) -> None:
    plant.inspect("a", lot_id="L-1", line_id="l-1", station_id="s-1")
    plant.inspect("b", lot_id="L-2", line_id="l-1", station_id="s-1")
    plant.inspect("c", lot_id="L-2", line_id="l-2", station_id="s-1")
    plant.inspect("d", lot_id="L-2", line_id="l-2", station_id="s-2")
    for filters, names in (
        ({"lot_id": "L-1"}, "a"),
        ({"line_id": "l-1"}, "ab"),
        ({"station_id": "s-1"}, "abc"),
        ({"lot_id": "L-2", "station_id": "s-1"}, "bc"),
        ({"limit": 2}, "cd"),
        ({"until": "2026-01-01T00:00:00Z"}, ""),
        ({"since": "2150-01-01T00:00:00Z"}, ""),
    ):
        assert "".join(sorted(plant.gathered(plant.create(good="effective", **filters)))) == names, filters


def test_inspections_of_the_last_ninety_days_are_read_by_default(plant: Plant, engine: Engine) -> None:
    for name, days in (("a", 89), ("b", 91)):
        inspection_id = plant.inspect(name)
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE inspections SET created_at = created_at - make_interval(days => :days) WHERE id = :id"),
                {"days": days, "id": inspection_id},
            )
    assert plant.gathered(plant.create(good="effective")).keys() == {"a"}
    since = (dt.datetime.now(dt.UTC) - dt.timedelta(days=100)).isoformat()
    assert plant.gathered(plant.create(good="effective", since=since)).keys() == {"a", "b"}


def test_a_review_overrules_the_label_of_an_upload(plant: Plant, engine: Engine) -> None:
    plant.inspect("a", "ok", "ng")
    plant.inspect("b", "ok")
    run_id = plant.create(good="effective")
    with engine.begin() as connection:
        uploads = [NewImage(image(name), label, f"{name}.png") for name, label in (("a", "good"), ("b", "test/good"))]
        images.add(connection, RECIPE, run_id, uploads)
    found = plant.gathered(run_id)
    assert {name: (one.label, one.inspection_id is None) for name, one in found.items()} == {
        "a": ("test/reviewed-ng", False),
        "b": ("test/good", True),
    }


def test_what_was_gathered_is_not_gathered_again(plant: Plant) -> None:
    plant.inspect("a")
    run_id = plant.create(good="effective")
    assert plant.gathered(run_id).keys() == {"a"}
    plant.inspect("b")
    with plant.engine.begin() as connection:
        run = runs.get(connection, RECIPE, run_id)
    gathering.gather(plant.engine, run)
    with plant.engine.begin() as connection:
        assert len(images.all_of(connection, run_id)) == 1


def test_other_recipes_are_left_alone(plant: Plant, engine: Engine) -> None:
    with engine.begin() as connection:
        recipes.create(connection, "another", actor="test")
        request = TrainingRequest.model_validate({"inspections": {"good": "effective"}})
        run = runs.create(connection, "another", request, actor="test")
    plant.inspect("a")
    gathering.gather(engine, run)
    with engine.begin() as connection:
        assert images.all_of(connection, run.id) == []
