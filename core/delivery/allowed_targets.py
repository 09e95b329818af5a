"""The SSRF check: the addresses that webhooks may go to, as `LINEWATCH_WEBHOOK_ALLOW` lists them.

What counts is the address that a host name resolves to when it is called, and the connection goes to that very
address: a name that meant something else when it was registered gains nothing.
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
    is_loopback_or_link_local,
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
"""How long `AllowList.check` waits for names to be looked up."""

"""Where a broker listens whose URL names no port, by the URL's scheme."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
_SETTING = "LINEWATCH_WEBHOOK_ALLOW"

T = TypeVar("T")


class TargetRefused(Refused):
    """An address that must not be called. `detail` says what is wrong and which entry would allow it."""

    def __init__(self, detail: str) -> None:
        super().__init__(Code.WEBHOOK_TARGET_REFUSED, detail)


class TargetUnresolved(TargetRefused):
    """A host name that has no address at the moment, or none in time; it may have one later."""


@dataclass(frozen=True)
class Origin:
    """Whom a URL names. `host` is an address or a name in lower case and ASCII, without a final dot."""

    scheme: str
    host: str | Address
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """The origin of a URL; refuses what is no plain http or https URL. Its path and query are not repeated."""
        if len(url) > MAX_URL or _NOT_IN_URLS.search(url):
            raise TargetRefused(f"A URL has at most {MAX_URL} characters, and no blanks or backslashes among them.")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:  # it may repeat a password
            raise TargetRefused("This is no URL: its host or its port cannot be read.") from None
        if parts.scheme not in _DEFAULT_PORTS or not host:
            raise TargetRefused("A URL starts with http:// or https:// and the name of a host.")
        if "@" in parts.netloc:
            raise TargetRefused("A URL must not hold a user name or a password; the signature authenticates the call.")
        if "#" in url:
            raise TargetRefused("A URL must not hold a fragment (#…); it is never sent.")
        if port == 0:
            raise TargetRefused("Port 0 cannot be called.")
        if parts.netloc.startswith("[") and ":" not in host:
            raise TargetRefused(f"[{host}] is no IPv6 address.")
        try:
            return cls(parts.scheme, parse_host(host), port or _DEFAULT_PORTS[parts.scheme])
        except ValueError as error:
            raise TargetRefused(f"{error}.") from None


@dataclass(frozen=True)
class Target:
    """Where a request goes.

    Attributes:
        host: for the `Host` header and the certificate; an IPv6 address stands without brackets.
        addresses: what to connect to, the first that can be reached. All were judged; nothing may be resolved again.
    """

    scheme: str
    host: str
    port: int
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class _Service:
    """A server of our own, which a webhook must never speak to."""

    name: str
    host: str
    port: int


def addresses_of(host: str, port: int) -> list[str]:
    """The addresses of a host name by the system's resolver, in its order; blocks. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(address[0]) for *_, address in found]


@dataclass(frozen=True)
class AllowList:
    """The entries of the setting, and our own servers."""

    entries: tuple[Entry, ...]
    _own: tuple[_Service, ...]

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(parse_entries(settings.webhook_allow), (*_databases(settings), *_brokers(settings)))

    def check(self, url: str, *, registered: bool = False) -> None:
        """Refuse a URL that could not be called; blocks for at most `CHECK_SECONDS`.

        A name that an entry names may have no address as yet, and a registered one none at the moment: it is judged
        again whenever it is called.
        """
        try:
            _in_time(partial(self.resolve, url), f"The address of {Origin.of(url).host}")
        except TargetUnresolved:
            if not registered and not self._names(Origin.of(url)):
                raise

    def resolve(self, url: str) -> Target:
        """Where a request to this URL must go; blocks while the name is looked up.

        Every address of the name has to be allowed, not only the one that answers. Raises TargetRefused.
        """
        origin = Origin.of(url)
        found = self._look_up(origin, origin.host) if isinstance(origin.host, str) else [str(origin.host)]
        for one in found:
            self._judge(origin, parse_address(one))
        return Target(origin.scheme, str(origin.host), origin.port, tuple(dict.fromkeys(map(_reachable, found))))

    def _names(self, origin: Origin) -> bool:
        return any(entry.names(origin.host, origin.port) for entry in self.entries)

    def _look_up(self, origin: Origin, host: str) -> list[str]:
        by_address = any(entry.network is not None and entry.port in (None, origin.port) for entry in self.entries)
        if not by_address and not self._names(origin):  # whatever its address may be
            raise TargetRefused(
                f"{host} is not in {_SETTING}; the entry {format_host(host, origin.port)} would allow it."
            )
        try:
            return addresses_of(host, origin.port)
        except (OSError, UnicodeError) as error:
            raise TargetUnresolved(
                f"{host} has no address at the moment ({error}); with the entry {format_host(host, origin.port)} in "
                f"{_SETTING} it may be registered nevertheless."
            ) from None

    def _judge(self, origin: Origin, address: Address) -> None:
        """Refuse an address that no entry allows, or that none can allow."""
        port = origin.port
        shown = str(address) if origin.host == address else f"{origin.host} means {address}, which"
        exact = format_host(address, port)
        if kind := why_never_allowed(address):
            raise TargetRefused(f"{shown} is {kind} and is never called; no entry allows it.")
        for service in self._own:
            if self._is(service, address, port):
                raise TargetRefused(f"{shown} is, at port {port}, {service.name} of Linewatch; no entry allows it.")
        if kind := is_loopback_or_link_local(address):
            if not any(entry.is_exactly(address, port) for entry in self.entries):
                raise TargetRefused(
                    f"{shown} is {kind}: neither a name nor a range in {_SETTING} allows it, only the entry {exact}."
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
        """Whether this is one of our servers; one that cannot be looked up now is taken for it."""
        if service.port != port:
            return False
        try:
            own = {parse_address(one) for one in addresses_of(service.host, port)}
        except OSError:
            return True
        # A server on this machine may listen on each of its addresses, whichever of them our own settings name.
        return address in own or (is_local_address(address) and any(map(is_local_address, own)))


def _in_time(look_up: Callable[[], T], what: str) -> T:
    """The addresses found within `CHECK_SECONDS`, else TargetUnresolved. The thread is not joined: the system's
    resolver may take far longer, and cannot be interrupted."""
    found: Future[T] = Future()

    def work() -> None:
        try:
            found.set_result(look_up())
        except Exception as error:  # noqa: BLE001 - passed on to the waiting thread
            found.set_exception(error)

    threading.Thread(target=work, name="target-check", daemon=True).start()
    try:
        return found.result(CHECK_SECONDS)
    except TimeoutError:
        raise TargetUnresolved(f"{what} was not found within {CHECK_SECONDS:g} seconds; try again.") from None


def _reachable(address: str) -> str:
    """What to connect to: an IPv4-mapped address is plain IPv4, whereas NAT64 and 6to4 lead through their gateways."""
    given = ip_address(address)
    return str(given.ipv4_mapped) if isinstance(given, IPv6Address) and given.ipv4_mapped else address


def _databases(settings: Settings) -> Iterator[_Service]:
    url = make_url(settings.database_url.get_secret_value())
    _, given = url.get_dialect()().create_connect_args(url)
    hosts = [*str(given.get("host") or "").split(","), *str(given.get("hostaddr") or "").split(",")]
    ports = str(given.get("port") or "").split(",")
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
