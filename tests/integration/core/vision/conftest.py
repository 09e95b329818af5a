"""Fixtures: synthetic parts to train on, and an untrained detector."""

from tests.fixtures.training_parts import detector as detector
from tests.fixtures.training_parts import folder as folder
from tests.fixtures.training_parts import part as part
