"""A running system is backed up while clients upload, wiped, and restored."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import httpx
import psutil
import pytest
from sqlalchemy import func, select, table, text

from tests.fixtures.faults.injection import Target
from tests.fixtures.faults.oracle import Oracle
from tests.fixtures.faults.steady_uploads import Accepted, Uploads
from tests.fixtures.part_images import png
from tests.fixtures.running_system import System

IMAGE = png(7)
UNCHANGED = ("batches", "reviews", "feed_consumers", "api_keys", "idempotency_keys", "webhook_endpoints")


@pytest.fixture
def fresh_system(reachable_folder: Path) -> Iterator[System]:
    """A system of this test alone, which wipes its data."""
    folder = reachable_folder / "backed-up"
    folder.mkdir()
    system = System.start(folder)
    try:
        yield system
    finally:
        system.process.kill()
        system.process.wait()
        if system.process.stdout is not None:
            system.process.stdout.close()


def command(system: System, *arguments: str) -> dict[str, object]:
    """Run a command on the system's data, and return what it printed as JSON."""
    completed = subprocess.run(
        [sys.executable, "-m", "linewatch.cli", *arguments, "--data", str(system.data), "--json"],
        env=system.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stderr
    printed: dict[str, object] = json.loads(completed.stdout)
    return printed


def read_feed(http: httpx.Client, after: str | None) -> tuple[list[UUID], str]:
    """Read the feed to its end; return the ids and the last cursor."""
    ids: list[UUID] = []
    while True:
        page = http.get("/v1/results", params={"limit": 500} | ({"after": after} if after else {})).json()
        ids += [UUID(item["id"]) for item in page["items"]]
        after = page["next_cursor"]
        if not page["items"]:
            return ids, str(after)


def upload(http: httpx.Client, recipe: str, key: str) -> httpx.Response:
    return http.post(
        "/v1/inspections", params={"recipe": recipe}, content=IMAGE,
        headers={"Idempotency-Key": key, "Content-Type": "image/png"},
    )  # fmt: skip


@pytest.mark.timeout(480)
def test_a_wiped_system_is_restored_and_finishes_what_was_in_flight(
    fresh_system: System, bundle: Path, tmp_path: Path
) -> None:
    system = fresh_system
    uploads = Uploads.of_a_new_recipe(system.url, bundle, seed=1)
    with httpx.Client(base_url=system.url, timeout=70) as http:
        keyed = upload(http, uploads.recipe, "before-the-backup").json()["id"]
        uploads.accepted.append(Accepted(UUID(keyed), sha256(IMAGE).hexdigest(), None))
        uploads.send_batch(20)
        assert Target.of(system).oracle.wait_until_final(uploads.ids, 60)
        review = {"verdict": "ok", "reviewer": "Jo", "reason": "dust"}
        assert http.post(f"/v1/inspections/{keyed}/reviews", json=review).status_code == 201
        early, cursor = read_feed(http, None)
        acknowledgement = {"consumer": "mes", "cursor": cursor}
        assert http.post("/v1/results/acknowledge", json=acknowledgement).status_code == 200
        system.child("worker.scoring").suspend()  # so that work is in flight
        with uploads.running(40):
            uploads.wait_for(60)
            saved = command(system, "backup", str(tmp_path / "backups"))
            uploads.wait_for(len(uploads.accepted) + 20)
    assert uploads.errors == []
    rows = saved["rows"]
    assert isinstance(rows, dict)
    assert rows["work"] > 0
    wipe(system)

    assert command(system, "restore", str(tmp_path / "backups"))["rows"] == rows
    system.restart()
    oracle = Target.of(system).oracle
    uploads.accepted = [one for one in uploads.accepted if one.id in ids_of(oracle)]
    assert len(uploads.accepted) == rows["inspections"] + rows["work"]
    oracle.require_final(uploads.ids, 90)
    assert oracle.faults_of(uploads.accepted, uploads.recipe) == []
    assert {name: rows_of(oracle, name) for name in UNCHANGED} == {name: rows[name] for name in UNCHANGED}
    with httpx.Client(base_url=system.url, timeout=70) as http:
        inspection = http.get(f"/v1/inspections/{keyed}").json()
        assert (inspection["effective_verdict"], inspection["reviews"][0]["reviewer"]) == ("ok", "Jo")
        assert upload(http, uploads.recipe, "before-the-backup").json()["id"] == keyed
        for reader in ({"after": cursor}, {"consumer": "mes"}):
            lost = http.get("/v1/results", params=reader)
            assert (lost.status_code, lost.json()["code"]) == (410, "cursor_epoch")
            late, _ = read_feed(http, lost.json()["resume_after"])
            assert sorted(early + late) == sorted(uploads.ids)


def wipe(system: System) -> None:
    """Kill the system and delete its data."""
    family = psutil.Process(system.process.pid).children(recursive=True)
    system.process.send_signal(signal.SIGKILL)
    system.process.wait()
    assert psutil.wait_procs(family, timeout=60)[1] == []
    shutil.rmtree(system.data)


def ids_of(oracle: Oracle) -> set[UUID]:
    with oracle.connection() as connection:
        return set(connection.execute(text("SELECT id FROM inspections UNION ALL SELECT id FROM work")).scalars())


def rows_of(oracle: Oracle, name: str) -> int:
    with oracle.connection() as connection:
        return int(connection.execute(select(func.count()).select_from(table(name))).scalar_one())
