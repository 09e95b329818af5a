"""Fixtures: synthetic parts to train on, and an untrained detector."""

from collections.abc import Iterator

import pytest

from tests.fixtures.training_parts import detector as detector
from tests.fixtures.training_parts import folder as folder
from tests.fixtures.training_parts import part as part
from tests.fixtures.training_parts import quick_detectability


@pytest.fixture(scope="module", autouse=True)
def _quick_detectability() -> Iterator[None]:
    with quick_detectability():
        yield
