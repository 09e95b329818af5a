"""Submissions that share a transaction."""

from sqlalchemy import Engine

from core.errors import Code, Refused
from core.inspection import inspections
from core.inspection.inspections import Filters
from core.intake import submission
from core.intake.submission import NewInspection, Submission
from tests.fixtures.queued_work import IMAGE, make_recipe


def test_a_refused_submission_does_not_affect_the_others_of_its_group(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        make_recipe(connection, "empty")
        make_recipe(connection, "patient", without_model="wait")
        results = submission.accept(
            connection,
            [Submission([NewInspection(IMAGE, name)]) for name in ("ring", "nobody", "empty", "patient", "ring")],
        )
        kinds = [outcome.code if isinstance(outcome, Refused) else outcome.inspections[0].status for outcome in results]
        items, _ = inspections.list_page(connection, Filters(), before=None, limit=10)
    assert kinds == ["queued", Code.RECIPE_UNKNOWN, Code.RECIPE_WITHOUT_MODEL, "queued", "queued"]
    assert [item.recipe for item in items] == ["ring", "patient", "ring"]
