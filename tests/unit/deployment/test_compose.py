"""The Dockerfile and docker-compose.yml match the code. Needs no container engine."""

import re
import tomllib
from collections.abc import Iterator

import pytest
from packaging.specifiers import SpecifierSet

from api import services
from core.queue.broker import IO_QUEUE, SCORING_QUEUES, TRAINING_QUEUE
from core.settings import Settings
from migrations.__main__ import OLDEST_SERVER
from tests.fixtures.compose import COMPOSE, DOCUMENT, LINEWATCH_SERVICES, PASSWORD, ROOT, SERVICES, command
from worker import dispatcher, io, training
from worker.delivery import webhooks

DOCKERFILE = (ROOT / "Dockerfile").read_text()
VARIABLE = re.compile(r"LINEWATCH_\w+")


def option(service: str, name: str) -> str:
    words = command(service)
    return words[words.index(name) + 1]


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
    expected = {"postgres", "redis", "migrate", "api", "scoring-gpu", "scoring-cpu", "io", "training", "dispatcher"}
    assert SERVICES.keys() == expected


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
    worker, api = sorted(re.findall(r'"([^"]*)"', words) for words in instructions("CMD"))
    assert worker == command("scoring-gpu") == command("scoring-cpu")
    assert api == command("api")


def test_every_variable_is_a_setting() -> None:
    names = {f"LINEWATCH_{name.upper()}" for name in Settings.model_fields}
    assert set(VARIABLE.findall(COMPOSE + DOCKERFILE)) <= names


@pytest.mark.parametrize("service", LINEWATCH_SERVICES)
def test_variables_are_valid_settings(service: str) -> None:
    service_settings = settings(service)
    volume, _, folder = SERVICES[service]["volumes"][0].partition(":")
    assert (volume, f"file://{folder}") == ("store", service_settings.store_url)
    assert re.search(rf"install --directory --owner linewatch .* {folder}\b", DOCKERFILE)


def test_the_api_requires_keys_and_is_published_on_loopback_only() -> None:
    service_settings = settings("api")
    assert service_settings.auth_required
    published = {service: SERVICES[service]["ports"] for service in SERVICES if "ports" in SERVICES[service]}
    assert published == {"api": [f"127.0.0.1:8000:{service_settings.port}"]}
    assert f":{service_settings.port}/readyz" in SERVICES["api"]["healthcheck"]["test"][-1]


def test_the_health_check_of_workers_is_the_ready_file() -> None:
    for service in ("scoring-gpu", "scoring-cpu", "io", "training"):
        assert SERVICES[service]["healthcheck"]["test"] == ["CMD", "test", "-f", str(settings(service).ready_file)]


def test_postgres_has_the_oldest_supported_version_and_a_volume() -> None:
    assert SERVICES["postgres"]["image"] == f"postgres:{OLDEST_SERVER // 10000}"
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
    assert profiles == {"scoring-gpu": ["gpu"], "scoring-cpu": ["cpu"], "training": ["cpu", "gpu"]}
    assert settings("scoring-gpu").device == "cuda"
    assert settings("scoring-cpu").device == "cpu"


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
    (version,) = re.findall(r"^FROM python:([\d.]+)", DOCKERFILE, re.MULTILINE)
    assert version in SpecifierSet(project["project"]["requires-python"])
    (path,) = re.findall(r"PYTHONPATH=(\S+)", DOCKERFILE)
    assert path == f"/opt/linewatch/lib/python{version}/site-packages/linewatch/server/lib"


@pytest.mark.parametrize("service", ["scoring-gpu", "scoring-cpu", "io"])
def test_workers_mount_the_archive_read_only(service: str) -> None:
    mounted = SERVICES[service]["volumes"][1].rpartition("}")[2] or SERVICES[service]["volumes"][1]
    assert mounted.endswith(f":{settings(service).archive_roots}:ro")
    assert settings("api").archive_roots == settings(service).archive_roots
