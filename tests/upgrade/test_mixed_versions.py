"""Processes of the previous release and of this one side by side, on the schema of this one."""

import time
from contextlib import nullcontext
from pathlib import Path

import httpx
import pytest

from migrations.revisions import newest_revision
from tests.fixtures.rolling.load import Load
from tests.fixtures.rolling.plant import Plant
from tests.fixtures.rolling.processes import NEW
from tests.fixtures.running_system import upload_bundle

pytestmark = pytest.mark.timeout(900)

APIS = ("api-1", "api-2")
BURST = 60
RESCORED = 20


def _use_everything(load: Load, another_bundle: Path) -> None:
    """Use what an api has workers do: check a version, draw heatmaps and thumbnails, score again; and a review."""
    inspection = load.uploads.ids[0]
    with httpx.Client(base_url=load.plant.url, timeout=60) as http:
        for product in ("heatmap", "anomaly-map", "thumbnail"):
            answer = http.get(f"/v1/inspections/{inspection}/{product}")
            assert answer.status_code == 200, f"{product}: {answer.text[:300]}"
        review = {"verdict": "ok", "reviewer": "Ada", "reason": "dust"}
        assert http.post(f"/v1/inspections/{inspection}/reviews", json=review).status_code == 201
        assert http.get(f"/v1/inspections/{inspection}").json()["effective_verdict"] == "ok"
        version = upload_bundle(http, load.uploads.recipe, another_bundle, seconds=180)
        where = {"until": http.get(f"/v1/inspections/{load.uploads.ids[RESCORED]}").json()["created_at"]}
        request = {"recipe": load.uploads.recipe, "model_version": version, "source": {"where": where}}
        run = http.post("/v1/rescore-runs", json=request)
        assert run.status_code in (201, 202), run.text
        deadline = time.monotonic() + 120
        while (found := http.get(f"/v1/rescore-runs/{run.json()['id']}?wait=20").json())["status"] != "completed":
            assert found["status"] in ("queued", "running"), found
            assert time.monotonic() < deadline, found
        assert http.get(f"/v1/rescore-runs/{run.json()['id']}/results").json()["items"]


def _drains(code: Path) -> bool:
    return "drain_seconds" in (code / "core" / "settings.py").read_text()


@pytest.mark.parametrize(
    ("apis_are_new", "workers_are_new"),
    [(False, False), (False, True), (True, False), (True, True)],
    ids=["all old", "old api, new workers", "new api, old workers", "all new"],
)
def test_a_burst(
    plant: Plant,
    previous: Path,
    bundle: Path,
    another_bundle: Path,
    closing_lines: list[str],
    request: pytest.FixtureRequest,
    apis_are_new: bool,
    workers_are_new: bool,
) -> None:
    plant.migrate(NEW)
    apis, workers = (NEW if new else previous for new in (apis_are_new, workers_are_new))
    plant.start({name: apis if name in APIS else workers for name in plant.services})
    with Load.on(plant, bundle, per_second=10) as load:
        load.uploads.send_batch(BURST)
        load.go_on(BURST)
        _use_everything(load, another_bundle)
    assert load.faults() == []
    closing_lines.append(f"{request.node.callspec.id}: {load.closing_line()}")
    plant.stop()


def test_a_rolling_upgrade_and_the_way_back(
    plant: Plant, previous: Path, bundle: Path, another_bundle: Path, closing_lines: list[str]
) -> None:
    """The previous release runs under load; the database is migrated, and each process is replaced, and again back."""
    plant.migrate(previous)
    plant.start(dict.fromkeys(plant.services, previous))
    with Load.on(plant, bundle, per_second=10) as load:
        plant.migrate(NEW)
        load.go_on(10)
        for code in (NEW, previous):
            for name in plant.services:
                # New code cannot mend this: when an api that does not drain ends, it may cut off a request.
                may_cut_off = code == NEW and name in APIS and not _drains(previous)
                with load.excusing() if may_cut_off else nullcontext():
                    plant.restart(name, code)
                    load.go_on(10)
                load.restarts += 1
            _use_everything(load, another_bundle)
    assert load.faults() == []
    closing_lines.append(f"a rolling upgrade and the way back: {load.closing_line()}")
    plant.stop()


def test_this_code_waits_for_the_migration(plant: Plant, previous: Path, bundle: Path) -> None:
    plant.migrate(previous)
    old_schema = plant.schema()
    for service in plant.services.values():
        service.start(NEW)
    api = plant.services["api-1"]
    newest = newest_revision()
    if old_schema != newest:
        refused = api.wait_for_answer("/readyz")
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert f"{old_schema}; this version needs {newest}" in refused.json()["detail"]
        upload = api.wait_for_answer("/v1/inspections")
        assert (upload.status_code, upload.json()["code"]) == (503, "not_ready")
        assert api.wait_for_answer("/healthz").status_code == 200
        for name in set(plant.services) - set(APIS):
            plant.services[name].wait_for_log("Run `linewatch migrate`.")
        assert plant.schema() == old_schema
        plant.migrate(NEW)
    for service in plant.services.values():
        service.wait_until_ready()
    with Load.on(plant, bundle, per_second=10) as load:
        load.go_on(10)
    assert load.faults() == []
    plant.stop()
