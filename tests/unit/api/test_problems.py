"""The table from error code to HTTP status."""

from api.responses.problems import STATUS
from core.errors import Code


def test_every_code_has_a_status() -> None:
    assert set(STATUS) == set(Code)
