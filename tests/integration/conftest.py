"""What integration tests of webhooks and of archives start from."""

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import Engine

from tests.buckets import bucket_server as bucket_server
from tests.buckets import buckets as buckets
from tests.events import finish_inspections, make_recipe


@pytest.fixture
def inspect(engine: Engine) -> Callable[..., list[UUID]]:
    """Inspects so many pictures of one recipe, each of which is an event."""
    make_recipe(engine)
    return lambda number=1: finish_inspections(engine, number)
