"""Ids as the bounds of monthly partitions."""

import datetime as dt
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from core.partitions import first_id_of


@given(st.integers(0, 16_000_000_000_000))
def test_the_first_id_of_a_time_is_below_all_ids_of_that_millisecond(milliseconds: int) -> None:
    moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    first = first_id_of(moment)
    assert first < UUID(int=first.int + (1 << 64))
    assert first_id_of(moment + dt.timedelta(milliseconds=2)) > first
