"""What unit tests of callable targets start from."""

from tests.allowing import names as names
