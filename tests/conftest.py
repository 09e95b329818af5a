"""Fixtures for all tests lie in `tests/fixtures`. A missing wheel fails the tests; nothing is skipped."""

import os

import hypothesis

# Before torch is imported, here and in every process that a test starts. The tests run in as many processes as there
# are cores: more threads than that wait for each other, actively, and a training takes ten times as long.
os.environ["OMP_NUM_THREADS"] = "1"

pytest_plugins = [
    "tests.fixtures.servers",
    "tests.fixtures.bundles",
    "tests.fixtures.running_system",
]

hypothesis.settings.register_profile("linewatch", deadline=None)  # how busy the machine is proves nothing
hypothesis.settings.load_profile("linewatch")
