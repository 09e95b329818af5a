"""Allowed webhook targets: names are resolved at each check, and their addresses are judged."""

import threading
from ipaddress import ip_address

import pytest
from pydantic import ValidationError

from core.delivery import allowed_targets
from core.delivery.allowed_targets import Target, TargetRefused, TargetUnresolved
from core.settings import Settings
from tests.fixtures.allow_lists import EVERYTHING, SetDns, allowing, refusal


def test_nothing_is_allowed_by_default() -> None:
    for url in ("https://10.1.2.3/", "http://localhost:9000/", "https://mes.plant.example/", "http://[fd00::1]/"):
        assert "would allow it" in refusal(allowing(""), url) or "only the entry" in refusal(allowing(""), url)


@pytest.mark.parametrize(
    ("entries", "url", "address"),
    [
        ("10.20.0.0/16", "http://10.20.255.1/hook?a=b", "10.20.255.1"),
        ("10.1.2.3", "https://10.1.2.3:8443/", "10.1.2.3"),
        ("10.1.2.3:8443", "https://10.1.2.3:8443/", "10.1.2.3"),
        (" 10.1.2.3:443 ,, ", "https://10.1.2.3/", "10.1.2.3"),
        ("fd00::/8", "http://[fd00::5]/", "fd00::5"),
        ("[fd00::]/8:8080", "http://[FD00:0::5]:8080/", "fd00::5"),
        ("[fd00::5]:80", "http://[fd00::5]/", "fd00::5"),
        ("0.0.0.0/0", "https://203.0.113.7/", "203.0.113.7"),
        ("203.0.113.0/24", "https://[::ffff:203.0.113.7]/", "203.0.113.7"),
        ("203.0.113.0/24", "https://[64:ff9b::203.0.113.7]/", "64:ff9b::cb00:7107"),
        ("127.0.0.1:9000", "http://127.0.0.1:9000/", "127.0.0.1"),
        ("localhost:9000", "http://[::1]:9000/", "::1"),
        ("169.254.7.7:80", "http://169.254.7.7/", "169.254.7.7"),
    ],
)
def test_an_address_allowed_by_an_entry(entries: str, url: str, address: str) -> None:
    allowed = allowing(entries)
    assert allowed.resolve(url).addresses == (address,)
    allowed.check(url)


@pytest.mark.parametrize(
    ("entries", "url", "entry"),
    [
        ("10.20.0.0/16", "http://10.21.0.1/", "10.21.0.1:80"),
        ("10.1.2.3:8443", "https://10.1.2.3/", "10.1.2.3:443"),
        ("[fd00::]/8:8080", "http://[fd00::5]/", "[fd00::5]:80"),
        ("10.20.0.0/16", "https://mes.plant.example/", "mes.plant.example:443"),
        ("mes.plant.example:8443", "https://mes.plant.example/", "mes.plant.example:443"),
        ("*.plant.example", "https://plant.example/", "plant.example:443"),
        ("*.plant.example", "https://evilplant.example/", "evilplant.example:443"),
        ("mes.plant.example", "https://mes.plant.example.evil/", "mes.plant.example.evil:443"),
    ],
)
def test_a_refusal_names_the_entry_that_would_allow_it(set_dns: SetDns, entries: str, url: str, entry: str) -> None:
    set_dns(mes_plant_example=["10.9.9.9"], plant_example=["10.9.9.9"])
    assert entry in refusal(allowing(entries), url)
    allowing(f"{entries}, {entry}").check(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://mes.plant.example/hook",
        "https://MES.Plant.EXAMPLE/hook",
        "https://mes.plant.example./hook",
        "https://mes.plant.example:443/hook",
    ],
)
def test_a_name_is_called_at_the_checked_address(set_dns: SetDns, url: str) -> None:
    set_dns(mes_plant_example=["10.9.9.9", "10.9.9.10"])
    expected = Target("https", "mes.plant.example", 443, ("10.9.9.9", "10.9.9.10"))
    for entries in ("mes.plant.example", "MES.plant.example.:443", "*.plant.example", "*.example:443", "10.9.9.0/24"):
        assert allowing(entries).resolve(url) == expected


