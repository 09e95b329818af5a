"""The SSRF check: the addresses that webhooks may go to, as `LINEWATCH_WEBHOOK_ALLOW` lists them.

A host name is resolved again for every call, its addresses are checked, and the connection goes to a checked address:
a name that resolved to something else when it was registered (DNS rebinding) does not help an attacker.
"""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv6Address, ip_address
from typing import Self, TypeVar
from urllib.parse import urlsplit

from sqlalchemy.engine import make_url

from core.addresses import (
    Address,
    Entry,
    format_host,
    is_local_address,
    local_kind,
    parse_address,
    parse_entries,
    parse_host,
    why_never_allowed,
)
from core.delivery import mqtt
from core.errors import Code, Refused
from core.settings import Settings

MAX_URL = 2000
CHECK_SECONDS = 3.0
"""How long `AllowList.check` waits for a name to be resolved."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
_SETTING = "LINEWATCH_WEBHOOK_ALLOW"

T = TypeVar("T")


class TargetRefused(Refused):
    """An address that must not be called. `detail` says why, and which entry would allow it."""

    def __init__(self, detail: str) -> None:
        super().__init__(Code.WEBHOOK_TARGET_REFUSED, detail)


class TargetUnresolved(TargetRefused):
    """A host name that cannot be resolved now, or not in time; it may be later."""


@dataclass(frozen=True)
class Origin:
    """The scheme, host and port of a URL. `host` is an address, or a name in lower-case ASCII without a final dot."""

    scheme: str
    host: str | Address
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """The origin of a URL.

        Raises:
            TargetRefused: it is not a plain http or https URL. The message does not repeat its path or query.
        """
        if len(url) > MAX_URL or _NOT_IN_URLS.search(url):
            raise TargetRefused(f"A URL must have at most {MAX_URL} characters, without blanks and backslashes.")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:  # its message may contain a password
            raise TargetRefused("This is not a URL: its host or port cannot be parsed.") from None
        if parts.scheme not in _DEFAULT_PORTS or not host:
            raise TargetRefused("A URL must start with http:// or https:// and a host name.")
        if "@" in parts.netloc:
            raise TargetRefused("A URL must not contain a user name or password; the signature authenticates the call.")
        if "#" in url:
            raise TargetRefused("A URL must not contain a fragment (#…), which is never sent.")
        if port == 0:
            raise TargetRefused("Port 0 cannot be called.")
        if parts.netloc.startswith("[") and ":" not in host:
            raise TargetRefused(f"[{host}] is not an IPv6 address.")
        try:
            return cls(parts.scheme, parse_host(host), port or _DEFAULT_PORTS[parts.scheme])
        except ValueError as error:
            raise TargetRefused(f"{error}.") from None


@dataclass(frozen=True)
class Target:
    """Where a request is sent.

    Attributes:
        host: for the `Host` header and the certificate; an IPv6 address has no brackets.
        addresses: the addresses to connect to, in order. All were checked; do not resolve the name again.
    """

    scheme: str
    host: str
    port: int
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class _Service:
    """A server of Linewatch itself, which webhooks must never reach."""

    name: str
    host: str
    port: int


def addresses_of(host: str, port: int) -> list[str]:
    """The addresses of a host name, in the order of the system's resolver. Blocks.

    Raises:
        OSError: it cannot be resolved.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(address[0]) for *_, address in found]


