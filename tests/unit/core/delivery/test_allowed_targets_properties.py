"""Properties of allow lists for all addresses, ports, entries and texts."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.addresses import format_host, local_kind, normalise, parse_entries, parse_host
from core.delivery.allowed_targets import Origin, TargetRefused
from tests.fixtures.allow_lists import EVERYTHING, allowing, refusal

ports = st.integers(1, 65535)
fours = st.ip_addresses(v=4)
sixes = st.ip_addresses(v=6)
loopbacks = st.ip_addresses(network=ip_network("127.0.0.0/8"))
link_locals = st.ip_addresses(network=ip_network("169.254.0.0/16"))
DISGUISES: list[Callable[[IPv4Address], IPv6Address]] = [
    lambda four: IPv6Address(0xFFFF << 32 | int(four)),
    lambda four: IPv6Address(int(IPv6Network("64:ff9b::/96").network_address) | int(four)),
    lambda four: IPv6Address(0x2002 << 112 | int(four) << 80 | 0x1234),
]


@given(fours, st.sampled_from(DISGUISES))
def test_embedded_ipv4_addresses_are_normalised(
    four: IPv4Address, disguise: Callable[[IPv4Address], IPv6Address]
) -> None:
    assert normalise(disguise(four)) == four
    assert normalise(four) == four


@given(loopbacks | link_locals, st.sampled_from([None, *DISGUISES]), ports, ports)
def test_a_local_address_needs_an_entry_with_its_port(
    near: IPv4Address, disguise: Callable[[IPv4Address], IPv6Address] | None, port: int, other: int
) -> None:
    url = f"http://{format_host(disguise(near) if disguise else near, port)}/"
    around = f"{EVERYTHING}, {near}/32, {near}/32:{port}, 127.0.0.0/8:{port}, 169.254.0.0/16:{port}"
    assert f"only the entry {near}:{port}." in refusal(allowing(around), url)
    if other != port:
        refusal(allowing(f"{around}, {near}:{other}"), url)
    assert allowing(f"{near}:{port}").resolve(url).port == port


@given(fours | sixes, ports, st.none() | ports)
def test_an_address_entry_allows_only_that_address_and_port(
    address: IPv4Address | IPv6Address, port: int, url_port: int | None
) -> None:
    if normalise(address) != address:
        with pytest.raises(ValueError, match="IPv4"):
            parse_entries(format_host(address, port))
        return
    [entry] = parse_entries(format_host(address, port))
    assert entry.is_exactly(address, port)
    assert entry.covers(address, url_port or port) == (url_port in (None, port))
    if local_kind(address):
        with pytest.raises(ValueError, match=":PORT"):
            parse_entries(str(address))
        return
    [anywhere] = parse_entries(str(address))
    assert anywhere.covers(address, port)
    assert not anywhere.is_exactly(address, port)


@given(fours)
def test_only_the_canonical_form_of_an_address_is_accepted(four: IPv4Address) -> None:
    assert parse_host(str(four)) == four
    first, _, rest = str(four).partition(".")
    for form in (str(int(four)), hex(int(four)), f"0{int(four):o}", f"{hex(int(first))}.{rest}", f"0{first}.{rest}"):
        with pytest.raises(ValueError, match="usual form"):
            parse_host(form)


labels = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)


@given(st.lists(labels, min_size=1, max_size=4), ports, st.booleans())
def test_equivalent_urls_have_the_same_origin(parts: list[str], port: int, dot: bool) -> None:
    name = ".".join(parts)
    shouted = name.upper() + "." * dot
    assert Origin.of(f"HTTPS://{shouted}:{port}/a?b") == Origin("https", name, port)
    assert Origin.of(f"https://{shouted}") == Origin.of(f"https://{name}:443/")


@given(st.text(max_size=60))
def test_any_text_is_accepted_or_refused_without_a_crash(text: str) -> None:
    for url in (text, f"http://{text}", f"http://{text}/hook"):
        try:
            allowing("").check(url)
        except TargetRefused as refused:
            assert refused.detail  # noqa: PT017 - any text may be refused
        else:
            pytest.fail(f"{url!r} was accepted")
