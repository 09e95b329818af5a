"""Fixtures of tests of the command line."""

from tests.fixtures.installations import save as save
from tests.fixtures.installations import source as source
from tests.fixtures.installations import target as target
