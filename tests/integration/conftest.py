"""Fixtures of integration tests."""

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import Engine

from tests.fixtures.finished_inspections import finish_inspections, make_recipe_with_model
from tests.fixtures.queued_work import recipe_id as recipe_id
from tests.fixtures.s3_server import s3 as s3
from tests.fixtures.s3_server import s3_server as s3_server


@pytest.fixture
def inspect(engine: Engine) -> Callable[..., list[UUID]]:
    """`inspect(number)` completes inspections of one recipe, and with each a webhook event."""
    make_recipe_with_model(engine)
    return lambda number=1: finish_inspections(engine, number)
