"""PostgreSQL assigns the bins: in the order of the values, and each near the middle of its bin."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from core.drift import counting
from core.drift.grids import GRIDS, LinearGrid, LogGrid
from core.feed import feed
from tests.fixtures.finished_inspections import finish_inspections, make_recipe_with_model

FLOATS = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=True)
GREYS = st.floats(0, 255)
IN_DATABASE = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def bins_of(engine: Engine, grid: LogGrid | LinearGrid, values: list[float]) -> list[int]:
    """The bin of each value."""
    with engine.begin() as connection:
        rows = connection.execute(
            text(f"""
                SELECT {grid.bin_sql("value")}
                FROM unnest(CAST(:values AS float8[])) WITH ORDINALITY AS _(value, number)
                ORDER BY number
            """),  # noqa: S608 - the expression is a constant
            {"values": values},
        ).scalars()
        return list(rows)


@IN_DATABASE
@given(st.lists(FLOATS, min_size=1, max_size=20))
def test_scores_keep_their_order_and_their_size(engine: Engine, scores: list[float]) -> None:
    grid, ascending = GRIDS["score"], sorted(scores)
    bins = bins_of(engine, grid, ascending)
    assert bins == sorted(bins)
    for score, bin_ in zip(ascending, bins, strict=True):
        if abs(score) < 1e-12:
            assert (bin_, grid.middle(bin_)) == (0, 0)
        elif abs(score) < 1e300:
            assert grid.middle(bin_) == pytest.approx(score, rel=0.006)
            assert grid.upper_edge(bin_) == pytest.approx(score, rel=0.011)
            assert score <= grid.upper_edge(bin_) + 1e-9 * abs(score)


@IN_DATABASE
@given(st.lists(GREYS, min_size=1, max_size=20))
def test_grey_levels_keep_their_order_and_their_size(engine: Engine, levels: list[float]) -> None:
    grid, ascending = GRIDS["brightness"], sorted(levels)
    for level, bin_ in zip(ascending, bins_of(engine, grid, ascending), strict=True):
        assert bin_ == math.floor(level)
        assert grid.middle(bin_) == pytest.approx(level, abs=0.5)
        assert level <= grid.upper_edge(bin_)


def test_concurrent_dispatchers_count_everything_once(engine: Engine) -> None:
    make_recipe_with_model(engine)
    for _ in range(5):
        finish_inspections(engine, 20)
    with engine.begin() as connection:
        feed.number_entries(connection)

    def count() -> int:
        with engine.begin() as connection:
            return counting.count_finished(connection, at_most=7)

    with ThreadPoolExecutor(4) as pool:
        counted = list(pool.map(lambda _: count(), range(60)))
    assert sum(counted) == 100
    with engine.begin() as connection:
        assert connection.execute(text("SELECT sum(ok) FROM drift_days")).scalar_one() == 100
        assert connection.execute(text("SELECT sum(count) FROM drift_histograms")).scalar_one() == 100
