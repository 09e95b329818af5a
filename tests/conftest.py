"""Configuration of all tests. Fixtures are in `tests/fixtures`; a missing wheel fails the tests, nothing is skipped."""

import gc
import os
import signal
import sys
from collections.abc import Generator

import hypothesis
import pytest

# Set before torch is imported, in this process and in every process that a test starts. There is one test process per
# core: with more threads, busy waiting makes a training ten times slower.
os.environ["OMP_NUM_THREADS"] = "1"

# Some images of Python set it; then each process that a test starts would compile all modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Shells start background jobs with SIGINT ignored, and child processes would inherit that. Some tests interrupt them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [
    "tests.fixtures.servers",
    "tests.fixtures.bundles",
    "tests.fixtures.running_system",
]

hypothesis.settings.register_profile("linewatch", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("linewatch")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what importing all tests makes, a million objects, from the garbage collector: it would look for cycles
    among them again and again.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # some libraries report what was never collected as leaks
