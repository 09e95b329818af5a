"""Fixtures of unit tests."""

from tests.fixtures.allow_lists import set_dns as set_dns
