"""Inspections that become final without a worker; each is an event."""

import datetime as dt
from uuid import UUID

from sqlalchemy import Engine

from core.intake import submission
from core.intake.image_decoding import Header
from core.intake.submission import Accepted, NewInspection, StoredImage, Submission
from core.models import model_versions, recipes
from core.queue import work
from core.queue.work import Outcome

RECIPE = "ring"
IMAGE = StoredImage(dt.date(2026, 1, 2), b"\1" * 32, 10, Header("image/png", 4, 3))
MANIFEST = {"threshold": {"value": 0.5, "calibration": None}, "review_threshold": None}


def make_recipe(engine: Engine) -> None:
    """A recipe with an active version."""
    with engine.begin() as connection:
        recipes.create(connection, RECIPE, actor="test")
        made, _ = model_versions.register(connection, RECIPE, sha256=b"\2" * 32, manifest=MANIFEST, actor="test")
        model_versions.mark_ready(connection, made.id)


def finish_inspections(engine: Engine, number: int) -> list[UUID]:
    """So many completed inspections of the recipe, in one commit, in the order of their ids."""
    with engine.begin() as connection:
        [accepted] = submission.accept(connection, [Submission([NewInspection(IMAGE, RECIPE)] * number)])
        assert isinstance(accepted, Accepted)
        ids = [one.id for one in accepted.inspections]
        claims = work.claim(
            connection,
            recipe_id=accepted.recipe_ids[0],
            ids=ids,
            priority="live",
            at_most=number,
            lease_seconds=60,
            worker="test",
        )
        done = [Outcome(one.id, one.attempt, "completed", anomaly_score=0.1, verdict="ok") for one in claims]
        assert len(work.finish(connection, done).inspections) == number
    return ids
