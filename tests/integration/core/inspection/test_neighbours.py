"""The neighbours of an inspection are those of the listing with the same filters."""

import random
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from core.errors import Code, Refused
from core.inspection import inspections, neighbours
from core.inspection.inspections import Filters
from core.inspection.neighbours import Neighbours
from core.models.verdicts import Verdict
from tests.fixtures.inspected_images import inspect_image
from tests.fixtures.queued_work import make_recipe, make_version

FILTERS = (
    Filters(),
    Filters(recipe="ring"),
    Filters(recipe="other", status="queued"),
    Filters(verdict="ng"),
    Filters(recipe="ring", effective_verdict="ok"),
    Filters(reviewed="any", line_id="line-1"),
    Filters(reviewed="none", status="completed"),
    Filters(lot_id="L-2", recipe="other"),
    Filters(part_id="P-1", lot_id="L-1", line_id="line-2"),
    Filters(station_id="nowhere"),
    Filters(batch_id=UUID(int=1)),
)


@pytest.fixture
def mixed(engine: Engine, recipe_id: int) -> list[UUID]:
    """Inspections of two recipes, some in flight, in the order of their ids."""
    with engine.begin() as connection:
        other_id = make_recipe(connection, "other")
        make_version(connection, "other", sha256=b"\3" * 32)
    pick = random.Random(2)
    verdicts: list[Verdict | None] = ["ok", "ok", "ng", "review", None]
    histories: list[tuple[Verdict, ...]] = [(), (), ("ok",), ("ng",), ("ng", "ok")]
    ids = []
    for number in range(50):
        recipe = pick.choice(["ring", "other"])
        fields = {"part_id": f"P-{pick.randint(1, 3)}", "lot_id": f"L-{number // 25 + 1}"}
        ids.append(
            inspect_image(
                engine,
                bytes([number]) * 32,
                recipe=recipe,
                recipe_id=recipe_id if recipe == "ring" else other_id,
                verdict=pick.choice(verdicts),
                reviewed=pick.choice(histories),
                line_id=f"line-{pick.randint(1, 2)}",
                **fields,
            )
        )
    return ids


def found(engine: Engine, inspection_id: UUID, filters: Filters) -> Neighbours:
    with engine.begin() as connection:
        return neighbours.find(connection, inspection_id, filters)


def test_neighbours_are_next_to_an_inspection_in_the_listing(engine: Engine, mixed: list[UUID]) -> None:
    for filters in FILTERS:
        with engine.begin() as connection:
            page, _ = inspections.list_page(connection, filters, before=None, limit=100)
        listed = [inspection.id for inspection in page]
        for inspection_id in (mixed[0], *mixed[1:-1:4], mixed[-1]):
            newer = [listed_id for listed_id in listed if listed_id > inspection_id]
            older = [listed_id for listed_id in listed if listed_id < inspection_id]
            expected = Neighbours(newer[-1] if newer else None, older[0] if older else None)
            assert found(engine, inspection_id, filters) == expected, filters


def test_the_search_is_bounded(engine: Engine, mixed: list[UUID], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "SEARCHED", 3)
    with engine.begin() as connection:
        page, _ = inspections.list_page(connection, Filters(recipe="ring", status="completed"), before=None, limit=100)
    completed = [inspection.id for inspection in page][::-1]
    chosen = Filters(recipe="ring", verdict="review")
    reviewed = [inspection.id for inspection in page if inspection.verdict == "review"]
    for place, inspection_id in enumerate(completed):
        newer = [each for each in completed[place + 1 : place + 4] if each in reviewed]
        older = [each for each in completed[max(place - 3, 0) : place] if each in reviewed]
        expected = Neighbours(newer[0] if newer else None, older[-1] if older else None)
        assert found(engine, inspection_id, chosen) == expected


def test_an_unknown_inspection_or_recipe_is_refused(engine: Engine, mixed: list[UUID]) -> None:
    for inspection_id, filters, code in (
        (uuid4(), Filters(), Code.NOT_FOUND),
        (mixed[0], Filters(recipe="nobody"), Code.RECIPE_UNKNOWN),
    ):
        with pytest.raises(Refused) as refused:
            found(engine, inspection_id, filters)
        assert refused.value.code is code