def test_internationalised_names_are_compared_in_ascii(set_dns: SetDns) -> None:
    set_dns(**{"werk_xn--mnchen-3ya_example": ["10.9.9.9"]})
    for entry in ("werk.münchen.example", "werk.xn--mnchen-3ya.example", "*.MÜNCHEN.example"):
        for url in ("http://werk.münchen.example/", "http://werk.MÜNCHEN.example/", "http://werk.münchen。example/"):
            assert allowing(entry).resolve(url).host == "werk.xn--mnchen-3ya.example"
    assert "loopback" in refusal(allowing(EVERYTHING), "http://１２７.0.0.1/")


def test_every_address_of_a_name_must_be_allowed(set_dns: SetDns) -> None:
    set_dns(mes_plant_example=["10.9.9.9", "127.0.0.1"])
    assert "127.0.0.1:80" in refusal(allowing(EVERYTHING), "http://mes.plant.example/")
    set_dns(mes_plant_example=["10.9.9.9", "10.8.8.8"])
    assert "10.8.8.8" in refusal(allowing("10.9.9.0/24"), "http://mes.plant.example/")
    assert allowing("mes.plant.example").resolve("http://mes.plant.example/").addresses == ("10.9.9.9", "10.8.8.8")


def test_a_name_rebound_to_this_machine_is_refused(set_dns: SetDns) -> None:
    allowed = allowing(EVERYTHING)
    set_dns(mes_plant_example=["203.0.113.7"])
    allowed.check("http://mes.plant.example/")
    for bad in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1%lo", "::", "64:ff9b::7f00:1"):
        set_dns(mes_plant_example=[bad])
        assert "mes.plant.example" in refusal(allowed, "http://mes.plant.example/")


def test_localhost_needs_a_port() -> None:
    assert refusal(allowing("127.0.0.0/8, 0.0.0.0/0, ::/0, localhost:9001"), "http://localhost:9000/")
    target = allowing("localhost:9000").resolve("http://LOCALHOST.:9000/")
    assert (target.host, all(ip_address(address).is_loopback for address in target.addresses)) == ("localhost", True)


def test_a_name_without_an_address_can_be_registered_but_not_called(set_dns: SetDns) -> None:
    set_dns()
    allowed = allowing("mes.plant.example, *.later.example:443, 10.0.0.0/8")
    for url in ("http://mes.plant.example/", "https://a.later.example/"):
        allowed.check(url)
        with pytest.raises(TargetUnresolved):
            allowed.resolve(url)
    for url in ("http://a.later.example/", "http://other.example/"):
        with pytest.raises(TargetRefused):
            allowed.check(url)


