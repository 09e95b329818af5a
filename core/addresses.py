"""Parse hosts and addresses from URLs and allow lists, and classify addresses."""

import errno
import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import idna

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NAT64 = IPv6Network("64:ff9b::/96")
_EMBEDDING = (IPv6Network("2001::/32"), IPv6Network("64:ff9b:1::/48"))
"""Teredo and locally assigned NAT64 prefixes, which embed an IPv4 address in a place that depends on the network."""
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
_BROADCAST = IPv4Address("255.255.255.255")

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[0-9]{1,5}")
_BRACKETED = re.compile(r"\[([^\]]*)\](/[0-9]+)?(?::(.*))?")

_SYNTAX = (
    "write a host name (mes.plant.example or *.plant.example), an address (10.1.2.3, [fd00::5]) or a range "
    "(10.20.0.0/16, [fd00::]/8), each with or without a :port"
)


def parse_host(text: str) -> str | Address:
    """Parse the host of a URL or an allow-list entry.

    Returns:
        An address, or a host name in lower-case ASCII without a final dot.

    Raises:
        ValueError: the text is neither. This includes a zone id, and other notations that the system would resolve as
            an address (`2130706433`, `0x7f.1`, `127.1`).
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
            raise ValueError(f"{text!r} is not an IPv4 address in its usual form, four decimal numbers") from None
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{text!r} is not a host name")
    return name


def _ascii(text: str) -> str:
    if text.isascii():
        return text
    try:
        return idna.encode(text, uts46=True).decode()
    except idna.IDNAError as error:
        raise ValueError(f"{text!r} is not a host name: {error}") from None


def normalise(address: Address) -> Address:
    """Return the IPv4 address inside a mapped, NAT64 or 6to4 address, or else the address without its zone id."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour or IPv6Address(int(address))


def why_never_allowed(address: Address) -> str | None:
    """Return why no allow-list entry can allow a normalised address, or None if one can."""
    if address.is_unspecified or address in _THIS_NETWORK:
        return "an unspecified address"
    if address.is_multicast:
        return "a multicast address"
    if address == _BROADCAST:
        return "the broadcast address"
    if address.is_reserved and not address.is_loopback:
        return "a reserved address"
    if any(address in network for network in _EMBEDDING):
        return "an address with another address embedded in it"
    return None


def local_kind(address: Address) -> str | None:
    """Return what kind of local address a normalised address is, or None if it is neither loopback nor link-local.

    Only an exact allow-list entry can allow a local address.
    """
    if address.is_loopback:
        return "a loopback address"
    return "a link-local address" if address.is_link_local else None


def is_local_address(address: Address) -> bool:
    """Return whether a normalised address belongs to this machine, that is, whether a socket can be bound to it.

    Returns True if that cannot be determined.
    """
    if address.is_loopback:
        return True
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True


def format_host(host: str | Address, port: int | None = None) -> str:
    """Return a host, with its port if there is one, as in a URL or an allow-list entry."""
    text = f"[{host}]" if isinstance(host, IPv6Address) else str(host)
    return text if port is None else f"{text}:{port}"


@dataclass(frozen=True)
class Entry:
    """An entry of an allow list: either a host name, or an address or a range of addresses.

    Attributes:
        name: a host name, or `*.` and the end of one; None for an address or a range.
        network: an address or a range; None for a name.
        exact: whether the entry is a single address, not a range of one address.
        port: the port it allows; None for any port.
    """

    name: str | None
    network: Network | None
    exact: bool
    port: int | None

    def names(self, host: str | Address, port: int) -> bool:
        """Return whether the entry allows this host name and port. A wildcard matches one or more labels."""
        if self.name is None or not isinstance(host, str) or self.port not in (None, port):
            return False
        return host.endswith(self.name[1:]) if self.name.startswith("*.") else host == self.name

    def covers(self, address: Address, port: int) -> bool:
        """Return whether the entry is, or its range contains, this normalised address, and allows the port."""
        return self.network is not None and address in self.network and self.port in (None, port)

    def is_exactly(self, address: Address, port: int) -> bool:
        """Return whether the entry is exactly this normalised address with this port."""
        return self.exact and self.port == port and self.covers(address, port)


def parse_entries(text: str) -> tuple[Entry, ...]:
    """Parse a comma-separated allow list.

    Raises:
        ValueError: an entry is invalid; the message names it.
    """
    entries: list[Entry] = []
    for item in filter(None, map(str.strip, text.split(","))):
        try:
            parsed = _parse_entry(item)
        except ValueError as error:
            raise ValueError(f"{item!r} is not a valid entry ({error}): {_SYNTAX}") from None
        for entry in parsed:
            if (
                entry.exact
                and entry.port is None
                and entry.network
                and (kind := local_kind(entry.network.network_address))
            ):
                host = parsed[0].name or format_host(entry.network.network_address)
                raise ValueError(f"{item!r} would allow nothing: {kind} needs its port; write {host}:PORT")
        entries += parsed
    return tuple(entries)


def _parse_entry(text: str) -> list[Entry]:
    head, port = _split_port(text)
    if "/" in head:
        return [_of_network(ip_network(head), exact=False, port=port)]
    if head.startswith("*."):
        name = parse_host(head[2:])
        if not isinstance(name, str):
            raise ValueError("a wildcard can only precede a host name")
        return [Entry(f"*.{name}", None, False, port)]
    host = parse_host(head)
    if not isinstance(host, str):
        return [_of_network(ip_network(host), exact=True, port=port)]
    entries = [Entry(host, None, False, port)]
    if host == "localhost":
        # By definition (RFC 6761) localhost is the loopback address, so the entry also allows that.
        entries += [_of_network(ip_network(loopback), exact=True, port=port) for loopback in ("127.0.0.1", "::1")]
    return entries


def _split_port(text: str) -> tuple[str, int | None]:
    """Split an entry into the host without brackets, and the port."""
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
        raise ValueError(f"{port!r} is not a port")
    return head, int(port)


def _of_network(network: Network, *, exact: bool, port: int | None) -> Entry:
    normalised = normalise(network.network_address)
    if normalised != network.network_address:
        raise ValueError(f"it stands for the IPv4 address {normalised}, so write that")
    return Entry(None, network, exact, port)


def parse_address(text: str) -> Address:
    """Parse and normalise an address from the resolver of the system."""
    return normalise(ip_address(text))
