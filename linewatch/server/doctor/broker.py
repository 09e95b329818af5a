"""Checks of Redis or Valkey, and of the MQTT broker."""

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from redis.exceptions import RedisError

from core.settings import LOOPBACK_HOSTS, Settings
from linewatch.server.doctor.findings import Finding, first_line
from linewatch.server.doctor.redaction import masked

MQTT_TIMEOUT = 5.0  # seconds
_FULL_SHARE = 0.8


def check_redis(settings: Settings) -> list[Finding]:
    """Check the queue's server: reachable, never evicts, has memory left, keeps its data, needs a password."""
    from core.queue.notifications import connect

    remedy = "start it, or set LINEWATCH_REDIS_URL; images are accepted meanwhile, and scored once it is back"
    try:
        server = connect(settings)
        try:
            info: dict[str, Any] = server.info()
            policy = _policy(server, info)
        finally:
            server.close()
    except (RedisError, OSError, ValueError) as error:
        return [Finding("Redis", "error", f"cannot be used: {first_line(error)}", remedy)]
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version", info.get("redis_version"))
    return [
        Finding("Redis", "ok", f"{name} {version}"),
        _check_policy(policy),
        _check_memory(info),
        _check_persistence(info),
        *_check_password(settings),
    ]


def _policy(server: Any, info: dict[str, Any]) -> str | None:
    """Return the eviction policy; None if the server does not tell."""
    if "maxmemory_policy" in info:
        return str(info["maxmemory_policy"])
    try:
        policy: str | None = server.config_get("maxmemory-policy").get("maxmemory-policy")
    except RedisError:  # managed servers refuse CONFIG
        return None
    return policy


def _check_policy(policy: str | None) -> Finding:
    if policy == "noeviction":
        return Finding("eviction", "ok", "maxmemory-policy noeviction")
    remedy = "set its maxmemory-policy to noeviction: with another policy it drops queued work, which is then late"
    if policy is None:
        return Finding("eviction", "note", "the server does not tell its maxmemory-policy", remedy)
    return Finding("eviction", "warning", f"maxmemory-policy {policy}", remedy)


def _check_memory(info: dict[str, Any]) -> Finding:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not limit:
        return Finding("Redis memory", "ok", f"{used / 1e6:.0f} MB, without a limit")
    found = f"{used / 1e6:.0f} of {limit / 1e6:.0f} MB"
    if used < _FULL_SHARE * limit:
        return Finding("Redis memory", "ok", found)
    return Finding("Redis memory", "warning", found, "raise its maxmemory, and see which other programs use it")


def _check_persistence(info: dict[str, Any]) -> Finding:
    if int(info.get("aof_enabled", 0)):
        if info.get("aof_last_write_status", "ok") == "ok":
            return Finding("persistence", "ok", "append-only file")
        remedy = "see its log: its disk may be full"
        return Finding("persistence", "warning", "the append-only file cannot be written", remedy)
    found = "no append-only file: after a restart of Redis, queued work is published again within seconds"
    return Finding("persistence", "note", found)


def _check_password(settings: Settings) -> list[Finding]:
    """Warn if a server that other machines can reach lets everyone in, as the URL without a password shows."""
    parts = urlsplit(settings.redis_url.get_secret_value())
    if parts.scheme == "unix" or parts.password or _is_local(parts.hostname):
        return []
    remedy = "set a password (requirepass) and name it in LINEWATCH_REDIS_URL; let only Linewatch's machines reach it"
    return [Finding("Redis password", "warning", f"{parts.hostname} accepts commands without a password", remedy)]


def _is_local(host: str | None) -> bool:
    if host is None or host in LOOPBACK_HOSTS:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def check_mqtt(settings: Settings) -> list[Finding]:
    """Check whether the broker accepts a connection, if results are published over MQTT."""
    if settings.mqtt_url is None:
        return []
    from core.delivery.mqtt import BrokerRefused, connected

    try:
        # Without a client id, the connection cannot disconnect another client.
        with connected(settings.mqtt_url.get_secret_value(), name="", seconds=MQTT_TIMEOUT):
            return [Finding("MQTT", "ok", f"{masked(settings.mqtt_url)} accepts connections")]
    except ModuleNotFoundError:
        problem, remedy = "paho-mqtt is not installed", "pip install 'linewatch[mqtt]'"
    except (OSError, ValueError) as error:
        problem, remedy = f"cannot be reached: {error}", "start it, or set LINEWATCH_MQTT_URL"
    except BrokerRefused as refused:
        problem, remedy = str(refused), "check the broker's log and the user and password in LINEWATCH_MQTT_URL"
    return [Finding("MQTT", "error", problem, remedy)]
