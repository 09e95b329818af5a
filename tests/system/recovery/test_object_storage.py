"""The whole system with a bucket as its image store: from upload to verdict, heatmap and training; outage and move."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fixtures.part_images import png
from tests.fixtures.running_system import System, upload_bundle
from tests.fixtures.s3_server import S3Server, running_s3_server
from tests.fixtures.system_health import faults

PNG = {"Content-Type": "image/png"}
TRAINING = {"architecture": "feature-gaussian", "input_size": 32, "false_reject_rate": 0.1}


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """A server that the tests may kill and start."""
    with (
        tempfile.TemporaryDirectory(prefix="lw-s3-", ignore_cleanup_errors=True) as folder,
        running_s3_server(Path(folder)) as running,
    ):
        yield running


def submit(http: httpx.Client, seed: int) -> str:
    """Submit an image and return the address of its inspection."""
    answer = http.post("/v1/inspections?recipe=ring", content=png(seed), headers=PNG)
    assert answer.status_code == 202, answer.text
    return answer.headers["Location"]


def status(http: httpx.Client, address: str, *, wait: int = 60) -> str:
    """Return the status of an inspection once it is final, or after some seconds."""
    status: str = http.get(address, params={"wait": wait}).json()["status"]
    return status


def finished_training(http: httpx.Client) -> dict[str, object]:
    runs = "/v1/recipes/ring/training-runs"
    run_id = http.post(runs, json={"options": TRAINING}).json()["id"]
    files = [("images", (f"{seed}.png", png(seed))) for seed in range(12)]
    http.post(f"{runs}/{run_id}/images", files=files).raise_for_status()
    http.post(f"{runs}/{run_id}/start").raise_for_status()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        run: dict[str, object] = http.get(f"{runs}/{run_id}", params={"wait": "20"}).json()
        if run["status"] in ("completed", "failed", "cancelled"):
            assert http.get(f"{runs}/{run_id}/report").status_code == 200
            return run
    raise AssertionError("the training did not end")


@pytest.mark.timeout(400)
def test_a_system_works_on_a_bucket_and_outlives_its_outage(
    server: S3Server, reachable_folder: Path, bundle: Path
) -> None:
    folder = reachable_folder / "object-storage"
    folder.mkdir()
    variables = {"LINEWATCH_STORE_URL": f"s3://{server.bucket}/system", "LINEWATCH_TRAINING_NICENESS": "0"}
    with (
        System.running(folder, **variables, **server.environment) as system,
        httpx.Client(base_url=system.url, timeout=70) as http,
    ):
        http.post("/v1/recipes", json={"name": "ring"}).raise_for_status()
        upload_bundle(http, "ring", bundle)
        address = submit(http, 1)
        assert status(http, address) == "completed"
        assert http.get(f"{address}/image").content == png(1)
        assert http.get(f"{address}/heatmap").content.startswith(b"\x89PNG")
        assert http.get(f"{address}/thumbnail").content.startswith(b"\xff\xd8")
        assert http.get("/v1/recipes/ring/model-versions/1/bundle").status_code == 200
        assert faults(http.get("/v1/system").json()) == []
        assert finished_training(http)["status"] == "completed"

        worker = system.child("worker.scoring")
        worker.suspend()
        accepted = [submit(http, seed) for seed in range(2, 6)]
        server.kill()
        worker.resume()
        assert status(http, accepted[0], wait=5) in ("queued", "running")
        server.start()
        assert {status(http, address) for address in accepted} == {"completed"}
    assert not (folder / "system" / "store").exists()
    assert [path for path in (folder / "system" / "scratch").rglob("*") if path.is_file()] == []


def restart_and_submit(system: System, http: httpx.Client, addresses: list[str]) -> None:
    """Restart a system, submit one more image, and read all of them."""
    system.process.terminate()
    system.restart()
    addresses.append(submit(http, len(addresses) + 1))
    assert status(http, addresses[-1]) == "completed"
    images = [http.get(f"{address}/image").content for address in addresses]
    assert images == [png(seed) for seed in range(1, len(addresses) + 1)]


@pytest.mark.timeout(400)
def test_a_folder_moves_to_a_bucket_while_the_system_is_used(
    server: S3Server, reachable_folder: Path, bundle: Path
) -> None:
    folder = reachable_folder / "moving"
    folder.mkdir()
    with (
        System.running(folder, "--no-training", **server.environment) as system,
        httpx.Client(base_url=system.url, timeout=70) as http,
    ):
        old = folder / "system" / "store"
        http.post("/v1/recipes", json={"name": "ring"}).raise_for_status()
        upload_bundle(http, "ring", bundle)
        addresses = [submit(http, 1)]
        assert status(http, addresses[0]) == "completed"

        system.environment |= {
            "LINEWATCH_STORE_URL": f"s3://{server.bucket}/moved",
            "LINEWATCH_STORE_READ_ALSO": old.as_uri(),
        }
        restart_and_submit(system, http, addresses)
        command = [sys.executable, "-m", "linewatch.cli", "move-store", "--data", str(system.data)]
        subprocess.run(command, env=system.environment, check=True)
        del system.environment["LINEWATCH_STORE_READ_ALSO"]
        shutil.rmtree(old)
        restart_and_submit(system, http, addresses)