@dataclass(frozen=True)
class AllowList:
    """The entries of the setting, and the servers of Linewatch itself."""

    entries: tuple[Entry, ...]
    _servers: tuple[_Service, ...]

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(parse_entries(settings.webhook_allow), (*_databases(settings), *_brokers(settings)))

    def check(self, url: str, *, registered: bool = False) -> None:
        """Check that a URL may be called. Blocks for at most `CHECK_SECONDS`.

        A name that an entry lists, or that is registered, need not resolve now: it is checked again at each call.

        Raises:
            TargetRefused: it may not be called.
        """
        try:
            _in_time(partial(self.resolve, url), f"The address of {Origin.of(url).host}")
        except TargetUnresolved:
            if not registered and not self._names(Origin.of(url)):
                raise

    def resolve(self, url: str) -> Target:
        """Where to send a request for this URL. Blocks while the name is resolved.

        Raises:
            TargetRefused: an address of the name is not allowed; all of them must be.
        """
        origin = Origin.of(url)
        addresses = self._resolve_name(origin, origin.host) if isinstance(origin.host, str) else [str(origin.host)]
        for address in addresses:
            self._check_address(origin, parse_address(address))
        return Target(origin.scheme, str(origin.host), origin.port, tuple(dict.fromkeys(map(_unmapped, addresses))))

    def _names(self, origin: Origin) -> bool:
        return any(entry.names(origin.host, origin.port) for entry in self.entries)

    def _resolve_name(self, origin: Origin, host: str) -> list[str]:
        by_address = any(entry.network is not None and entry.port in (None, origin.port) for entry in self.entries)
        if not by_address and not self._names(origin):  # no address of it can be allowed
            raise TargetRefused(
                f"{host} is not in {_SETTING}; the entry {format_host(host, origin.port)} would allow it."
            )
        try:
            return addresses_of(host, origin.port)
        except (OSError, UnicodeError) as error:
            raise TargetUnresolved(
                f"{host} cannot be resolved now ({error}); with the entry {format_host(host, origin.port)} in "
                f"{_SETTING} you can register it nevertheless."
            ) from None

    def _check_address(self, origin: Origin, address: Address) -> None:
        """Refuse an address that no entry allows, or that no entry can allow."""
        port = origin.port
        shown = str(address) if origin.host == address else f"{origin.host} resolves to {address}, which"
        exact = format_host(address, port)
        if kind := why_never_allowed(address):
            raise TargetRefused(f"{shown} is {kind} and is never called; no entry allows it.")
        for service in self._servers:
            if self._is(service, address, port):
                raise TargetRefused(f"{shown} is, at port {port}, {service.name} of Linewatch; no entry allows it.")
        if kind := local_kind(address):
            if not any(entry.is_exactly(address, port) for entry in self.entries):
                raise TargetRefused(
                    f"{shown} is {kind}: names and ranges in {_SETTING} do not allow it, only the entry {exact}."
                )
        elif not self._names(origin) and not any(entry.covers(address, port) for entry in self.entries):
            raise TargetRefused(
                f"{shown} is not in {_SETTING}; the entry {format_host(origin.host, port)} would allow it."
                if origin.host == address
                else f"{shown} is not in {_SETTING}; "
                f"the entry {format_host(origin.host, port)} or {exact} would allow it."
            )

    @staticmethod
    def _is(service: _Service, address: Address, port: int) -> bool:
        """Whether this is a server of Linewatch; if its name cannot be resolved now, assume that it is."""
        if service.port != port:
            return False
        try:
            addresses = {parse_address(found) for found in addresses_of(service.host, port)}
        except OSError:
            return True
        # A server on this machine may listen on all of its addresses, whichever of them the settings name.
        return address in addresses or (is_local_address(address) and any(map(is_local_address, addresses)))


def _in_time(look_up: Callable[[], T], subject: str) -> T:
    """Return the result of `look_up`, which runs in a thread.

    Raises:
        TargetUnresolved: it took longer than `CHECK_SECONDS`. The thread continues, because a resolver cannot be
            interrupted.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(look_up())
        except Exception as error:  # noqa: BLE001 - passed on to the waiting thread
            future.set_exception(error)

    threading.Thread(target=work, name="target-check", daemon=True).start()
    try:
        return future.result(CHECK_SECONDS)
    except TimeoutError:
        raise TargetUnresolved(f"{subject} was not found within {CHECK_SECONDS:g} seconds; try again.") from None


def _unmapped(address: str) -> str:
    """An IPv4-mapped address as plain IPv4. NAT64 and 6to4 addresses stay: they lead through gateways."""
    parsed = ip_address(address)
    return str(parsed.ipv4_mapped) if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped else address


def _databases(settings: Settings) -> Iterator[_Service]:
    url = make_url(settings.database_url.get_secret_value())
    _, options = url.get_dialect()().create_connect_args(url)
    hosts = [*str(options.get("host") or "").split(","), *str(options.get("hostaddr") or "").split(",")]
    ports = str(options.get("port") or "").split(",")
    for host in hosts:
        if host and not host.startswith(("/", "@")):
            yield from (_Service("the database", host, int(port or 5432)) for port in ports)


def _brokers(settings: Settings) -> Iterator[_Service]:
    parts = urlsplit(settings.redis_url.get_secret_value())
    if parts.hostname:
        yield _Service("the broker", parts.hostname, parts.port or 6379)
    if settings.mqtt_url is not None:
        parts = urlsplit(settings.mqtt_url.get_secret_value())
        yield _Service("the MQTT broker", parts.hostname or "", parts.port or mqtt.PORTS[parts.scheme])
