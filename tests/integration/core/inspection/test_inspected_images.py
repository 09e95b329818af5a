"""The images of inspections, and the good parts near one."""

import random
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from core.errors import Code, Refused
from core.inspection import inspected_images
from core.models.verdicts import Verdict
from tests.fixtures.inspected_images import DAY, inspect_image
from tests.fixtures.queued_work import make_recipe, make_version


def near(engine: Engine, inspection_id: UUID) -> list[UUID]:
    with engine.begin() as connection:
        return [image.inspection_id for image in inspected_images.good_parts_near(connection, inspection_id)]


def test_good_parts_are_of_the_same_recipe_and_view_and_effectively_ok(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        other_id = make_recipe(connection, "other")
        make_version(connection, "other", sha256=b"\3" * 32)
    pick = random.Random(1)
    histories: list[tuple[Verdict, ...]] = [(), (), ("ok",), ("ng",), ("ng", "ok"), ("ok", "ng")]
    rows = []
    for number in range(60):
        recipe = pick.choice(["ring", "ring", "other"])
        verdict: Verdict = pick.choice(["ok", "ng", "review"])
        history, view = pick.choice(histories), pick.choice([None, "top"])
        fields = {} if view is None else {"view": view}
        inspection_id = inspect_image(
            engine,
            bytes([number // 2 % 20]) * 32,  # some images were submitted twice
            recipe=recipe,
            recipe_id=recipe_id if recipe == "ring" else other_id,
            verdict=verdict,
            reviewed=history,
            **fields,
        )
        rows.append((inspection_id, number // 2 % 20, recipe, view, history[-1] if history else verdict))
    for place, (inspection_id, image, recipe, view, _) in enumerate(rows):
        expected, images = [], {image}
        older, newer = (
            [row for row in side if row[2:] == (recipe, view, "ok")] for side in (rows[:place][::-1], rows[place + 1 :])
        )
        for step in range(max(len(older), len(newer))):
            for row in (*older[step : step + 1], *newer[step : step + 1]):
                if row[1] not in images:
                    images.add(row[1])
                    expected.append(row[0])
        assert near(engine, inspection_id) == expected


def test_a_part_in_flight_has_good_parts(engine: Engine, recipe_id: int) -> None:
    good = inspect_image(engine, b"\1" * 32, recipe_id=recipe_id)
    waiting = inspect_image(engine, b"\2" * 32, recipe_id=recipe_id, verdict=None)
    assert near(engine, waiting) == [good]
    assert near(engine, good) == []


def test_the_search_is_bounded(engine: Engine, recipe_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspected_images, "SEARCHED", 4)
    monkeypatch.setattr(inspected_images, "NEAR", 2)
    verdicts: list[Verdict] = ["ok", "ng", "ok", "ng", "ng", "ok", "ok", "ok", "ng", "ng", "ng", "ng", "ok"]
    ids = [
        inspect_image(engine, bytes([number]) * 32, recipe_id=recipe_id, verdict=verdict)
        for number, verdict in enumerate(verdicts)
    ]
    assert near(engine, ids[4]) == [ids[2], ids[5], ids[0], ids[6]]
    assert near(engine, ids[7]) == [ids[6], ids[5]]
    assert near(engine, ids[12]) == []


def test_only_deep_formats_have_the_bit_depth_of_their_version(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        connection.execute(
            text('UPDATE model_versions SET manifest = manifest || \'{"preprocessing": {"bit_depth": 12}}\'')
        )
    depths = {}
    for number, media_type in enumerate(("image/png", "image/tiff", "image/jpeg", "image/webp", "image/bmp")):
        sha256 = bytes([number]) * 32
        inspection_id = inspect_image(engine, sha256, recipe_id=recipe_id, media_type=media_type)
        with engine.begin() as connection:
            image = inspected_images.get(connection, inspection_id)
        assert (image.inspection_id, image.day, image.sha256, image.final) == (inspection_id, DAY, sha256, True)
        depths[media_type] = image.bit_depth
    assert depths == {"image/png": 12, "image/tiff": 12, "image/jpeg": None, "image/webp": None, "image/bmp": None}
    waiting = inspect_image(engine, b"\7" * 32, recipe_id=recipe_id, verdict=None)
    with engine.begin() as connection:
        image = inspected_images.get(connection, waiting)
    assert (image.bit_depth, image.final) == (None, False)


def test_an_unknown_inspection_is_refused(engine: Engine) -> None:
    for function in (inspected_images.get, inspected_images.good_parts_near):
        with engine.begin() as connection, pytest.raises(Refused) as refused:
            function(connection, uuid4())
        assert refused.value.code is Code.NOT_FOUND


@pytest.mark.parametrize("newer", [True, False])
def test_good_parts_are_found_by_an_index(engine: Engine, recipe_id: int, newer: bool) -> None:
    inspection_id = inspect_image(engine, b"\1" * 32, recipe_id=recipe_id)
    with engine.begin() as connection:
        query = inspected_images._good_parts(inspected_images._row(connection, inspection_id), newer=newer)
        statement = query.compile(engine, compile_kwargs={"literal_binds": True})
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}").scalars())
    assert "_recipe_id_id_idx" in plan, plan
