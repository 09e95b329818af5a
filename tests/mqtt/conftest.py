"""Fixtures of the MQTT tests."""

from tests.fixtures.queued_work import recipe_id as recipe_id
