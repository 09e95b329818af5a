"""The services of docker-compose.yml on CPUs: a burst, faults, backups, and what the containers may do."""

import json
import time
from pathlib import Path

import httpx
import pytest

from tests.fixtures.compose import LINEWATCH_SERVICES
from tests.fixtures.containers import Services, run
from tests.fixtures.faults.steady_uploads import Uploads
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png

RUNNING = sorted(set(LINEWATCH_SERVICES) - {"migrate", "scoring-gpu"})
FINAL_SECONDS = 120
IMAGES = 500


@pytest.fixture
def uploads(services: Services, bundle: Path) -> Uploads:
    """Uploads of a recipe for this test alone."""
    return Uploads.of_a_new_recipe(services.url, bundle, seed=1, headers=services.headers)


def verify(services: Services, uploads: Uploads) -> None:
    assert uploads.errors == []
    oracle = services.project.oracle()
    oracle.require_final(uploads.ids, FINAL_SECONDS)
    assert oracle.faults_of(uploads.accepted, uploads.recipe) == []


@pytest.mark.parametrize("service", RUNNING)
def test_a_container_has_no_privileges(services: Services, service: str) -> None:
    template = "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}}"
    assert services.project.inspect(service, template) == "10001:10001 true [ALL] [no-new-privileges:true]"
    # The first process is the init; the second one is ours.
    status = services.project.compose(
        "exec", "-T", service, "sh", "-c", "cat /proc/[0-9]*/status; touch /opt/x || id -u"
    )
    assert status.rstrip().endswith("\n10001")
    assert {line.split()[1] for line in status.splitlines() if line.startswith("CapEff")} == {"0" * 16}
    assert {line.split()[1] for line in status.splitlines() if line.startswith("Uid")} == {"10001"}


def test_requests_need_a_key(services: Services) -> None:
    assert httpx.get(f"{services.url}/v1/recipes").status_code == 401
    assert httpx.get(f"{services.url}/readyz").status_code == 200


def test_a_burst_of_real_images(services: Services, uploads: Uploads, cells: list[bytes], report: list[str]) -> None:
    images = cells[:IMAGES]
    files = [("images", (f"{number}.png", data, "image/png")) for number, data in enumerate(images)]
    with services.client() as client:
        begun = time.monotonic()
        answer = client.post("/v1/batches", data={"recipe": uploads.recipe}, files=files)
        accepted = time.monotonic() - begun
        assert answer.status_code == 202, answer.text
        while (batch := client.get(answer.headers["Location"], params={"wait": 60}).json())["status"] != "completed":
            assert time.monotonic() < begun + FINAL_SECONDS, batch
        seconds = time.monotonic() - begun
    counts = batch["counts"]
    assert (counts["total"], counts["completed"], counts["failed"]) == (len(images), len(images), 0)
    report.append(
        f"burst: {len(images)} real images accepted in {accepted:.1f} s, completed after {seconds:.1f} s "
        f"({counts['ok']} ok, {counts['ng']} ng)"
    )


@pytest.mark.parametrize("service", ["api", "scoring-cpu", "io", "dispatcher", "redis", "postgres"])
@pytest.mark.parametrize("fault", ["kill", "restart"])
def test_nothing_is_lost_without_a_service(
    services: Services, uploads: Uploads, service: str, fault: str, report: list[str]
) -> None:
    project = services.project
    with uploads.running(20):
        uploads.wait_for(40)
        started = project.inspect(service, "{{.State.StartedAt}}")
        if fault == "kill":
            project.kill(service)
        else:
            project.compose("restart", service)
        begun, before = time.monotonic(), len(uploads.accepted)
        while project.inspect(service, "{{.State.StartedAt}}") == started:
            assert time.monotonic() < begun + 60, f"{service} was not started again"
            time.sleep(0.2)
        project.wait_until_healthy(service)
        uploads.wait_for(before + 60)
    verify(services, uploads)
    report.append(f"{fault} {service}: {len(uploads.accepted)} accepted, all final once, oracle: no faults")


def test_a_backup_is_restored(services: Services, uploads: Uploads, reachable_folder: Path, report: list[str]) -> None:
    folder = reachable_folder / "backups"
    folder.mkdir()
    folder.chmod(0o777)
    project, volume = services.project, f"{folder}:/backups"
    with services.client() as client:
        kept = final(client, submit(client, uploads.recipe, png(1))["id"])
        project.linewatch("backup", "/backups", volume=volume)
        later = final(client, submit(client, uploads.recipe, png(2))["id"])
        project.compose("down", "--volumes")  # everything is gone
        project.compose("up", "--detach", "--wait", "postgres", "redis")
        printed = project.linewatch("restore", "/backups", volume=volume)
        project.compose("up", "--detach", "--wait", "--wait-timeout", "300")
        assert client.get(f"/v1/inspections/{kept['id']}").json() == kept
        assert client.get(f"/v1/inspections/{kept['id']}/image").content == png(1)
        assert client.get(f"/v1/inspections/{later['id']}").status_code == 404
        again = final(client, submit(client, uploads.recipe, png(2))["id"])
        assert again["anomaly_score"] == later["anomaly_score"]
    restored = dict(
        line.rsplit(maxsplit=1) for line in printed.splitlines() if line.split()[-1:] and line[-1].isdigit()
    )
    report.append(f"backup and restore: {restored}")


def test_the_doctor_finds_no_error(services: Services) -> None:
    printed = services.project.compose("exec", "-T", "io", "linewatch", "doctor", "--json", "--url", "http://api:8000")
    levels = {one["what"]: one["level"] for one in json.loads(printed)["findings"]}
    assert "error" not in levels.values()
    assert levels["api"] != "note"  # it answers


def test_logs_of_containers_are_bounded(services: Services) -> None:
    for service in RUNNING:
        assert services.project.inspect(service, "{{.HostConfig.LogConfig.Type}}") == "local"


def test_redis_shows_no_password(services: Services) -> None:
    shown = run("docker", "top", services.project.container("redis"), "-o", "pid,args")
    assert "redis-server" in shown
    assert "secret" not in shown
