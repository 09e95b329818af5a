"""No entry allows webhooks to the servers of Linewatch itself, by any name or address."""

from ipaddress import ip_address

import pytest

from core.addresses import is_local_address
from core.delivery import allowed_targets
from tests.fixtures.allow_lists import SetDns, allowing, refusal


def test_linewatchs_own_servers_are_never_called(set_dns: SetDns) -> None:
    set_dns(
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
def test_a_local_database_is_recognised_by_all_its_names(database: str) -> None:
    allowed = allowing("localhost:7001, 127.0.0.2:7001, localhost:7002", database_url=database)
    for host in ("localhost", "127.0.0.1", "[::1]", "127.0.0.2", "[::ffff:127.0.0.1]"):
        assert "of Linewatch" in refusal(allowed, f"http://{host}:7001/")
    assert allowed.resolve("http://127.0.0.1:7002/").port == 7002


def test_a_local_server_is_recognised_at_each_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {ip_address(address) for address in ("127.0.0.1", "::1", "10.20.0.9", "fd00::9")}
    monkeypatch.setattr(allowed_targets, "is_local_address", addresses.__contains__)
    for host in ("127.0.0.1", "10.20.0.9"):
        allowed = allowing("10.0.0.0/8, fd00::/8", database_url=f"postgresql+psycopg://u:p@{host}:7001/x")
        for address in ("10.20.0.9", "[fd00::9]", "[::ffff:10.20.0.9]"):
            assert "the database of Linewatch" in refusal(allowed, f"http://{address}:7001/")
        assert allowed.resolve("http://10.20.0.10:7001/").port == 7001
        assert allowed.resolve("http://10.20.0.9:7002/").port == 7002


def test_local_addresses_are_recognised() -> None:
    assert all(is_local_address(ip_address(address)) for address in ("127.0.0.1", "127.1.2.3", "::1"))
    assert not any(is_local_address(ip_address(address)) for address in ("203.0.113.7", "192.0.2.1"))


def test_linewatchs_own_mqtt_broker_is_never_called(set_dns: SetDns) -> None:
    set_dns(broker_example=["10.0.0.6"])
    for url, port in {
        "mqtt://u:p@broker.example": 1883,
        "mqtts://broker.example": 8883,
        "mqtts://broker.example:7001": 7001,
    }.items():
        allowed = allowing("10.0.0.0/8", mqtt_url=url)
        assert "the MQTT broker of Linewatch" in refusal(allowed, f"http://10.0.0.6:{port}/")
        assert allowed.resolve("http://10.0.0.6:9000/").port == 9000


def test_a_server_on_a_socket_has_no_address() -> None:
    allowed = allowing("localhost:5432", database_url="postgresql+psycopg:///x?host=/run/postgresql")
    assert allowed.resolve("http://127.0.0.1:5432/").port == 5432
