"""Real servers and a real running system for the tests. A missing wheel fails them; nothing is skipped."""

import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

import httpx
import hypothesis
import psutil
import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from core.database import create_pool, create_unbounded
from core.settings import Settings
from core.vision.bundle.tar import pack
from linewatch.server.embedded.servers import EmbeddedServers
from migrations.__main__ import migrate
from tests.fixtures.part_images import write_bundle

hypothesis.settings.register_profile("linewatch", deadline=None)  # how busy the machine is proves nothing
hypothesis.settings.load_profile("linewatch")

READY_SECONDS = 120
LEASE_SECONDS = 6


@pytest.fixture(scope="session", autouse=True)
def _own_settings() -> None:
    """Settings of whoever runs the tests mean nothing here."""
    for name in [name for name in os.environ if name.startswith("LINEWATCH_")]:
        del os.environ[name]


@pytest.fixture(scope="session")
def reachable_folder() -> Iterator[Path]:
    """A folder that the servers' account can reach; pytest's own is below one that only its owner enters."""
    with tempfile.TemporaryDirectory(prefix="lw-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="session")
def servers(reachable_folder: Path) -> Iterator[EmbeddedServers]:
    """PostgreSQL and Valkey, without anything of Linewatch."""
    with EmbeddedServers(reachable_folder / "servers", fsync=False) as running:
        yield running


def _settings(database_url: str, redis_url: str, store: Path) -> Settings:
    return Settings(
        database_url=SecretStr(database_url),
        redis_url=SecretStr(redis_url),
        store_url=f"file://{store}",
        lease_seconds=LEASE_SECONDS,
    )


@pytest.fixture(scope="session")
def databases(servers: EmbeddedServers, reachable_folder: Path) -> Iterator[Callable[[str], None]]:
    """`databases(statement)` creates or drops one."""
    settings = _settings(servers.database_url, servers.redis_url, reachable_folder)
    engine = create_unbounded(settings, name="tests").execution_options(isolation_level="AUTOCOMMIT")

    def execute(statement: str) -> None:
        with engine.connect() as connection:
            connection.execute(text(statement))

    yield execute
    engine.dispose()


@pytest.fixture(scope="session")
def template(databases: Callable[[str], None], servers: EmbeddedServers, reachable_folder: Path) -> str:
    """A migrated database to copy."""
    name = "template_of_tests"
    databases(f"CREATE DATABASE {name}")
    own = make_url(servers.database_url).set(database=name).render_as_string(hide_password=False)
    engine = create_unbounded(_settings(own, servers.redis_url, reachable_folder), name="tests")
    migrate(engine)
    engine.dispose()
    return name


@pytest.fixture
def settings(
    databases: Callable[[str], None], servers: EmbeddedServers, template: str, tmp_path: Path
) -> Iterator[Settings]:
    """Settings with a fresh migrated database and an empty Valkey."""
    name = f"test_{uuid4().hex}"
    databases(f"CREATE DATABASE {name} TEMPLATE {template}")
    with redis.Redis.from_url(servers.redis_url) as queues:
        queues.flushall()
    url = make_url(servers.database_url).set(database=name).render_as_string(hide_password=False)
    yield _settings(url, servers.redis_url, tmp_path / "store")
    databases(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """Connections to the fresh database."""
    pool = create_pool(settings, size=12, name="tests")
    yield pool
    pool.dispose()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the reference network."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "first")


@pytest.fixture(scope="session")
def another_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one, with other weights and another threshold."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "second", seed=1, threshold=0.5)


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class System:
    """A running `linewatch up`."""

    url: str
    data: Path
    process: subprocess.Popen[str]
    webhook_port: int
    """Of this machine; webhooks may go there, and nobody listens yet."""

    def child(self, words: str) -> psutil.Process:
        """The child process whose command line holds these words."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for child in psutil.Process(self.process.pid).children():
                try:
                    if words in " ".join(child.cmdline()):
                        return child
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.1)
        raise AssertionError(f"no child runs {words!r}")

    def wait_until_ready(self) -> None:
        """Wait until uploads are accepted."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError("the api is not ready")


@pytest.fixture(scope="session")
def system(reachable_folder: Path) -> Iterator[System]:
    """The whole system, started as a person would start it. Tests keep out of each other's way by recipe."""
    data = reachable_folder / "system"
    log = reachable_folder / "system.log"
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LINEWATCH_")}
    environment |= {"LINEWATCH_LEASE_SECONDS": str(LEASE_SECONDS), "LINEWATCH_MAX_UPLOAD_BYTES": "1000000"}
    webhook_port = free_port()
    environment |= {"LINEWATCH_MAX_IMAGE_PIXELS": "4000000", "LINEWATCH_WEBHOOK_ALLOW": f"127.0.0.1:{webhook_port}"}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "linewatch.cli", "up", "--port", str(port), "--data", str(data), "--device", "cpu"],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if line.strip() != f"ready: http://127.0.0.1:{port}":
            process.kill()
            process.wait()
            process.stdout.close()
            pytest.fail(f"the system did not start: {line!r}\n{log.read_text()[-4000:]}")
        yield System(f"http://127.0.0.1:{port}", data, process, webhook_port)
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(40) == 0
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@dataclass(frozen=True)
class Api:
    """An api process, and a client of it."""

    process: subprocess.Popen[bytes]
    http: httpx.Client


@contextmanager
def serving(settings: Settings, **own: str) -> Iterator[httpx.Client]:
    """An api of one's own, without workers, with settings of one's own."""
    with api_process(settings, output=None, **own) as api:
        yield api.http


@contextmanager
def api_process(settings: Settings, *, output: IO[bytes] | None = None, **own: str) -> Iterator[Api]:
    """The same, for tests that do something to the process; `output` takes what it prints."""
    port = int(own.get("LINEWATCH_PORT") or free_port())
    environment = os.environ | {
        "LINEWATCH_DATABASE_URL": settings.database_url.get_secret_value(),
        "LINEWATCH_REDIS_URL": settings.redis_url.get_secret_value(),
        "LINEWATCH_STORE_URL": settings.store_url,
        "LINEWATCH_LEASE_SECONDS": str(settings.lease_seconds),
        "LINEWATCH_PORT": str(port),
        **own,
    }
    process = subprocess.Popen([sys.executable, "-m", "api"], env=environment, stdout=output, stderr=output)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            deadline = time.monotonic() + READY_SECONDS
            while time.monotonic() < deadline:
                try:
                    http.get("/healthz")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            else:
                raise AssertionError("the api did not start")
            yield Api(process, http)
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def client(system: System) -> Iterator[httpx.Client]:
    """A client of the running system that knows nothing of Linewatch."""
    with httpx.Client(base_url=system.url, timeout=70) as http:
        yield http


def upload_bundle(client: httpx.Client, recipe: str, folder: Path) -> int:
    """Upload a bundle, wait until a worker has decided, and return the number of the ready version."""
    packed = io.BytesIO()
    pack(folder, packed)
    answer = client.post(
        f"/v1/recipes/{recipe}/model-versions",
        content=packed.getvalue(),
        headers={"Content-Type": "application/x-tar"},
    )
    assert answer.status_code in (200, 201), answer.text
    version: int = answer.json()["version"]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = client.get(f"/v1/recipes/{recipe}/model-versions/{version}").json()
        if found["state"] != "uploaded":
            assert found["state"] == "ready", found["rejection"]
            return version
        time.sleep(0.1)
    raise AssertionError("no worker has checked the version")


@pytest.fixture
def recipe(client: httpx.Client, bundle: Path) -> str:
    """A recipe of this test's own, with an active version."""
    name = f"recipe-{uuid4().hex[:12]}"
    assert client.post("/v1/recipes", json={"name": name}).status_code == 201
    upload_bundle(client, name, bundle)
    return name


@pytest.fixture
def default_recipe(client: httpx.Client, bundle: Path) -> str:
    """The recipe of uploads that name none, with an active version."""
    client.post("/v1/recipes", json={"name": "default"})
    upload_bundle(client, "default", bundle)
    return "default"
