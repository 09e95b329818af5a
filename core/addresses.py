"""Hosts and addresses as they are written in URLs and in an allow list, and what kind an address is."""

import errno
import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import idna

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NAT64 = IPv6Network("64:ff9b::/96")
_HIDING = (IPv6Network("2001::/32"), IPv6Network("64:ff9b:1::/48"))
"""Teredo, and NAT64 of one's own: where the IPv4 address stands in them depends on who made them."""
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
_BROADCAST = IPv4Address("255.255.255.255")

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[0-9]{1,5}")
_BRACKETED = re.compile(r"\[([^\]]*)\](/[0-9]+)?(?::(.*))?")

_HOW = (
    "write a host name (mes.plant.example or *.plant.example), an address (10.1.2.3, [fd00::5]) or a range "
    "(10.20.0.0/16, [fd00::]/8), each with or without a :port"
)


def parse_host(text: str) -> str | Address:
    """A host as a URL or an entry names it: an address, or a name in ASCII and lower case without a final dot.

    What the system would take for an address although it is not written as one (`2130706433`, `0x7f.1`, `127.1`) is
    refused, as is a zone id. Raises ValueError.
    """
    if ":" in text:
        if "%" in text:
            raise ValueError(f"{text!r} has a zone id")
        return IPv6Address(text)
    name = _ascii(text).lower().removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return IPv4Address(name)
        except ValueError:
            raise ValueError(f"{text!r} is no address in its usual form, four decimal numbers") from None
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{text!r} is no host name")
    return name


def _ascii(text: str) -> str:
    if text.isascii():
        return text
    try:
        return idna.encode(text, uts46=True).decode()
    except idna.IDNAError as error:
        raise ValueError(f"{text!r} is no host name: {error}") from None


def normalise(address: Address) -> Address:
    """The address that is meant: an IPv4 address out of its IPv6 disguise (mapped, NAT64, 6to4), and no zone id."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour or IPv6Address(int(address))


def why_never_allowed(address: Address) -> str | None:
    """Why no entry can allow this normalised address, or None if one can."""
    if address.is_unspecified or address in _THIS_NETWORK:
        return "an unspecified address"
    if address.is_multicast:
        return "a multicast address"
    if address == _BROADCAST:
        return "the broadcast address"
    if address.is_reserved and not address.is_loopback:
        return "a reserved address"
    if any(address in network for network in _HIDING):
        return "an address in which another one is hidden"
    return None


def is_loopback_or_link_local(address: Address) -> str | None:
    """What a normalised address is if it lies on this machine or its wire: only an exact entry can allow it."""
    if address.is_loopback:
        return "a loopback address"
    return "a link-local address" if address.is_link_local else None


def is_local_address(address: Address) -> bool:
    """Whether a normalised address is one of this machine's: whether a socket could be bound to it. One of which that
    cannot be told is taken for one."""
    if address.is_loopback:
        return True
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.bind((str(address), 0))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True


def format_host(host: str | Address, port: int | None = None) -> str:
    """A host as it stands in a URL or an entry."""
    shown = f"[{host}]" if isinstance(host, IPv6Address) else str(host)
    return shown if port is None else f"{shown}:{port}"


@dataclass(frozen=True)
class Entry:
    """What one entry of an allow list allows.

    Attributes:
        name: a host name, or `*.` and the end of one; None for an address or a range.
        network: an address or a range; None for a name.
        exact: whether it is one address that was written as such.
        port: None for any port.
    """

    name: str | None
    network: Network | None
    exact: bool
    port: int | None

    def names(self, host: str | Address, port: int) -> bool:
        """Whether it is for this host name and port. A wildcard stands for one or more labels."""
        if self.name is None or not isinstance(host, str) or self.port not in (None, port):
            return False
        return host.endswith(self.name[1:]) if self.name.startswith("*.") else host == self.name

    def covers(self, address: Address, port: int) -> bool:
        """Whether it is for this normalised address, or for a range with it, and for this port."""
        return self.network is not None and address in self.network and self.port in (None, port)

    def is_exactly(self, address: Address, port: int) -> bool:
        """Whether it names this normalised address, and this port."""
        return self.exact and self.port == port and self.covers(address, port)


def parse_entries(text: str) -> tuple[Entry, ...]:
    """The entries of a comma-separated allow list. Raises ValueError, which names the bad entry."""
    entries: list[Entry] = []
    for one in filter(None, map(str.strip, text.split(","))):
        try:
            parsed = _parse_entry(one)
        except ValueError as error:
            raise ValueError(f"{one!r} is no entry ({error}): {_HOW}") from None
        for entry in parsed:
            if (
                entry.exact
                and entry.port is None
                and entry.network
                and (kind := is_loopback_or_link_local(entry.network.network_address))
            ):
                shown = parsed[0].name or format_host(entry.network.network_address)
                raise ValueError(f"{one!r} would allow nothing: {kind} needs its port; write {shown}:PORT")
        entries += parsed
    return tuple(entries)


def _parse_entry(text: str) -> list[Entry]:
    head, port = _split_port(text)
    if "/" in head:
        return [_of_network(ip_network(head), exact=False, port=port)]
    if head.startswith("*."):
        name = parse_host(head[2:])
        if not isinstance(name, str):
            raise ValueError("a wildcard stands before a host name")
        return [Entry(f"*.{name}", None, False, port)]
    host = parse_host(head)
    if not isinstance(host, str):
        return [_of_network(ip_network(host), exact=True, port=port)]
    entries = [Entry(host, None, False, port)]
    if host == "localhost":
        # By definition it is the loopback address (RFC 6761), so it names what it stands for.
        entries += [_of_network(ip_network(one), exact=True, port=port) for one in ("127.0.0.1", "::1")]
    return entries


def _split_port(text: str) -> tuple[str, int | None]:
    """An entry without brackets and port, and the port."""
    if bracketed := _BRACKETED.fullmatch(text):
        address, prefix, port = bracketed.groups()
        head = f"{IPv6Address(address)}{prefix or ''}"
    elif text.count(":") > 1:
        head, port = text, None
    else:
        head, colon, rest = text.partition(":")
        port = rest if colon else None
    if port is None:
        return head, None
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        raise ValueError(f"{port!r} is no port")
    return head, int(port)


def _of_network(network: Network, *, exact: bool, port: int | None) -> Entry:
    meant = normalise(network.network_address)
    if meant != network.network_address:
        raise ValueError(f"it means the IPv4 address {meant} and has to be written so")
    return Entry(None, network, exact, port)


def parse_address(text: str) -> Address:
    """An address as the system's resolver gives it, normalised."""
    return normalise(ip_address(text))
