"""The archive for a bug report: what `linewatch doctor` finds, versions, counts and recent logs, without secrets."""

import importlib.metadata
import io
import json
import os
import platform
import tarfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from core.settings import Settings
from linewatch.server.doctor.checks import Installation, examine
from linewatch.server.doctor.findings import Finding, first_line, worst
from linewatch.server.doctor.postgres import open_connection
from linewatch.server.doctor.redaction import known_secrets, masked, redacted, redacted_value
from linewatch.server.doctor.storage import read_disk

LOG_BYTES = 2_000_000
"""How much of the end of each log is included."""
_README = """\
This archive was written by `linewatch support-bundle` for a bug report.

doctor.json    the findings of `linewatch doctor`, and the settings without passwords
versions.json  the versions of the installed Python packages and of the system
counts.json    the state of the system, and the number of rows and the size of each table
logs/          the end of recent logs

It holds no images, no API keys and no passwords. Names of machines, recipes and folders are in it: look at the files
before you send them.
"""

_TABLES = text("""
    SELECT relname AS name, CAST(reltuples AS bigint) AS rows_about, pg_total_relation_size(oid) AS bytes
    FROM pg_class WHERE relnamespace = CAST(current_schema() AS regnamespace) AND relkind = 'r' ORDER BY relname
""")


def write_bundle(installation: Installation, logs: Iterable[Path], secrets_folder: Path | None, to: Path) -> list[str]:
    """Write the archive, a `.tar.gz` that only its owner can read. Works while parts of the system are down.

    Args:
        logs: files to include the end of.
        secrets_folder: the data directory of a `linewatch up`, whose passwords are removed; None if there is none.

    Returns:
        The names of the files in it.

    Raises:
        OSError: the archive exists already or cannot be written, or a log cannot be read.
    """
    settings = installation.settings
    secrets = known_secrets(settings, os.environ, secrets_folder)
    if installation.api_key is not None:
        secrets |= {installation.api_key}
    members = {
        "README.txt": _README,
        "doctor.json": _json(_examined(installation), secrets),
        "versions.json": _json(_versions(), secrets),
        "counts.json": _json(_counts(settings), secrets),
    }
    for name, log in _named(logs).items():
        members[f"logs/{name}"] = redacted(_end_of(log), secrets)
    _write(members, to)
    return list(members)


def _examined(installation: Installation) -> dict[str, Any]:
    findings = examine(installation)
    settings = {name: masked(value) for name, value in installation.settings}
    return {"status": worst(findings), "settings": settings, "findings": [asdict(finding) for finding in findings]}


def _versions() -> dict[str, Any]:
    packages = {each.name: each.version for each in importlib.metadata.distributions()}
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "variables": sorted(name for name in os.environ if name.startswith(("LINEWATCH_", "AWS_", "PG", "CUDA_"))),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def _counts(settings: Settings) -> dict[str, Any]:
    """Return the state of the system and the sizes of the tables, or why they cannot be read."""
    with open_connection(settings) as opened:
        if isinstance(opened, Finding):
            return {"problem": opened.found}
        tables = [dict(row) for row in opened.execute(_TABLES).mappings()]
        return {"tables": tables, "system": _system(settings, opened)}


def _system(settings: Settings, connection: Connection) -> dict[str, Any]:
    from sqlalchemy.exc import SQLAlchemyError

    from core.feed.consumers import Reader
    from core.system import status

    messages, space = status.count_messages(settings), read_disk(settings)
    try:
        state = status.read(connection, Reader("command", is_admin=True), messages, space)
    except SQLAlchemyError as error:  # a schema of another version
        return {"problem": first_line(getattr(error, "orig", None) or error)}
    document: dict[str, Any] = state.model_dump(mode="json")
    return document


def _named(logs: Iterable[Path]) -> dict[str, Path]:
    """Return the logs by the names that they get, each once."""
    named: dict[str, Path] = {}
    for log in logs:
        name, number = log.name, 1
        while name in named:
            number += 1
            name = f"{number}-{log.name}"
        named[name] = log
    return named


def _end_of(log: Path) -> str:
    """Return the end of a log, from the beginning of a line: half a secret would not be recognised."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_BYTES))
        content = file.read(LOG_BYTES)
    if size > LOG_BYTES:
        content = content.partition(b"\n")[2]
    return content.decode(errors="replace")


def _json(value: Mapping[str, Any], secrets: Iterable[str]) -> str:
    return json.dumps(redacted_value(value, secrets), indent=1, ensure_ascii=False, default=str) + "\n"


def _write(members: Mapping[str, str], to: Path) -> None:
    descriptor = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in members.items():
            encoded = content.encode(errors="replace")
            member = tarfile.TarInfo(f"linewatch-support/{name}")
            member.size, member.mtime = len(encoded), time.time()
            archive.addfile(member, io.BytesIO(encoded))
