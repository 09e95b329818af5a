"""The Dockerfile and docker-compose.yml match the code. Needs no container engine."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet
from ruamel.yaml import YAML

from api import services
from core.queue.broker import IO_QUEUE, SCORING_QUEUES, TRAINING_QUEUE
from core.settings import Settings
from migrations.__main__ import OLDEST_SERVER
from tests.fixtures.compose import COMPOSE, DOCUMENT, LINEWATCH_SERVICES, PASSWORD, ROOT, SERVERS, SERVICES, command
from worker import dispatcher, io, training
from worker.delivery import webhooks

DOCKERFILE = (ROOT / "Dockerfile").read_text()
VARIABLE = re.compile(r"LINEWATCH_\w+")


def option(service: str, name: str) -> str:
    words = [word for words in command(service) for word in words.split("=", 1)]
    return words[words.index(name) + 1]


def yaml(name: str) -> Any:
    return YAML(typ="safe", pure=True).load((ROOT / "deploy" / name).read_text())


def environment(service: str) -> dict[str, str]:
    variables: dict[str, str] = SERVICES[service]["environment"]
    return variables


def settings(service: str) -> Settings:
    """Return the settings of the service."""
    return Settings.model_validate(
        {name[10:].lower(): value for name, value in environment(service).items() if VARIABLE.match(name)}
    )


def instructions(name: str) -> Iterator[str]:
    return (match[1] for match in re.finditer(rf"^{name} ((?:.*\\\n)*.*)", DOCKERFILE, re.MULTILINE))


def test_all_services_are_defined() -> None:
    ours = {"migrate", "api", "scoring-gpu", "scoring-cpu", "io", "training", "dispatcher"}
    assert SERVICES.keys() == ours | {"postgres", "redis", "s3", "prometheus", "grafana"}
    assert set(LINEWATCH_SERVICES) == ours


def test_services_run_the_image_of_their_target() -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.MULTILINE)
    images = {}
    for service in LINEWATCH_SERVICES:
        target = SERVICES[service]["build"]["target"]
        assert SERVICES[service]["image"] == f"linewatch/{target}:latest"
        assert target in stages
        images[service] = target
    assert {"scoring-gpu": "worker", "scoring-cpu": "worker-cpu", "training": "worker-cpu"}.items() <= images.items()
    assert {images[service] for service in ("migrate", "api", "io", "dispatcher")} == {"api"}


def test_workers_consume_every_queue_in_order() -> None:
    for service in ("scoring-gpu", "scoring-cpu"):
        assert option(service, "--queues") == ",".join(SCORING_QUEUES)
    assert option("io", "--queues") == IO_QUEUE
    assert option("training", "--queues") == TRAINING_QUEUE
    assert option("training", "--concurrency") == "1"


@pytest.mark.parametrize("service", ["scoring-gpu", "scoring-cpu"])
def test_scoring_has_as_many_threads_as_slots(service: str) -> None:
    assert int(option(service, "--concurrency")) == Settings.model_fields["scoring_slots"].default


def test_images_run_the_same_modules_as_compose() -> None:
    worker, api = sorted(re.findall(r'"([^"]*)"', words) for words in instructions("CMD"))  # both workers have the same
    assert worker == command("scoring-gpu") == command("scoring-cpu")
    assert api == command("api")


def test_every_variable_is_a_setting() -> None:
    names = {f"LINEWATCH_{name.upper()}" for name in Settings.model_fields}
    assert set(VARIABLE.findall(COMPOSE + DOCKERFILE)) <= names


@pytest.mark.parametrize("service", LINEWATCH_SERVICES)
def test_variables_are_valid_settings(service: str) -> None:
    service_settings = settings(service)
    volumes = dict(mounted.split(":")[:2] for mounted in SERVICES[service]["volumes"])
    assert f"file://{volumes['store']}" == service_settings.store_url
    assert volumes["scratch"] == str(service_settings.scratch)
    for folder in (volumes["store"], volumes["scratch"]):
        assert re.search(rf"install --directory --owner linewatch (.|\n)*? {folder}\b", DOCKERFILE)


def test_the_api_requires_keys_and_is_published_on_loopback_only() -> None:
    service_settings = settings("api")
    assert service_settings.auth_required
    published = {service: SERVICES[service]["ports"] for service in SERVICES if "ports" in SERVICES[service]}
    assert published.pop("api") == [f"127.0.0.1:8000:{service_settings.port}"]
    assert published == {"prometheus": ["127.0.0.1:9090:9090"], "grafana": ["127.0.0.1:3000:3000"]}
    assert f":{service_settings.port}/readyz" in SERVICES["api"]["healthcheck"]["test"][-1]


def test_the_health_check_of_workers_is_the_ready_file() -> None:
    for service in ("scoring-gpu", "scoring-cpu", "io", "training"):
        assert SERVICES[service]["healthcheck"]["test"] == ["CMD", "test", "-f", str(settings(service).ready_file)]


def test_postgres_has_the_oldest_supported_version_and_a_volume() -> None:
    assert SERVICES["postgres"]["image"].startswith(f"postgres:{OLDEST_SERVER // 10000}.")
    assert SERVICES["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]


def test_postgres_allows_the_documented_number_of_connections() -> None:
    of_heartbeat = 1
    taken = {
        "api": services.POOL_SIZE,
        "scoring worker": 2 * Settings.model_fields["scoring_slots"].default + 1 + of_heartbeat,
        "io worker": io.POOL_SIZE + webhooks._DATABASE_THREADS + of_heartbeat,
        "training worker": training.POOL_SIZE + of_heartbeat,
        "dispatcher": dispatcher.POOL_SIZE + of_heartbeat,
    }
    one_of_each = sum(taken.values())
    with_four_apis = one_of_each + 3 * taken["api"]
    (most,) = re.findall(r"max_connections=(\d+)", SERVICES["postgres"]["command"])
    assert with_four_apis < int(most) - 3
    page = " ".join((ROOT / "docs" / "operations.md").read_text().split())  # without its line breaks
    for name, number in taken.items():
        assert re.search(rf"{name} (takes up to )?{number}\b", page), name
    assert f"{one_of_each} with one of each, {with_four_apis} with `--scale api=4`" in page
    assert f"PostgreSQL's {most} connections" in page


def test_images_of_servers_and_the_base_have_exact_versions() -> None:
    [base] = re.findall(r"^ARG PYTHON_IMAGE=(\S+)", DOCKERFILE, re.MULTILINE)
    for image in (base, *(SERVICES[service]["image"] for service in SERVERS)):
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z]+)*$", image), image


def test_redis_evicts_nothing() -> None:
    assert option("redis", "--maxmemory-policy") == "noeviction"


def test_redis_requires_the_password_that_the_services_send() -> None:
    [config] = SERVICES["redis"]["configs"]
    assert command("redis")[:2] == ["redis-server", config["target"]]
    assert DOCUMENT["configs"][config["source"]]["content"].split() == ["requirepass", PASSWORD]
    for service in LINEWATCH_SERVICES:
        assert settings(service).redis_url.get_secret_value() == f"redis://:{PASSWORD}@redis:6379/0"


def test_no_command_line_shows_a_password() -> None:
    for service in SERVICES.values():
        assert PASSWORD not in str(service.get("command"))


@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "REDIS_PASSWORD"])
def test_a_password_has_no_default(name: str) -> None:
    assert len(re.findall(rf"\$\{{{name}:\?", COMPOSE)) == COMPOSE.count(f"${{{name}") >= 2
    assert "PASSWORD" not in DOCKERFILE


def test_all_services_wait_for_the_migrations() -> None:
    assert SERVICES["migrate"]["restart"] == "no"
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for service in set(LINEWATCH_SERVICES) - {"migrate"}:
        assert SERVICES[service]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_profiles_select_the_scoring_worker() -> None:
    profiles = {service: SERVICES[service]["profiles"] for service in SERVICES if "profiles" in SERVICES[service]}
    assert profiles == {
        "scoring-gpu": ["gpu"],
        "scoring-cpu": ["cpu"],
        "training": ["cpu", "gpu"],
        "s3": ["s3"],
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
    }
    assert settings("scoring-gpu").device == "cuda"
    assert settings("scoring-cpu").device == "cpu"


def test_the_bucket_is_up_before_it_is_used() -> None:
    for service in set(LINEWATCH_SERVICES) - {"migrate"}:
        assert SERVICES[service]["depends_on"]["s3"] == {"condition": "service_healthy", "required": False}


def test_monitoring_uses_the_files_of_deploy() -> None:
    mounted = [volume for service in ("prometheus", "grafana") for volume in SERVICES[service]["volumes"]]
    files = [volume.split(":") for volume in mounted if volume.startswith("./")]
    assert all((ROOT / source).exists() and mode == "ro" for source, _, mode in files)
    targets = {source: target for source, target, _ in files}
    [config] = SERVICES["prometheus"]["configs"]
    scraping = yaml("prometheus/prometheus.yml")["scrape_configs"][0]["authorization"]["credentials_file"]
    assert str(Path(targets["./deploy/prometheus/prometheus.yml"]).with_name(scraping)) == config["target"]
    assert option("prometheus", "--config.file") == targets["./deploy/prometheus/prometheus.yml"]
    [provider] = yaml("grafana/provisioning/dashboards/linewatch.yml")["providers"]
    assert provider["options"]["path"] == str(Path(targets["./deploy/grafana/linewatch.json"]).parent)
    [source] = yaml("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert (source["url"], source["isDefault"]) == ("http://prometheus:9090", True)


def test_nobody_can_change_anything_in_grafana() -> None:
    variables = environment("grafana")
    assert variables["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert variables["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"


def test_training_gives_way_to_scoring() -> None:
    assert SERVICES["training"]["cpu_shares"] < 1024  # the default
    assert settings("training").training_device == "cpu"


@pytest.mark.parametrize("service", LINEWATCH_SERVICES)
def test_services_have_minimal_privileges(service: str) -> None:
    service_settings = SERVICES[service]
    assert service_settings["read_only"]
    assert service_settings["cap_drop"] == ["ALL"]
    assert set(instructions("USER")) == {"10001:10001"}


def test_images_contain_every_package_and_a_supported_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    packages = {path.partition("/")[0] for path in included}
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {f"!{package}" for package in packages} <= set(ignored)
    (version,) = re.findall(r"^ARG PYTHON_IMAGE=python:([\d.]+)-", DOCKERFILE, re.MULTILINE)
    assert version in SpecifierSet(project["project"]["requires-python"])


def test_the_base_image_is_a_build_argument() -> None:
    bases = re.findall(r"^FROM (\S+) AS (\S+)", DOCKERFILE, re.MULTILINE)
    stages = {name for _, name in bases}
    assert [base for base, _ in bases if base not in stages] == ["${PYTHON_IMAGE}"]
    assert not re.search(r"python3\.\d", DOCKERFILE)  # the path of the packages depends on the base
    for service in LINEWATCH_SERVICES:
        assert "PYTHON_IMAGE" in SERVICES[service]["build"]["args"]


@pytest.mark.parametrize("service", ["scoring-gpu", "scoring-cpu", "io"])
def test_workers_mount_the_archive_read_only(service: str) -> None:
    mounted = SERVICES[service]["volumes"][-1]
    assert mounted.endswith(f":{settings(service).archive_roots}:ro")
    assert settings("api").archive_roots == settings(service).archive_roots
