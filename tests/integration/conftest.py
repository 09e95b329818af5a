"""What integration tests of webhooks and of archives start from."""

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import Engine

from tests.fixtures.finished_inspections import finish_inspections, make_recipe
from tests.fixtures.s3_server import bucket_server as bucket_server
from tests.fixtures.s3_server import buckets as buckets


@pytest.fixture
def inspect(engine: Engine) -> Callable[..., list[UUID]]:
    """Inspects so many images of one recipe, each of which is an event."""
    make_recipe(engine)
    return lambda number=1: finish_inspections(engine, number)
