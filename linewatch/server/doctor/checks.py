"""All checks, in the order in which `linewatch doctor` prints them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec

from sqlalchemy import Connection

from core.settings import Settings
from linewatch.server.doctor import access, broker, machine, models, postgres, storage, tracing
from linewatch.server.doctor.findings import Finding, first_line, worst

P = ParamSpec("P")


@dataclass(frozen=True)
class Installation:
    """What is checked: the settings, and the address of the running system."""

    settings: Settings
    url: str
    api_key: str | None


def examine(installation: Installation) -> list[Finding]:
    """Run every check that can be run while some parts are down. Each takes seconds at most if its part is down."""
    settings = installation.settings
    findings = _run("Linewatch", machine.check_versions)
    with postgres.open_connection(settings) as opened:
        connection = None
        if isinstance(opened, Finding):
            findings.append(opened)
        else:
            findings += _run("PostgreSQL", postgres.check_server, opened)
            schema = _run("schema", postgres.check_schema, opened)
            findings += schema
            connection = opened if worst(schema) == "ok" else None
        findings += _run("Redis", broker.check_redis, settings)
        findings += _check_files(settings, connection)
        findings += _run("MQTT", broker.check_mqtt, settings)
        findings += _run("traces", tracing.check_traces)
        findings += _run("torch", machine.check_torch, settings)
        return findings + _check_api(installation, connection)


def _check_files(settings: Settings, connection: Connection | None) -> list[Finding]:
    store = _run("store", storage.check_store, settings)
    findings = store + _run("disk", storage.check_disk, settings, connection)
    findings += _run("archive", storage.check_archives, settings)
    if connection is not None and worst(store) == "ok":
        findings += _run("models", models.check_models, settings, connection)
    return findings


def _check_api(installation: Installation, connection: Connection | None) -> list[Finding]:
    settings, url = installation.settings, installation.url
    api = access.check_api(url, installation.api_key)
    findings = [api, *_run("port", access.check_port, url, api), *_run("metrics", access.check_metrics, settings)]
    findings += _run("access", access.check_access, settings, url, api, connection)
    if connection is not None and api.level == "ok":
        findings += _run("system", access.check_system, settings, connection)
    return findings


def _run(what: str, check: Callable[P, list[Finding]], *arguments: P.args, **options: P.kwargs) -> list[Finding]:
    """Run a check. If it fails itself, that is its finding: the others must run."""
    try:
        return check(*arguments, **options)
    except Exception as error:  # noqa: BLE001 - see above
        remedy = "please report this, with the file of `linewatch support-bundle`"
        return [Finding(what, "error", f"could not be checked: {type(error).__name__}: {first_line(error)}", remedy)]
