"""`linewatch doctor`: check what the system needs, and print what is missing and how to fix it."""

import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

import click

from linewatch.cli.options import client, data_directory_option, system_options
from linewatch.cli.terminal import print_json, print_table, remark

if TYPE_CHECKING:
    from core.settings import Settings
    from core.storage.archive_location import ArchiveLocation


_BROKER_TIMEOUT = 5.0  # seconds
_PASSWORD = re.compile(r"(?<=://)([^:@/]*):.*@", re.DOTALL)
"""Up to the last `@`: without percent-encoding, a password can hold any character that separates the parts of a URL."""
_PASSWORD_IN_QUERY = re.compile(r"([?&][^=&]*password=)[^&]*", re.IGNORECASE)


@dataclass(frozen=True)
class _Finding:
    """The result of one check. `missing` is an error; `absent` is only a note."""

    what: str
    state: Literal["ok", "missing", "absent"]
    found: str
    remedy: str | None = None


@click.command("doctor")
@data_directory_option
@system_options
def doctor(data: Path | None, url: str, api_key: str | None, as_json: bool) -> None:
    """Check the settings, the servers and the api.

    Prints the settings, the result of each check, and how to fix what is missing. Exits with 1 if something required is
    missing.
    """
    from linewatch.server.commands.server_settings import settings_of

    settings = settings_of(data)
    findings = [
        _postgres(settings),
        _redis(settings),
        _store(settings),
        *_archives(settings),
        *_mqtt(settings),
        _torch(),
        _api(url, api_key),
    ]
    shown = {name: _masked(value) for name, value in settings}
    if as_json:
        print_json({"settings": shown, "findings": [asdict(finding) for finding in findings]})
    else:
        _print(shown, findings)
    if any(finding.state == "missing" for finding in findings):
        raise click.exceptions.Exit(1)


def _print(shown: dict[str, str | int | float | None], findings: list[_Finding]) -> None:
    print_table(
        ["setting", "value", ""],
        [
            [f"LINEWATCH_{name.upper()}", value, "set" if f"LINEWATCH_{name.upper()}" in os.environ else ""]
            for name, value in shown.items()
        ],
    )
    click.echo()
    print_table(["", "", "found"], [[finding.what, finding.state, finding.found] for finding in findings])
    for finding in findings:
        if finding.remedy:
            remark(f"{finding.what}: {finding.remedy}")


