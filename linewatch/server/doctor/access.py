"""Checks of the api: ready, its port, whether keys are required where other machines can reach it, and its workers."""

import http.client
import ipaddress
import socket
import sys
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Connection, text

from core.settings import LOOPBACK_HOSTS, Settings
from linewatch.cli.options import client
from linewatch.errors import LinewatchError, Unreachable
from linewatch.server.doctor.findings import Finding, Level
from linewatch.server.doctor.storage import read_disk

_PROBE_SECONDS = 5.0
_LISTENING = "0A"  # the state in /proc/net/tcp
_HTTP, _HTTPS = 80, 443


def check_api(url: str, api_key: str | None) -> Finding:
    """Check whether the api answers that it is ready."""
    remedy = "start the system with `linewatch up`, or name its address with --url or LINEWATCH_URL"
    with client(url, api_key) as system:
        try:
            ready = system.ready()
        except Unreachable:
            return Finding("api", "note", f"no response from {system.url}", remedy)
        except LinewatchError as error:
            return Finding("api", "error", str(error), remedy)
    if ready:
        return Finding("api", "ok", f"{system.url} is ready")
    return Finding("api", "error", f"{system.url} responds but is not ready", "see its log for the reason")


def check_port(url: str, api: Finding) -> list[Finding]:
    """Check on which addresses the api's port is open, and whether it is the api that listens there."""
    addresses = _open_addresses(url)
    if not addresses:
        return []
    port = _port_of(url)
    if api.level == "note":
        remedy = "stop that program, or choose another port (--port, LINEWATCH_PORT)"
        return [Finding("port", "error", f"port {port} is in use by a program that is not Linewatch's api", remedy)]
    return [Finding("port", "ok", f"port {port} is open on {', '.join(sorted(addresses))}")]


def check_access(settings: Settings, url: str, api: Finding, connection: Connection | None) -> list[Finding]:
    """Check whether keys are required where other machines can reach the api, and whether there is one.

    Args:
        connection: to a database with this version's schema; None if there is none.
    """
    if settings.auth == "off" and not settings.listens_on_loopback:
        remedy = "unset LINEWATCH_AUTH, or set LINEWATCH_HOST=127.0.0.1"
        found = f"LINEWATCH_AUTH is off and LINEWATCH_HOST is {settings.host}, which other machines can reach"
        return [Finding("access", "error", found, remedy)]
    required = _requires_key(url) if api.level != "note" else None
    if required is False and _is_public(url):
        remedy = "require keys (unset LINEWATCH_AUTH), unless a proxy in front of it checks who it lets in"
        return [Finding("access", "error", f"{url} needs no key, and other machines can reach it", remedy)]
    if required or (required is None and settings.auth_required):
        return _check_keys(connection)
    return [Finding("access", "ok", "no keys are needed: only this machine can reach the api")]


def check_metrics(settings: Settings) -> list[Finding]:
    """Report an open port of metrics, which need no key."""
    if not settings.metrics_port or settings.metrics_host in LOOPBACK_HOSTS:
        return []
    found = f"metrics of workers are served without keys on {settings.metrics_host}, from port {settings.metrics_port}"
    return [Finding("metrics", "note", found, "let only Prometheus reach them: a firewall, or LINEWATCH_METRICS_HOST")]


def _port_of(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (_HTTPS if parts.scheme == "https" else _HTTP)


def _open_addresses(url: str) -> set[str]:
    """Return the addresses on which the port of a URL of this machine is open."""
    return _listening_on(_port_of(url)) if _is_this_machine(urlsplit(url).hostname) else set()


def _is_public(url: str) -> bool:
    addresses = _open_addresses(url)
    if not addresses:
        return not _is_this_machine(urlsplit(url).hostname)
    return not all(ipaddress.ip_address(address).is_loopback for address in addresses)


def _check_keys(connection: Connection | None) -> list[Finding]:
    if connection is None:
        return [Finding("access", "ok", "keys are required")]
    usable = connection.execute(
        text("""
            SELECT count(*) FILTER (WHERE 'admin' = ANY(scopes)) AS admin, count(*) AS all_of_them FROM api_keys
            WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
        """)
    ).one()
    found = f"keys are required; {usable.all_of_them} can be used, {usable.admin} with the scope admin"
    if usable.admin:
        return [Finding("access", "ok", found)]
    return [Finding("access", "warning", found, "create one: linewatch keys create NAME --scope admin")]


def _requires_key(url: str) -> bool | None:
    """Ask the api for something without a key. Returns None if it does not answer as the api does."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=_PROBE_SECONDS)
        try:
            connection.request("GET", f"{parts.path.rstrip('/')}/v1/recipes")
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return None
    return {http.HTTPStatus.OK: False, http.HTTPStatus.UNAUTHORIZED: True}.get(status)  # type: ignore[call-overload, no-any-return]


def _is_this_machine(host: str | None) -> bool:
    """Return whether a host is a loopback address or name."""
    if host is None:
        return False
    try:
        addresses = {found[4][0] for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in addresses)


def _listening_on(port: int) -> set[str]:
    """Return the addresses of this machine on which a program listens on a TCP port; none except on Linux."""
    if sys.platform != "linux":
        return set()
    found = set()
    for table in ("tcp", "tcp6"):
        file = Path("/proc/net", table)
        for line in file.read_text().splitlines()[1:] if file.exists() else []:
            local, state = line.split()[1], line.split()[3]
            address, _, number = local.partition(":")
            if state == _LISTENING and int(number, 16) == port:
                found.add(_address(address))
    return found


def _address(hexadecimal: str) -> str:
    """Return an address of /proc/net/tcp: words of 32 bits in the byte order of the machine."""
    words = [bytes.fromhex(hexadecimal[start : start + 8]) for start in range(0, len(hexadecimal), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return str(ipaddress.ip_address(packed))


def check_system(settings: Settings, connection: Connection) -> list[Finding]:
    """Report what needs attention in the running system, and workers of other versions."""
    from core.feed.consumers import Reader
    from core.system import status

    messages, space = status.count_messages(settings), read_disk(settings)
    system = status.read(connection, Reader("command", is_admin=True), messages, space)
    level: Level = "error" if system.health.status == "down" else "warning"
    remedy = "see “Watch the system” in docs/operations.md"
    findings = [Finding("system", level, reason, remedy) for reason in system.health.reasons]
    here = version("linewatch")
    if others := sorted({worker.version for worker in system.workers if worker.state != "lost"} - {here}):
        found = f"workers of version {', '.join(others)} are running; this is {here}"
        findings.append(Finding("system", "warning", found, "finish the upgrade: restart every process"))
    return findings or [Finding("system", "ok", f"{len(system.workers)} workers are running")]
