"""`linewatch doctor`: what is reachable, what is not, and what to do about it."""

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
    from core.storage.locations import ArchiveLocation


_BROKER_SECONDS = 5.0
_PASSWORD_IN_QUERY = re.compile(r"([?&][^=&]*password=)[^&]*", re.IGNORECASE)


@dataclass(frozen=True)
class _Finding:
    """What was found of one thing: `missing` is needed, `absent` is only worth knowing."""

    what: str
    state: Literal["ok", "missing", "absent"]
    found: str
    remedy: str | None = None


@click.command("doctor")
@data_directory_option
@system_options
def doctor(data: Path | None, url: str, api_key: str | None, as_json: bool) -> None:
    """Say what is reachable and what is not.

    Prints the settings, and what to do about what is missing. 1 if something is missing that is needed.
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
        print_json({"settings": shown, "findings": [asdict(one) for one in findings]})
    else:
        _print(shown, findings)
    if any(one.state == "missing" for one in findings):
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
    print_table(["", "", "found"], [[one.what, one.state, one.found] for one in findings])
    for one in findings:
        if one.remedy:
            remark(f"{one.what}: {one.remedy}")


def _masked(value: object) -> str | int | float | None:
    """A setting without its secrets: of an address the password, and where it cannot be parsed all of it."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, tuple):
        return ",".join(f"{one:.15g}" for one in value)  # as it is set
    if not hasattr(value, "get_secret_value"):
        return str(value)
    text = _PASSWORD_IN_QUERY.sub(r"\1********", str(value.get_secret_value()))
    try:
        parts = urlsplit(text)
        password = parts.password
    except ValueError:
        return "********"
    if password is None:
        return text
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}:********@{host}").geturl()


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
        why = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        remedy = (
            "start it, set LINEWATCH_DATABASE_URL, or name the data directory of a `linewatch up` that runs with --data"
        )
        return _Finding("PostgreSQL", "missing", f"cannot be reached: {why}", remedy)
    if number < OLDEST_SERVER:
        return _Finding("PostgreSQL", "missing", f"version {name}", "PostgreSQL 18 or newer is needed")
    folder = migrations.__path__[0]
    head = ScriptDirectory(str(Path(folder))).get_current_head()
    if revision != head:
        return _Finding(
            "PostgreSQL", "missing", f"version {name}, schema {revision}, not {head}", "run `linewatch migrate`"
        )
    return _Finding("PostgreSQL", "ok", f"version {name}, schema {revision}")


def _redis(settings: "Settings") -> _Finding:
    from redis.exceptions import RedisError

    from core.queue.notifications import connect

    def ask() -> str:
        server = connect(settings)
        try:
            about = server.info("server")
            policy = server.config_get("maxmemory-policy").get("maxmemory-policy")
        finally:
            server.close()
        name = "Valkey" if "valkey_version" in about else "Redis"
        return f"{name} {about.get('valkey_version', about.get('redis_version'))}, maxmemory-policy {policy}"

    try:
        found = ask()
    except (RedisError, OSError, ValueError) as error:
        why = str(error).splitlines()[0]
        return _Finding("Redis", "missing", f"cannot be used: {why}", "start it, or set LINEWATCH_REDIS_URL")
    remedy = None if found.endswith("noeviction") else "set its maxmemory-policy to noeviction: it drops work otherwise"
    return _Finding("Redis", "ok", found, remedy)


def _store(settings: "Settings") -> _Finding:
    from core.storage.image_store import Store

    folder = Path(unquote(urlsplit(settings.store_url).path))
    if not folder.is_dir():
        return _Finding(
            "store", "missing", f"there is no folder {folder}", "make it, or set LINEWATCH_STORE_URL to another"
        )
    try:
        Store(settings.store_url).check()
    except OSError as error:
        return _Finding(
            "store",
            "missing",
            f"{folder} cannot be written: {error.strerror}",
            "see its permissions and the free space",
        )
    return _Finding("store", "ok", f"{folder} can be written")


def _archives(settings: "Settings") -> list[_Finding]:
    """Whether each root can be listed, from here; nothing where none is configured."""
    from core.storage.archives import Archives, ArchiveUnavailable

    def look(root: "ArchiveLocation") -> _Finding:
        try:
            root.check()
        except ArchiveUnavailable as unavailable:
            remedy = "scoring and io workers need it: make or mount it there, or change LINEWATCH_ARCHIVE_ROOTS"
            return _Finding("archive", "missing", str(unavailable), remedy)
        return _Finding("archive", "ok", f"{root.url} can be listed")

    return [look(root) for root in Archives.of(settings).roots]


def _mqtt(settings: "Settings") -> list[_Finding]:
    """Whether the broker lets us in; nothing where results are not published."""
    if settings.mqtt_url is None:
        return []
    from core.delivery.mqtt import BrokerRefused, connected

    try:
        # Without a client id it disconnects no other client.
        with connected(settings.mqtt_url.get_secret_value(), name="", seconds=_BROKER_SECONDS):
            return [_Finding("MQTT", "ok", f"{_masked(settings.mqtt_url)} takes connections")]
    except ModuleNotFoundError:
        found, remedy = "paho-mqtt is not installed", "pip install 'linewatch[mqtt]'"
    except (OSError, ValueError) as error:
        found, remedy = f"cannot be reached: {error}", "start it, or set LINEWATCH_MQTT_URL"
    except BrokerRefused as refused:
        found, remedy = str(refused), "see the broker's log, and the user and password in LINEWATCH_MQTT_URL"
    return [_Finding("MQTT", "missing", found, remedy)]


def _torch() -> _Finding:
    try:
        import torch
    except ModuleNotFoundError:
        return _Finding(
            "torch", "absent", "not installed", "training and workers need it: pip install 'linewatch[worker]'"
        )
    if torch.cuda.is_available():
        return _Finding("torch", "ok", f"version {torch.__version__}, CUDA: {torch.cuda.get_device_name()}")
    return _Finding("torch", "ok", f"version {torch.__version__}, no CUDA device: the CPU computes")


def _api(url: str, api_key: str | None) -> _Finding:
    from linewatch.errors import LinewatchError, Unreachable

    start = "start the system with `linewatch up`, or name its address with --url or LINEWATCH_URL"
    with client(url, api_key) as system:
        try:
            ready = system.ready()
        except Unreachable:
            return _Finding("api", "absent", f"nothing answers at {system.url}", start)
        except LinewatchError as error:
            return _Finding("api", "missing", str(error), start)
    if ready:
        return _Finding("api", "ok", f"{system.url} takes work")
    return _Finding("api", "missing", f"{system.url} is there and takes no work", "its log says why")
