"""Fixtures: synthetic parts to train on, and an untrained detector."""

from collections.abc import Iterator
from functools import partial

import pytest

from core.vision.selection.detectability import measure_detectability
from tests.fixtures.training_parts import detector as detector
from tests.fixtures.training_parts import folder as folder
from tests.fixtures.training_parts import part as part


@pytest.fixture(scope="module", autouse=True)
def _one_image_for_each_synthetic_defect() -> Iterator[None]:
    """Draw each defect into one good part instead of ten: otherwise that takes most of the time of a small training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.vision.train.measure_detectability", partial(measure_detectability, rounds=1))
        yield
