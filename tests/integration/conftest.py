"""What integration tests of webhooks start from."""

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import Engine

from tests.events import finish_inspections, make_recipe


@pytest.fixture
def inspect(engine: Engine) -> Callable[..., list[UUID]]:
    """Inspects so many pictures of one recipe, each of which is an event."""
    make_recipe(engine)
    return lambda number=1: finish_inspections(engine, number)
