"""Retention of random plants leaves exactly what a simple model says, also if it is killed between any two steps."""

import datetime as dt
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from core.models.retention_policies import RetentionPolicy
from core.retention import images as retention_images
from core.retention import rounds
from core.retention.removals import Removal, Scope, Step
from core.settings import Settings
from core.storage.bucket_store import BucketStore
from core.storage.folder_store import FolderStore
from core.storage.image_store import Store
from core.storage.moving_store import MovingStore
from tests.fixtures.retained_plant import (
    BYTES,
    FEED_DAYS,
    TODAY,
    Part,
    Plant,
    Trained,
    build,
    expected,
    remaining,
)
from tests.fixtures.s3_server import S3Server

AGES = (0, 2, 3, 5, 6, 20, 21, 27, 48, 49, 50, 78, 79, 80, 100)


def _limit(*days: int) -> st.SearchStrategy[int | None]:
    return st.sampled_from([None, *days])


@st.composite
def policies(draw: st.DrawFn) -> RetentionPolicy | None:
    if draw(st.integers(0, 5)) == 0:
        return None
    rows_days = draw(_limit(3, 10, 27, 60))
    limits = {name: draw(_limit(3, 5, 20, 48)) for name in ("ok_images_days", "ng_images_days", "review_images_days")}
    if rows_days is not None:
        limits = {name: days if days is None else min(days, rows_days) for name, days in limits.items()}
    return RetentionPolicy(**limits, rows_days=rows_days)


days = st.sampled_from([TODAY - dt.timedelta(days=age) for age in AGES])
images = st.integers(0, 2)
parts = st.builds(
    Part,
    recipe=st.integers(0, 1),
    day=days,
    image=images,
    verdict=st.sampled_from(["ok", "ok", "ng", "review", None]),
    reviews=st.sampled_from([(), (), ("ok",), ("ng",), ("ok", "ng")]),
    lot=st.sampled_from([None, "L-1", "L-2"]),
    part=st.sampled_from([None, "SN-1"]),
)
plants = st.builds(
    Plant,
    policies=st.lists(policies(), min_size=2, max_size=2),
    parts=st.lists(parts, min_size=4, max_size=16),
    waiting=st.lists(st.tuples(st.integers(0, 1), days, images), max_size=2),
    trained=st.lists(
        st.builds(Trained, days, images, st.sampled_from(["model", "rejected", "recent", "old", "open"])), max_size=3
    ),
    held_lots=st.sampled_from([frozenset[str](), frozenset[str](), frozenset({"L-1"})]),
    held_parts=st.sampled_from([frozenset[str](), frozenset[str](), frozenset({"SN-1"})]),
    busy=st.sampled_from([frozenset[int](), frozenset[int](), frozenset({1})]),
)


@pytest.fixture
def store(settings: Settings) -> Store:
    return FolderStore(settings.store_url)


@pytest.fixture
def bucket(s3: S3Server, tmp_path: Path) -> Store:
    return BucketStore(f"s3://{s3.bucket}/test-{uuid4().hex}", tmp_path / "scratch")


@pytest.fixture
def _single_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let rounds be killed between the deletions of two files, too."""
    monkeypatch.setattr(retention_images, "FILES_AT_ONCE", 1)


def steps(engine: Engine, store: Store) -> Iterator[Step]:
    return rounds.steps(Scope(engine, TODAY, FEED_DAYS), store)


def plan(engine: Engine, store: Store) -> list[Removal]:
    return rounds.totals(rounds.plan(Scope(engine, TODAY, FEED_DAYS), store))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plant=plants)
def test_exactly_what_has_ended_is_removed_as_planned_and_once(engine: Engine, store: Store, plant: Plant) -> None:
    build(engine, store, plant)
    planned = plan(engine, store)
    removed = rounds.totals(one for step in steps(engine, store) for one in step)
    assert remaining(engine, store, plant) == expected(plant)
    assert [one for one in removed if one.kind != "images"] == [one for one in planned if one.kind != "images"]
    files = sum(one.number for one in planned if one.kind == "images")
    assert files == len(plant.images) - len(plant.kept_files)
    for counted in (planned, removed):
        assert sum(one.bytes for one in counted if one.kind == "images") == files * BYTES
    assert [step for step in steps(engine, store) if step] == []
    assert plan(engine, store) == []
    assert remaining(engine, store, plant) == expected(plant)


@pytest.mark.usefixtures("_single_files")
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plant=plants, kills=st.lists(st.integers(1, 12), max_size=6))
def test_rounds_that_are_killed_between_steps_come_to_the_same(
    engine: Engine, store: Store, plant: Plant, kills: list[int]
) -> None:
    check_killed_rounds(engine, store, plant, kills)


@pytest.mark.usefixtures("_single_files")
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plant=plants, kills=st.lists(st.integers(1, 12), max_size=3))
def test_images_in_a_bucket_are_treated_alike(engine: Engine, bucket: Store, plant: Plant, kills: list[int]) -> None:
    check_killed_rounds(engine, bucket, plant, kills)


@pytest.mark.usefixtures("_single_files")
@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plant=plants, kills=st.lists(st.integers(1, 12), max_size=3))
def test_images_are_removed_in_a_store_that_moves(
    engine: Engine, store: Store, bucket: Store, plant: Plant, kills: list[int]
) -> None:
    check_killed_rounds(engine, MovingStore(bucket, store), plant, kills, stored_in=store)


def check_killed_rounds(
    engine: Engine, store: Store, plant: Plant, kills: list[int], *, stored_in: Store | None = None
) -> None:
    build(engine, stored_in or store, plant)
    for survived in kills:
        for _ in islice(steps(engine, store), survived):
            pass
        left = remaining(engine, store, plant)
        assert left.files >= plant.kept_files
        assert left.rows >= plant.kept_rows
    for _ in steps(engine, store):
        pass
    assert remaining(engine, store, plant) == expected(plant)
