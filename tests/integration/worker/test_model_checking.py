"""A bundle is checked in a child process: one that hangs or crashes it is rejected, and the worker goes on."""

import datetime as dt
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from core.models import model_versions, recipes
from core.models.model_versions import MAX_CHECKS, ModelVersion
from core.settings import Settings
from core.storage.folder_store import FolderStore
from core.vision.errors import InvalidBundle
from tests.fixtures.bundles import register_bundle
from tests.fixtures.waiting import eventually
from worker import model_checking
from worker.model_checking import ModelChecker
from worker.pipeline.faults import WorkerUnfit
from worker.pipeline.loaded_models import Models

CRASHES = "import os; os.abort()"
HANGS = "import time; time.sleep(600)"
SPINS = """
import json, sys
from worker import model_checking

def spin(*_, **__):
    while True: pass

model_checking.load_detector = spin
print(json.dumps(model_checking.main(sys.stdin.buffer, json.loads(sys.argv[1]))))
"""
FILLS_MEMORY = SPINS.replace(
    "while True: pass", "bytearray(6 * 1024**3)  # it is not touched, so only the limit can refuse it"
).replace("def spin", "model_checking.MEMORY_BASE_BYTES = 1024**3\n\ndef spin")


@pytest.fixture
def store(settings: Settings) -> FolderStore:
    return FolderStore(settings.store_url)


@pytest.fixture
def make_checker(settings: Settings, engine: Engine, store: FolderStore) -> Iterator[Callable[[], ModelChecker]]:
    """`make_checker()` returns the checker of another worker."""
    checkers: list[ModelChecker] = []

    def make() -> ModelChecker:
        models = Models(settings.model_copy(update={"device": "cpu"}), engine, store)
        checkers.append(ModelChecker(settings, engine, store, models, stopping=threading.Event()))
        return checkers[-1]

    yield make
    for checker in checkers:
        checker.close()


@pytest.fixture
def version_id(engine: Engine, store: FolderStore, bundle: Path) -> int:
    """An uploaded version of a recipe."""
    with engine.begin() as connection:
        recipes.create(connection, "ring", actor="test")
    return register_bundle(engine, store, bundle)


def stored(engine: Engine, version_id: int) -> ModelVersion:
    with engine.begin() as connection:
        return model_versions.by_id(connection, version_id)


def checks(engine: Engine) -> tuple[int, bool]:
    """The number of checks, and whether one is in progress."""
    with engine.begin() as connection:
        row = connection.execute(text("SELECT checks, check_until IS NOT NULL AS held FROM model_versions")).one()
        return row.checks, row.held


