"""The settings of commands that access the servers directly, including the servers that `up` started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from core.settings import Settings, settings
from linewatch.server.embedded import UpError
from linewatch.server.embedded.data import absolute, is_in_use, server_account, socket_folder
from linewatch.server.embedded.postgres import Postgres
from linewatch.server.embedded.servers import EmbeddedServers
from linewatch.server.embedded.valkey import Valkey
from linewatch.server.up import default_data_directory


def settings_of(data: Path | None) -> Settings:
    """Return the settings, completed with the embedded servers of a data directory of `linewatch up`.

    Environment variables win over the embedded servers.

    Raises:
        UpError: `data` is not a data directory.
    """
    configured = settings()
    folder = absolute(default_data_directory() if data is None else data)
    if data is not None and not folder.is_dir():
        raise UpError(
            f"--data {data}: this folder does not exist; name the data directory of a `linewatch up`", exit_code=2
        )
    if not (folder / "postgres").is_dir():
        if data is not None and "LINEWATCH_DATABASE_URL" not in os.environ:
            raise UpError(f"--data {data}: this folder has no database of a `linewatch up`", exit_code=2)
        return configured
    account = server_account(folder)
    sockets = socket_folder(folder, account)
    embedded: dict[str, object] = {}
    if "LINEWATCH_DATABASE_URL" not in os.environ:
        embedded["database_url"] = SecretStr(Postgres(folder, account, sockets).url)
    if "LINEWATCH_REDIS_URL" not in os.environ:
        embedded["redis_url"] = SecretStr(Valkey(folder, account, sockets).url)
    if "LINEWATCH_STORE_URL" not in os.environ:
        embedded["store_url"] = (folder / "store").as_uri()
    if "LINEWATCH_ARCHIVE_ROOTS" not in os.environ:
        embedded["archive_roots"] = (folder / "archive").as_uri()
    if "LINEWATCH_SCRATCH" not in os.environ and (folder / "scratch").is_dir():
        embedded["scratch"] = folder / "scratch"
    return configured.model_copy(update=embedded)


@contextmanager
def started_servers(data: Path | None) -> Iterator[Settings]:
    """Yield the settings, as `settings_of` returns them, of running servers.

    While no `linewatch up` runs on the data directory, its servers are started for the block.

    Raises:
        UpError: as `settings_of`, or a server does not start.
    """
    settings = settings_of(data)
    folder = absolute(default_data_directory() if data is None else data)
    is_own = "LINEWATCH_DATABASE_URL" in os.environ or not (folder / "postgres").is_dir()
    if is_own or is_in_use(folder):
        yield settings
        return
    with EmbeddedServers(folder):
        yield settings
