"""Linewatch with all its guarantees: `linewatch up` with servers that sync to the disk."""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import Engine, text

from core.database import create_unbounded
from core.settings import Settings
from linewatch import Client
from linewatch.server.embedded.servers import EmbeddedServers

RECIPE = "bench"
PATH = f"/v1/inspections?recipe={RECIPE}"
_READY_SECONDS = 120
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class System:
    """A running system.

    Attributes:
        url: of the API.
        process: `linewatch up`.
        roots: the ids of the processes that the system consists of, with their descendants.
        engine: of its database, to see when everything is scored.
    """

    url: str
    process: "subprocess.Popen[str]"
    roots: list[int]
    engine: Engine

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def wait_until_scored(self) -> float:
        """Wait until no inspection is in flight. Returns the time (`time.time`) of the last verdict."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while connection.execute(text("SELECT EXISTS (SELECT FROM work)")).scalar_one():
                time.sleep(_POLL_SECONDS)
            newest = text(
                "SELECT extract(epoch FROM max(finished_at)) FROM (SELECT finished_at FROM inspections "
                "ORDER BY id DESC LIMIT 1000) AS _"
            )
            return float(connection.execute(newest).scalar_one())


@contextmanager
def running(bundle: Path, *arguments: str) -> Iterator[System]:
    """Run a system whose recipe `bench` scores with this bundle, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="lw-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with EmbeddedServers(folder / "servers") as servers:
            yield from _run(servers, folder, bundle, arguments)


def _run(servers: EmbeddedServers, folder: Path, bundle: Path, arguments: tuple[str, ...]) -> Iterator[System]:
    import os

    command = [sys.executable, "-m", "linewatch.cli", "up", "--port", "0", "--data", str(folder / "data"), *arguments]
    environment = {
        **os.environ,
        "LINEWATCH_DATABASE_URL": servers.database_url,
        "LINEWATCH_REDIS_URL": servers.redis_url,
    }
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("ready: "):
            raise RuntimeError((folder / "log").read_text())
        try:
            url = line.removeprefix("ready: ").strip()
            with Client(url, timeout=120) as lw:
                lw.create_recipe(RECIPE, exist_ok=True)
                lw.upload_bundle(RECIPE, bundle)
            engine = create_unbounded(Settings(database_url=SecretStr(servers.database_url)), name="bench")
            roots = [process.pid, servers.postgres.pid, servers.valkey.pid]
            yield System(url, process, roots, engine)
            engine.dispose()
        finally:
            process.send_signal(signal.SIGTERM)
