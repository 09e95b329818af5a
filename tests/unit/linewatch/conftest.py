"""Fixtures of the client's unit tests."""

from tests.fixtures.mock_system import client as client
from tests.fixtures.mock_system import pauses as pauses