def _masked(value: object) -> str | int | float | None:
    """Return a setting with the password of a URL masked, even if the URL cannot be parsed."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, tuple):
        return ",".join(f"{number:.15g}" for number in value)  # in the syntax of the environment variable
    if not hasattr(value, "get_secret_value"):
        return str(value)
    text = _PASSWORD_IN_QUERY.sub(r"\1********", str(value.get_secret_value()))
    return _PASSWORD.sub(r"\1:********@", text)


def _postgres(settings: "Settings") -> _Finding:
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    import migrations
    from core.database import create_unbounded
    from migrations.__main__ import OLDEST_SERVER

    try:
        engine = create_unbounded(settings, name="doctor")
        with engine.connect() as connection:
            name, number = connection.execute(
                text("SELECT current_setting('server_version'), current_setting('server_version_num')::int")
            ).one()
            revision = MigrationContext.configure(connection).get_current_revision()
        engine.dispose()
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        remedy = (
            "start it, set LINEWATCH_DATABASE_URL, or name the data directory of a running `linewatch up` with --data"
        )
        return _Finding("PostgreSQL", "missing", f"cannot be reached: {reason}", remedy)
    if number < OLDEST_SERVER:
        return _Finding("PostgreSQL", "missing", f"version {name}", "install PostgreSQL 18 or newer")
    folder = migrations.__path__[0]
    head = ScriptDirectory(str(Path(folder))).get_current_head()
    if revision != head:
        return _Finding(
            "PostgreSQL",
            "missing",
            f"version {name}, schema {revision} instead of {head}",
            "run `linewatch migrate`",
        )
    return _Finding("PostgreSQL", "ok", f"version {name}, schema {revision}")


def _redis(settings: "Settings") -> _Finding:
    from redis.exceptions import RedisError

    from core.queue.notifications import connect

    def describe() -> str:
        server = connect(settings)
        try:
            info = server.info("server")
            policy = server.config_get("maxmemory-policy").get("maxmemory-policy")
        finally:
            server.close()
        name = "Valkey" if "valkey_version" in info else "Redis"
        return f"{name} {info.get('valkey_version', info.get('redis_version'))}, maxmemory-policy {policy}"

    try:
        description = describe()
    except (RedisError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        return _Finding("Redis", "missing", f"cannot be used: {reason}", "start it, or set LINEWATCH_REDIS_URL")
    remedy = None
    if not description.endswith("noeviction"):
        remedy = "set its maxmemory-policy to noeviction; with another policy it may drop queued work"
    return _Finding("Redis", "ok", description, remedy)


def _store(settings: "Settings") -> _Finding:
    from core.storage.stores import open_store

    if settings.store_url.startswith("s3://"):
        return _bucket(settings)
    folder = Path(unquote(urlsplit(settings.store_url).path))
    if not folder.is_dir():
        return _Finding(
            "store", "missing", f"the folder {folder} does not exist", "create it, or change LINEWATCH_STORE_URL"
        )
    try:
        open_store(settings).check()
    except OSError as error:
        return _Finding(
            "store",
            "missing",
            f"{folder} cannot be written: {error.strerror}",
            "check its permissions and the free space",
        )
    return _Finding("store", "ok", f"{folder} can be written")


def _bucket(settings: "Settings") -> _Finding:
    from core.storage.stores import open_store

    try:
        open_store(settings).check()
    except OSError as error:
        remedy = "check LINEWATCH_STORE_URL, the AWS_* variables, the rights to put objects, and LINEWATCH_SCRATCH"
        return _Finding("store", "missing", f"{settings.store_url} cannot be written: {error.strerror}", remedy)
    return _Finding("store", "ok", f"{settings.store_url} can be written")


def _archives(settings: "Settings") -> list[_Finding]:
    """Check from this machine whether each archive root can be listed."""
    from core.storage.archive_roots import Archives, ArchiveUnavailable

    def check(root: "ArchiveLocation") -> _Finding:
        try:
            root.check()
        except ArchiveUnavailable as unavailable:
            remedy = "create or mount it where scoring and io workers run, or change LINEWATCH_ARCHIVE_ROOTS"
            return _Finding("archive", "missing", str(unavailable), remedy)
        return _Finding("archive", "ok", f"{root.url} can be listed")

    return [check(root) for root in Archives.of(settings).roots]


def _mqtt(settings: "Settings") -> list[_Finding]:
    """Check whether the broker accepts a connection, if results are published over MQTT."""
    if settings.mqtt_url is None:
        return []
    from core.delivery.mqtt import BrokerRefused, connected

    try:
        # Without a client id, the connection cannot disconnect another client.
        with connected(settings.mqtt_url.get_secret_value(), name="", seconds=_BROKER_TIMEOUT):
            return [_Finding("MQTT", "ok", f"{_masked(settings.mqtt_url)} accepts connections")]
    except ModuleNotFoundError:
        problem, remedy = "paho-mqtt is not installed", "pip install 'linewatch[mqtt]'"
    except (OSError, ValueError) as error:
        problem, remedy = f"cannot be reached: {error}", "start it, or set LINEWATCH_MQTT_URL"
    except BrokerRefused as refused:
        problem, remedy = str(refused), "check the broker's log and the user and password in LINEWATCH_MQTT_URL"
    return [_Finding("MQTT", "missing", problem, remedy)]


def _torch() -> _Finding:
    try:
        import torch
    except ModuleNotFoundError:
        return _Finding(
            "torch", "absent", "not installed", "training and workers need it: pip install 'linewatch[worker]'"
        )
    if torch.cuda.is_available():
        return _Finding("torch", "ok", f"version {torch.__version__}, CUDA: {torch.cuda.get_device_name()}")
    return _Finding("torch", "ok", f"version {torch.__version__}, no CUDA device, so scoring uses the CPU")


def _api(url: str, api_key: str | None) -> _Finding:
    from linewatch.errors import LinewatchError, Unreachable

    remedy = "start the system with `linewatch up`, or name its address with --url or LINEWATCH_URL"
    with client(url, api_key) as system:
        try:
            ready = system.ready()
        except Unreachable:
            return _Finding("api", "absent", f"no response from {system.url}", remedy)
        except LinewatchError as error:
            return _Finding("api", "missing", str(error), remedy)
    if ready:
        return _Finding("api", "ok", f"{system.url} is ready")
    return _Finding("api", "missing", f"{system.url} responds but is not ready", "see its log for the reason")
