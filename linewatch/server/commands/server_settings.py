"""The settings of commands that work on the servers themselves, also while those are the ones that `up` started."""

import os
from pathlib import Path

from pydantic import SecretStr

from core.settings import Settings, settings
from linewatch.server.embedded import UpError
from linewatch.server.embedded.data import absolute, server_account, socket_folder
from linewatch.server.embedded.postgres import Postgres
from linewatch.server.embedded.valkey import Valkey
from linewatch.server.up import default_data_directory


def settings_of(data: Path | None) -> Settings:
    """The settings; servers that they do not name are those in the data directory of a `linewatch up`.

    Raises:
        UpError: the data directory is not one.
    """
    own = settings()
    folder = absolute(default_data_directory() if data is None else data)
    if data is not None and not folder.is_dir():
        raise UpError(
            f"--data {data}: there is no such folder; name the data directory of a `linewatch up`", exit_code=2
        )
    if not (folder / "postgres").is_dir():
        if data is not None and "LINEWATCH_DATABASE_URL" not in os.environ:
            raise UpError(f"--data {data}: no database of a `linewatch up` is in it", exit_code=2)
        return own
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
    return own.model_copy(update=embedded)