def use_child(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(model_checking, "_COMMAND", [sys.executable, "-c", script])


def test_a_good_bundle_is_ready(engine: Engine, make_checker: Callable[[], ModelChecker], version_id: int) -> None:
    make_checker().check(version_id)
    assert (stored(engine, version_id).state, stored(engine, version_id).active) == ("ready", True)


def test_a_bundle_that_is_ready_in_another_recipe_is_not_checked_again(
    engine: Engine, make_checker: Callable[[], ModelChecker], version_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as connection:
        recipes.create(connection, "cell", actor="test")
        first = model_versions.by_id(connection, version_id)
        second, _ = model_versions.register(
            connection, "cell", sha256=first.sha256, manifest=first.manifest, actor="test"
        )
    make_checker().check(version_id)
    use_child(monkeypatch, "raise SystemExit(1)")
    make_checker().check(second.id)
    assert (stored(engine, second.id).state, stored(engine, second.id).active) == ("ready", True)


def test_a_slow_check_is_not_repeated_and_occupies_no_slot(
    engine: Engine, make_checker: Callable[[], ModelChecker], version_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_child(monkeypatch, HANGS)
    workers = [make_checker() for _ in range(3)]
    began = time.monotonic()
    for _ in range(2 * MAX_CHECKS):  # as the dispatcher would, if it did not know of the check
        for worker in workers:
            worker.request(version_id)
    assert time.monotonic() - began < 5
    eventually(lambda: checks(engine), (1, True))
    assert stored(engine, version_id).state == "uploaded"
    for worker in workers:
        worker.close()
    assert checks(engine) == (0, False)


def test_a_lease_is_renewed_during_a_check(
    engine: Engine, make_checker: Callable[[], ModelChecker], version_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_child(monkeypatch, HANGS)
    monkeypatch.setattr(model_checking, "CHECK_SECONDS", 1.0)  # renewed three times a second
    make_checker().request(version_id)
    eventually(lambda: checks(engine), (1, True))

    def lease() -> dt.datetime:
        with engine.begin() as connection:
            until: dt.datetime = connection.execute(text("SELECT check_until FROM model_versions")).scalar_one()
            return until

    first = lease()
    eventually(lambda: lease() > first, True)


@pytest.mark.parametrize("script", [CRASHES, FILLS_MEMORY], ids=["crash", "memory"])
def test_a_bundle_that_crashes_its_check_is_rejected_after_some_checks(
    engine: Engine,
    make_checker: Callable[[], ModelChecker],
    version_id: int,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
) -> None:
    use_child(monkeypatch, script)
    monkeypatch.setattr(model_versions, "MAX_CHECKS", 2)
    checker = make_checker()
    for number in (1, 2):
        assert stored(engine, version_id).state == "uploaded"
        checker.check(version_id)
        assert checks(engine) == (number, False)
    version = stored(engine, version_id)
    assert version.state == "rejected"
    assert version.rejection is not None
    assert ("status -6" if script is CRASHES else "MemoryError") in version.rejection


def test_a_bundle_that_computes_without_end_is_rejected_at_once(
    engine: Engine, make_checker: Callable[[], ModelChecker], version_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_child(monkeypatch, SPINS)
    monkeypatch.setattr(model_checking, "CPU_SECONDS", 0.5)
    make_checker().check(version_id)
    version = stored(engine, version_id)
    assert version.state == "rejected"
    assert version.rejection == "checking this bundle took more than 0.5 s of CPU time"


def test_a_worker_with_a_gpu_checks_there_too(
    engine: Engine, make_checker: Callable[[], ModelChecker], version_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[int] = []

    def fail(_: Models, version_id: int) -> None:
        checked.append(version_id)
        raise InvalidBundle("the golden score is not reproduced on cuda")

    monkeypatch.setattr(Models, "device", "cuda")
    monkeypatch.setattr(Models, "check", fail)
    make_checker().check(version_id)
    assert checked == [version_id]
    assert stored(engine, version_id).rejection == "the golden score is not reproduced on cuda"


def test_a_check_that_breaks_the_gpu_counts_and_reports_it(
    engine: Engine, make_checker: Callable[[], ModelChecker], version_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise WorkerUnfit("unspecified launch failure")

    monkeypatch.setattr(Models, "device", "cuda")
    monkeypatch.setattr(Models, "check", fail)
    with pytest.raises(WorkerUnfit):
        make_checker().check(version_id)
    assert (stored(engine, version_id).state, checks(engine)) == ("uploaded", (1, False))


def test_a_check_that_does_not_end_counts_and_leaves_no_child(
    engine: Engine, make_checker: Callable[[], ModelChecker], version_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    children: list[subprocess.Popen[bytes]] = []

    class Child(subprocess.Popen[bytes]):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[call-overload]
            children.append(self)

    monkeypatch.setattr(subprocess, "Popen", Child)
    use_child(monkeypatch, HANGS)
    monkeypatch.setattr(model_checking, "WALL_SECONDS", 0.5)
    make_checker().check(version_id)
    assert (stored(engine, version_id).state, checks(engine)) == ("uploaded", (1, False))
    assert children[0].poll() is not None


def test_a_check_does_not_count_while_the_bundle_cannot_be_read(
    engine: Engine, make_checker: Callable[[], ModelChecker], version_id: int, store: FolderStore
) -> None:
    [tar] = store.path("models").iterdir()
    tar.rename(tar.with_suffix(".away"))
    checker = make_checker()
    with pytest.raises(FileNotFoundError):
        checker.check(version_id)
    assert (stored(engine, version_id).state, checks(engine)) == ("uploaded", (0, False))
    tar.with_suffix(".away").rename(tar)
    checker.check(version_id)
    assert stored(engine, version_id).state == "ready"


def test_a_damaged_bundle_is_rejected_at_once(
    engine: Engine, make_checker: Callable[[], ModelChecker], version_id: int, store: FolderStore
) -> None:
    [tar] = store.path("models").iterdir()
    tar.write_bytes(tar.read_bytes()[:2000])
    make_checker().check(version_id)
    assert stored(engine, version_id).state == "rejected"
