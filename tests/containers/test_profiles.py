"""The profiles `s3` and `monitoring` of docker-compose.yml."""

import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from obstore.store import S3Store

from tests.fixtures.containers import Project, Services
from tests.fixtures.faults.steady_uploads import Uploads
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png

SCRAPED = ("api", "dispatcher", "io", "scoring-cpu", "training")
ACCESS = {"AWS_ACCESS_KEY_ID": "linewatch", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
BUCKET = {"LINEWATCH_STORE_URL": "s3://linewatch", "AWS_ENDPOINT_URL": "http://s3:8333", "AWS_ALLOW_HTTP": "true"}


@pytest.fixture(scope="module")
def services(project: Project, python_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Services with a bucket. Their images are those of `project`."""
    variables = {"TAG": "new", "COMPOSE_PROFILES": "cpu,s3", **ACCESS, **BUCKET}
    with Project.of_working_tree(tmp_path_factory.mktemp("s3"), python_image, **variables).running() as services:
        yield services


@pytest.fixture(scope="module")
def uploads(services: Services, bundle: Path) -> Uploads:
    return Uploads.of_a_new_recipe(services.url, bundle, seed=3, headers=services.headers)


def test_images_are_in_the_bucket_only(services: Services, uploads: Uploads) -> None:
    image = png(1)
    with services.client() as client:
        done = final(client, submit(client, uploads.recipe, image)["id"])
        assert done["status"] == "completed"
        assert client.get(f"/v1/inspections/{done['id']}/image").content == image
    endpoint = f"http://{services.project.address('s3')}:8333"
    store = S3Store(
        "linewatch",
        endpoint=endpoint,
        access_key_id=ACCESS["AWS_ACCESS_KEY_ID"],
        secret_access_key=ACCESS["AWS_SECRET_ACCESS_KEY"],
        region=ACCESS["AWS_REGION"],
        client_options={"allow_http": True},
    )
    stored = {one["path"] for page in store.list() for one in page}
    assert any(path.endswith(sha256(image).hexdigest()) for path in stored)
    assert services.project.compose("exec", "-T", "api", "find", "/var/lib/linewatch/store", "-type", "f") == ""


def test_nothing_is_lost_without_the_bucket(services: Services, uploads: Uploads, report: list[str]) -> None:
    with uploads.running(20):
        before = uploads.wait_for(40)
        services.project.kill("s3")
        uploads.wait_for(len(before) + 60)
    services.project.wait_until_healthy("s3")
    assert uploads.errors == []
    services.project.oracle().require_final(uploads.ids, 120)
    report.append(f"kill s3: {len(uploads.accepted)} accepted, all final")


def test_prometheus_scrapes_every_process_and_evaluates_the_alerts(services: Services, report: list[str]) -> None:
    project = services.project
    key = project.linewatch("keys", "create", "prometheus", "--scope", "read").split()[-1]
    with (project.folder / ".env").open("a") as environment:
        environment.write(f"PROMETHEUS_API_KEY={key}\nCOMPOSE_PROFILES=cpu,s3,monitoring\n")
        environment.write("PROMETHEUS_PUBLISH=127.0.0.1:0\n")
    project.compose("up", "--detach", "--wait", "--no-deps", "prometheus")
    with httpx.Client(base_url=f"http://{project.address('prometheus')}:9090/api/v1", timeout=10) as prometheus:

        def asked(path: str, **parameters: str) -> Any:
            return prometheus.get(path, params=parameters).raise_for_status().json()["data"]

        expected = {project.address(service) for service in SCRAPED}
        deadline = time.monotonic() + 120
        while True:
            targets = asked("/targets", state="active")["activeTargets"]
            up = {one["labels"]["instance"].partition(":")[0] for one in targets if one["health"] == "up"}
            if up == expected and asked("/query", query="linewatch_database_up")["result"]:
                break
            assert time.monotonic() < deadline, [(one["scrapeUrl"], one["lastError"]) for one in targets]
            time.sleep(1)
        rules = [rule for group in asked("/rules")["groups"] for rule in group["rules"]]
        assert len(rules) >= 20
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}  # unknown until the first evaluation
    report.append(f"monitoring: {len(up)} processes scraped, {len(rules)} alerts")