def test_a_name_that_no_entry_can_match_is_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(host: str, _: int) -> list[str]:
        raise AssertionError(host)

    monkeypatch.setattr(allowed_targets, "addresses_of", look_up)
    assert refusal(allowing("mes.plant.example, 10.0.0.0/8:443"), "http://elsewhere.example/")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://10.1.2.3/",
        "file:///etc/passwd",
        "10.1.2.3",
        "//10.1.2.3/",
        "http://",
        "http:///x",
        "http://:80/",
        "http://user@10.1.2.3/",
        "http://user:secret@10.1.2.3/",
        "http://@10.1.2.3/",
        "http://10.1.2.3\\@mes.plant.example/",
        "http://10.1.2.3/#part",
        "http://10.1.2.3/#",
        "http://10.1.2.3:0/",
        "http://10.1.2.3:65536/",
        "http://10.1.2.3:secret/",
        "http://10.1.2.3/ x",
        "http://10.1.2.3/\n",
        "\thttp://10.1.2.3/",
        "http://[10.1.2.3]/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[::1/",
        "http://[v1.a]/",
        "http://a..example/",
        "http://.example/",
        "http://-a.example/",
        "http://a%2eexample/",
        "http://*.example/",
        f"http://{'a' * 64}.example/",
        f"http://{'a.' * 127}example/",
        "http://10.1.2.3/" + "a" * 2000,
        "http://2130706433/",
        "http://017700000001/",
        "http://0x7f000001/",
        "http://0x7F.1/",
        "http://127.1/",
        "http://127.0.1/",
        "http://0177.0.0.1/",
        "http://10.1.2.3.4/",
        "http://10.1.2.256/",
        "http://a.0x/",
    ],
)
def test_a_malformed_url_is_refused(url: str) -> None:
    detail = refusal(allowing(EVERYTHING), url)
    assert "secret" not in detail
    with pytest.raises(TargetRefused):
        allowing(EVERYTHING).check(url)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104 - does not listen
        "0.1.2.3",
        "255.255.255.255",
        "224.0.0.1",
        "240.0.0.1",
        "[::]",
        "[ff02::1]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[::ffff:0.0.0.0]",
        "[::ffff:224.0.0.1]",
        "[64:ff9b::255.255.255.255]",
        "[64:ff9b:1::7f00:1]",
        "[2002:e000:1::]",
        "[2001:0:7f00:1::]",
    ],
)
def test_addresses_that_no_entry_can_allow(address: str) -> None:
    assert "no entry allows it" in refusal(allowing(f"{EVERYTHING}, 0.0.0.0:80"), f"http://{address}/")


def test_a_dns_timeout_does_not_refuse_a_registered_url(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def look_up(*_: object) -> list[str]:
        over.wait(60)
        return ["10.0.0.7"]

    monkeypatch.setattr(allowed_targets, "addresses_of", look_up)
    monkeypatch.setattr(allowed_targets, "CHECK_SECONDS", 0.05)
    try:
        allowed = allowing("10.0.0.0/8, mes.plant.example")
        with pytest.raises(TargetUnresolved, match="within"):
            allowed.check("http://other.example/")
        allowed.check("http://other.example/", registered=True)
        allowed.check("http://mes.plant.example/")
        with pytest.raises(TargetRefused):
            allowed.check("http://10.0.0.7:0/", registered=True)
    finally:
        over.set()


@pytest.mark.parametrize(
    "bad",
    [
        "*",
        "*.10.0.0.1",
        "a.*.example",
        "https://mes.plant.example",
        "mes.plant.example/hook",
        "mes.plant.example:",
        "mes.plant.example:0",
        "mes.plant.example:65536",
        "mes.plant.example:https",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "127.1",
        "2130706433",
        "[10.0.0.1]",
        "[fd00::1",
        "fd00::1]:80",
        "[fe80::1%eth0]:80",
        "::ffff:10.0.0.1",
        "[64:ff9b::]/96",
        "two words",
        "user@host",
    ],
)
def test_an_invalid_entry_is_named(bad: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(webhook_allow=f"mes.plant.example, {bad}")
    assert f"{bad!r} is not a valid entry" in str(refused.value)


@pytest.mark.parametrize(
    ("bare", "entry"),
    [
        ("127.0.0.1", "write 127.0.0.1:PORT"),
        ("127.9.9.9", "write 127.9.9.9:PORT"),
        ("::1", "write [::1]:PORT"),
        ("[::1]", "write [::1]:PORT"),
        ("169.254.7.7", "write 169.254.7.7:PORT"),
        ("fe80::1", "write [fe80::1]:PORT"),
        ("LOCALHOST", "write localhost:PORT"),
    ],
)
def test_a_local_address_needs_a_port(bare: str, entry: str) -> None:
    with pytest.raises(ValidationError, match="would allow nothing") as refused:
        Settings(webhook_allow=f"mes.plant.example, {bare}")
    assert entry in str(refused.value)
