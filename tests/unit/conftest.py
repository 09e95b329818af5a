"""What unit tests of callable targets start from."""

from tests.fixtures.allow_lists import names as names
