"""Linewatch with all its guarantees: `linewatch up` with servers that sync to the disk."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.speed import feed
from benchmarks.speed.contender import Contender, environment
from benchmarks.speed.load import Target
from benchmarks.speed.scratch import new_folder
from linewatch import Client
from linewatch.server.embedded.servers import EmbeddedServers

RECIPE: Final = "bench"


@contextmanager
def running(bundle: Path) -> Iterator[Contender]:
    """Run a system whose recipe scores with this bundle, in a temporary folder."""
    folder = new_folder()
    with EmbeddedServers(folder / "servers") as servers, up(servers, folder) as (url, process):
        with Client(url, timeout=120) as lw:
            lw.create_recipe(RECIPE, exist_ok=True)
            lw.upload_bundle(RECIPE, bundle)
        port = int(url.rpartition(":")[2])
        yield Contender(
            Target(port, f"/v1/inspections?recipe={RECIPE}"),
            {process.pid: "supervisor", servers.postgres.pid: "PostgreSQL", servers.valkey.pid: "Valkey"},
            partial(feed.follow, port),
            "`linewatch up` without options; servers that sync to the disk",
        )


@contextmanager
def up(servers: EmbeddedServers, folder: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Run `linewatch up`. Yields its address and its process."""
    command = [sys.executable, "-m", "linewatch.cli", "up", "--port", "0", "--data", str(folder / "data")]
    variables = environment(LINEWATCH_DATABASE_URL=servers.database_url, LINEWATCH_REDIS_URL=servers.redis_url)
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=variables) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line.startswith("ready: "):
                raise RuntimeError((folder / "log").read_text())
            yield line.removeprefix("ready: ").strip(), process
        finally:
            process.send_signal(signal.SIGTERM)
