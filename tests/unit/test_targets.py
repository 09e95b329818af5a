"""Who may be called. A name is judged by what it means at that moment, an address by what it means at all."""

import socket
import threading
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from core import targets
from core.addresses import is_of_this_machine, near, normalised, parse_entries, parse_host, written
from core.errors import Code
from core.settings import Settings
from core.targets import AllowList, Origin, Target, TargetRefused, TargetUnresolved

EVERYTHING = "0.0.0.0/0, ::/0, *.example, mes.plant.example"
Names = Callable[..., None]


def allowing(entries: str, **own: str) -> AllowList:
    secret = {name: SecretStr(value) for name, value in own.items()}
    elsewhere = {"database_url": SecretStr("postgresql+psycopg:///x"), "redis_url": SecretStr("unix:///x")}
    return AllowList.of(Settings(webhook_allow=entries, **{**elsewhere, **secret}))  # type: ignore[arg-type]


def refusal(allowed: AllowList, url: str) -> str:
    with pytest.raises(TargetRefused) as refused:
        allowed.resolve(url)
    assert refused.value.code is Code.WEBHOOK_TARGET_REFUSED
    return refused.value.detail


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Sets what names mean from now on; any other name means nothing."""

    def set_names(**meanings: list[str]) -> None:
        def look_up(host: str, _: int) -> list[str]:
            try:
                return meanings[host.replace(".", "_")]
            except KeyError:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None

        monkeypatch.setattr(targets, "addresses_of", look_up)

    return set_names


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
def test_an_address_that_an_entry_allows(entries: str, url: str, address: str) -> None:
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
def test_a_refusal_names_the_entry_that_would_allow_it(names: Names, entries: str, url: str, entry: str) -> None:
    names(mes_plant_example=["10.9.9.9"], plant_example=["10.9.9.9"])
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
def test_a_name_goes_to_the_address_that_was_judged(names: Names, url: str) -> None:
    names(mes_plant_example=["10.9.9.9", "10.9.9.10"])
    expected = Target("https", "mes.plant.example", 443, ("10.9.9.9", "10.9.9.10"))
    for entries in ("mes.plant.example", "MES.plant.example.:443", "*.plant.example", "*.example:443", "10.9.9.0/24"):
        assert allowing(entries).resolve(url) == expected


def test_names_in_other_scripts_are_their_ascii_forms(names: Names) -> None:
    names(**{"werk_xn--mnchen-3ya_example": ["10.9.9.9"]})
    for entry in ("werk.münchen.example", "werk.xn--mnchen-3ya.example", "*.MÜNCHEN.example"):
        for url in ("http://werk.münchen.example/", "http://werk.MÜNCHEN.example/", "http://werk.münchen。example/"):
            assert allowing(entry).resolve(url).host == "werk.xn--mnchen-3ya.example"
    assert "loopback" in refusal(allowing(EVERYTHING), "http://１２７.0.0.1/")


def test_every_address_of_a_name_has_to_be_allowed(names: Names) -> None:
    names(mes_plant_example=["10.9.9.9", "127.0.0.1"])
    assert "127.0.0.1:80" in refusal(allowing(EVERYTHING), "http://mes.plant.example/")
    names(mes_plant_example=["10.9.9.9", "10.8.8.8"])
    assert "10.8.8.8" in refusal(allowing("10.9.9.0/24"), "http://mes.plant.example/")
    assert allowing("mes.plant.example").resolve("http://mes.plant.example/").addresses == ("10.9.9.9", "10.8.8.8")


def test_a_name_that_is_bound_anew_to_this_machine_is_refused(names: Names) -> None:
    allowed = allowing(EVERYTHING)
    names(mes_plant_example=["203.0.113.7"])
    allowed.check("http://mes.plant.example/")
    for bad in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1%lo", "::", "64:ff9b::7f00:1"):
        names(mes_plant_example=[bad])
        assert "mes.plant.example" in refusal(allowed, "http://mes.plant.example/")


def test_a_real_name_of_this_machine_needs_its_port() -> None:
    assert refusal(allowing("127.0.0.0/8, 0.0.0.0/0, ::/0, localhost:9001"), "http://localhost:9000/")
    found = allowing("localhost:9000").resolve("http://LOCALHOST.:9000/")
    assert (found.host, all(ip_address(one).is_loopback for one in found.addresses)) == ("localhost", True)


def test_a_name_without_an_address_may_be_registered_and_not_called(names: Names) -> None:
    names()
    allowed = allowing("mes.plant.example, *.later.example:443, 10.0.0.0/8")
    for url in ("http://mes.plant.example/", "https://a.later.example/"):
        allowed.check(url)
        with pytest.raises(TargetUnresolved):
            allowed.resolve(url)
    for url in ("http://a.later.example/", "http://other.example/"):
        with pytest.raises(TargetRefused):
            allowed.check(url)


def test_a_name_that_no_entry_can_be_for_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(host: str, _: int) -> list[str]:
        raise AssertionError(host)

    monkeypatch.setattr(targets, "addresses_of", look_up)
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
def test_what_is_no_plain_url_is_refused_by_its_form(url: str) -> None:
    detail = refusal(allowing(EVERYTHING), url)
    assert "secret" not in detail
    with pytest.raises(TargetRefused):
        allowing(EVERYTHING).check(url)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104 - nothing listens here
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
def test_addresses_that_no_entry_allows(address: str) -> None:
    assert "no entry allows it" in refusal(allowing(f"{EVERYTHING}, 0.0.0.0:80"), f"http://{address}/")


def test_the_own_servers_are_never_called(names: Names) -> None:
    names(
        db_example=["10.0.0.5", "fd00::5"],
        broker_example=["10.0.0.6"],
        other_example=["10.0.0.5"],
        alias_example=["::ffff:10.0.0.6"],
    )
    allowed = allowing(
        "10.0.0.0/8, fd00::/8, *.example, 10.0.0.5:5433",
        database_url="postgresql+psycopg://u:p@DB.example:5433/x",
        redis_url="rediss://:p@broker.example/0",
    )
    for url in (
        "http://db.example:5433/",
        "http://10.0.0.5:5433/",
        "http://[fd00::5]:5433/",
        "http://other.example:5433/",
        "http://alias.example:6379/",
        "http://[::ffff:10.0.0.6]:6379/",
    ):
        assert "of Linewatch" in refusal(allowed, url)
    assert allowed.resolve("http://db.example:8000/").addresses == ("10.0.0.5", "fd00::5")
    assert allowed.resolve("http://10.0.0.7:6379/").addresses == ("10.0.0.7",)


@pytest.mark.parametrize(
    "database",
    [
        "postgresql+psycopg://u:p@127.0.0.1:7001/x",
        "postgresql+psycopg://u:p@localhost:7001/x",
        "postgresql+psycopg:///x?host=localhost&port=7001",
        "postgresql+psycopg:///x?host=10.0.0.1:7000&host=localhost:7001",
        "postgresql+psycopg://u:p@somewhere.invalid:7001/x?hostaddr=127.0.0.1",
    ],
)
def test_the_own_database_on_this_machine_is_known_by_all_its_names(database: str) -> None:
    allowed = allowing("localhost:7001, 127.0.0.2:7001, localhost:7002", database_url=database)
    for host in ("localhost", "127.0.0.1", "[::1]", "127.0.0.2", "[::ffff:127.0.0.1]"):
        assert "of Linewatch" in refusal(allowed, f"http://{host}:7001/")
    assert allowed.resolve("http://127.0.0.1:7002/").port == 7002


def test_a_server_on_this_machine_is_known_at_each_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {ip_address(one) for one in ("127.0.0.1", "::1", "10.20.0.9", "fd00::9")}
    monkeypatch.setattr(targets, "is_of_this_machine", own.__contains__)
    for host in ("127.0.0.1", "10.20.0.9"):
        allowed = allowing("10.0.0.0/8, fd00::/8", database_url=f"postgresql+psycopg://u:p@{host}:7001/x")
        for address in ("10.20.0.9", "[fd00::9]", "[::ffff:10.20.0.9]"):
            assert "the database of Linewatch" in refusal(allowed, f"http://{address}:7001/")
        assert allowed.resolve("http://10.20.0.10:7001/").port == 7001
        assert allowed.resolve("http://10.20.0.9:7002/").port == 7002


def test_which_addresses_are_of_this_machine() -> None:
    assert all(is_of_this_machine(ip_address(one)) for one in ("127.0.0.1", "127.1.2.3", "::1"))
    assert not any(is_of_this_machine(ip_address(one)) for one in ("203.0.113.7", "192.0.2.1"))


def test_the_own_mqtt_broker_is_never_called(names: Names) -> None:
    names(broker_example=["10.0.0.6"])
    for url, port in {
        "mqtt://u:p@broker.example": 1883,
        "mqtts://broker.example": 8883,
        "mqtts://broker.example:7001": 7001,
    }.items():
        allowed = allowing("10.0.0.0/8", mqtt_url=url)
        assert "the MQTT broker of Linewatch" in refusal(allowed, f"http://10.0.0.6:{port}/")
        assert allowed.resolve("http://10.0.0.6:9000/").port == 9000


def test_a_look_up_without_an_end_is_no_refusal_of_what_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def look_up(*_: object) -> list[str]:
        over.wait(60)
        return ["10.0.0.7"]

    monkeypatch.setattr(targets, "addresses_of", look_up)
    monkeypatch.setattr(targets, "CHECK_SECONDS", 0.05)
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


def test_a_server_on_a_socket_has_no_address() -> None:
    allowed = allowing("localhost:5432", database_url="postgresql+psycopg:///x?host=/run/postgresql")
    assert allowed.resolve("http://127.0.0.1:5432/").port == 5432


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
def test_a_bad_entry_is_named(bad: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(webhook_allow=f"mes.plant.example, {bad}")
    assert f"{bad!r} is no entry" in str(refused.value)


@pytest.mark.parametrize(
    ("bare", "told"),
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
def test_a_near_address_needs_its_port(bare: str, told: str) -> None:
    with pytest.raises(ValidationError, match="would allow nothing") as refused:
        Settings(webhook_allow=f"mes.plant.example, {bare}")
    assert told in str(refused.value)


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
def test_a_disguise_changes_nothing(four: IPv4Address, disguise: Callable[[IPv4Address], IPv6Address]) -> None:
    assert normalised(disguise(four)) == four
    assert normalised(four) == four


@given(loopbacks | link_locals, st.sampled_from([None, *DISGUISES]), ports, ports)
def test_no_range_and_no_port_but_its_own_lets_near_addresses_through(
    near: IPv4Address, disguise: Callable[[IPv4Address], IPv6Address] | None, port: int, other: int
) -> None:
    url = f"http://{written(disguise(near) if disguise else near, port)}/"
    around = f"{EVERYTHING}, {near}/32, {near}/32:{port}, 127.0.0.0/8:{port}, 169.254.0.0/16:{port}"
    assert f"only the entry {near}:{port}." in refusal(allowing(around), url)
    if other != port:
        refusal(allowing(f"{around}, {near}:{other}"), url)
    assert allowing(f"{near}:{port}").resolve(url).port == port


@given(fours | sixes, ports, st.none() | ports)
def test_an_entry_of_an_address_is_for_that_address_and_port(
    address: IPv4Address | IPv6Address, port: int, asked: int | None
) -> None:
    if normalised(address) != address:
        with pytest.raises(ValueError, match="IPv4"):
            parse_entries(written(address, port))
        return
    [entry] = parse_entries(written(address, port))
    assert entry.is_exactly(address, port)
    assert entry.covers(address, asked or port) == (asked in (None, port))
    if near(address):
        with pytest.raises(ValueError, match=":PORT"):
            parse_entries(str(address))
        return
    [anywhere] = parse_entries(str(address))
    assert anywhere.covers(address, port)
    assert not anywhere.is_exactly(address, port)


@given(fours)
def test_only_the_usual_form_of_an_address_is_one(four: IPv4Address) -> None:
    assert parse_host(str(four)) == four
    first, _, rest = str(four).partition(".")
    for form in (str(int(four)), hex(int(four)), f"0{int(four):o}", f"{hex(int(first))}.{rest}", f"0{first}.{rest}"):
        with pytest.raises(ValueError, match="usual form"):
            parse_host(form)


labels = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)


@given(st.lists(labels, min_size=1, max_size=4), ports, st.booleans())
def test_an_origin_is_the_same_however_it_is_written(parts: list[str], port: int, dot: bool) -> None:
    name = ".".join(parts)
    shouted = name.upper() + "." * dot
    assert Origin.of(f"HTTPS://{shouted}:{port}/a?b") == Origin("https", name, port)
    assert Origin.of(f"https://{shouted}") == Origin.of(f"https://{name}:443/")


@given(st.text(max_size=60))
def test_any_text_is_judged_and_never_breaks(text: str) -> None:
    for url in (text, f"http://{text}", f"http://{text}/hook"):
        try:
            allowing("").check(url)
        except TargetRefused as refused:
            assert refused.detail  # noqa: PT017 - any text may be refused, and none is accepted
        else:
            pytest.fail(f"{url!r} was accepted")
