"""`linewatch doctor`: each check finds what is wrong, and works while other parts are down."""

import json
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from core.access import keys
from core.database import create_unbounded
from core.models import model_versions, recipes
from core.models.retention_policies import RetentionPolicy
from core.settings import Settings
from core.settings import settings as read_settings
from core.storage.folder_store import FolderStore
from core.system.store_usage import Disk
from linewatch.cli import run
from linewatch.server.doctor import access, machine, storage
from linewatch.server.doctor import broker as broker_checks
from linewatch.server.doctor.findings import Finding
from migrations.__main__ import migrate
from tests.fixtures.api_process import running_api
from tests.fixtures.bundles import register_bundle
from tests.fixtures.later_migrations import later_release
from tests.fixtures.queued_work import make_recipe

NOBODY = "http://127.0.0.1:9"
EXPECTED = {"durability": "warning", "models": "note", "api": "note"}
"""What is not `ok` in tests: the database does not sync, there is no recipe, and no api runs."""


@pytest.fixture(autouse=True)
def _environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LINEWATCH_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("LINEWATCH_REDIS_URL", settings.redis_url.get_secret_value())
    monkeypatch.setenv("LINEWATCH_STORE_URL", settings.store_url)
    monkeypatch.setattr(
        storage, "disk", lambda *_: Disk(10**12, 10**12 // 2, 10**9)
    )  # of the machine that runs the tests
    FolderStore(settings.store_url)
    read_settings.cache_clear()
    yield
    read_settings.cache_clear()


class Doctor:
    """Runs the command, and finds what it found."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str, url: str = NOBODY) -> dict[str, Any]:
        """Run it and return its JSON, with its exit status as `exit`."""
        read_settings.cache_clear()
        status = run(["doctor", "--json", "--url", url, *arguments])
        printed: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        assert {"ok": 0, "note": 0, "warning": 0, "error": 1}[printed["status"]] == status
        for finding in printed["findings"]:
            assert (finding["level"] in ("ok", "note")) or finding["remedy"], finding
        return printed

    def problems(self, **options: Any) -> dict[str, tuple[str, str]]:
        """Return the level and the description of what is neither ok nor expected in tests."""
        findings = self(**options)["findings"]
        return {
            finding["what"]: (finding["level"], finding["found"])
            for finding in findings
            if finding["level"] != EXPECTED.get(finding["what"], "ok")
        }


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    return Doctor(capsys)


def test_it_checks_everything_and_prints_no_secret(doctor: Doctor, settings: Settings) -> None:
    printed = doctor()
    checked = {finding["what"] for finding in printed["findings"]}
    assert checked == {
        "Linewatch", "libraries", "PostgreSQL", "clock", "connections", "durability", "schema", "Redis", "eviction",
        "Redis memory", "persistence", "store", "disk", "models", "torch", "api", "access",
    }  # fmt: skip
    assert doctor.problems() == {}
    password = make_url(settings.database_url.get_secret_value()).password
    assert password
    assert password not in json.dumps(printed)


def test_parts_that_are_down_are_named_and_the_others_checked(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEWATCH_DATABASE_URL", "postgresql+psycopg://nobody:s3cret@127.0.0.1:9/none")
    monkeypatch.setenv("LINEWATCH_REDIS_URL", "redis://127.0.0.1:9/0")
    monkeypatch.setenv("LINEWATCH_STORE_URL", "file:///nowhere")
    printed = doctor()
    assert printed["status"] == "error"
    levels = {finding["what"]: finding["level"] for finding in printed["findings"]}
    assert {name: levels[name] for name in ("PostgreSQL", "Redis", "store")} == dict.fromkeys(
        ("PostgreSQL", "Redis", "store"), "error"
    )
    assert levels["torch"] == "ok"
    assert "s3cret" not in json.dumps(printed)


def test_with_redis_down_the_rest_is_checked(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEWATCH_REDIS_URL", "redis://127.0.0.1:9/0")
    problems = doctor.problems()
    assert problems.keys() == {"Redis"}, problems
    assert problems["Redis"][0] == "error"


@pytest.mark.parametrize(
    ("revision", "remedy"),
    [("0013", "linewatch migrate"), ("of_the_future", "upgrade Linewatch"), (None, "linewatch migrate")],
)
def test_a_wrong_schema_is_an_error(doctor: Doctor, engine: Engine, revision: str | None, remedy: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM alembic_version"))
        if revision is not None:
            connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": revision})
    printed = doctor()
    [schema] = [finding for finding in printed["findings"] if finding["what"] == "schema"]
    assert (printed["status"], schema["level"]) == ("error", "error")
    assert remedy in schema["remedy"]


def test_a_schema_of_the_next_release_is_a_note(doctor: Doctor, settings: Settings, tmp_path: Path) -> None:
    engine = create_unbounded(settings, name="tests")
    with later_release(tmp_path / "later", "ALTER TABLE work ADD COLUMN note text"):
        migrate(engine)
    [schema] = [finding for finding in doctor()["findings"] if finding["what"] == "schema"]
    assert schema["level"] == "note"
    assert schema["found"] == "revision later of Linewatch 90.0.0, which works with this version"


@pytest.fixture
def configure(settings: Settings) -> Iterator[Callable[[str, str], None]]:
    """`configure(name, value)` changes a setting of the queue's server for one test."""
    changed: dict[str, str] = {}
    with redis.Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True) as server:

        def change(name: str, value: str) -> None:
            changed.setdefault(name, server.config_get(name)[name])
            server.config_set(name, value)

        yield change
        for name, value in changed.items():
            server.config_set(name, value)


def test_a_queue_that_evicts_or_is_full_is_a_warning(doctor: Doctor, configure: Callable[[str, str], None]) -> None:
    configure("maxmemory-policy", "volatile-lru")  # evicts nothing here, because no key expires
    configure("maxmemory", "1000000")
    problems = doctor.problems()
    assert problems["eviction"] == ("warning", "maxmemory-policy volatile-lru")
    assert problems["Redis memory"][0] == "warning"


def test_a_queue_without_an_append_only_file_is_a_note(doctor: Doctor, configure: Callable[[str, str], None]) -> None:
    configure("appendonly", "no")
    assert doctor.problems()["persistence"][0] == "note"


@pytest.mark.parametrize(
    ("url", "warns"),
    [
        ("redis://queue/0", True),
        ("redis://:pw@queue/0", False),
        ("redis://127.0.0.1/0", False),
        ("unix:///run/valkey.sock", False),
    ],
)
def test_a_queue_of_another_machine_needs_a_password(url: str, warns: bool) -> None:
    found = broker_checks._check_password(Settings(redis_url=url))
    assert [finding.level for finding in found] == (["warning"] if warns else [])


@pytest.mark.parametrize(("hours", "level"), [("10 seconds", "warning"), ("1 hour", "error"), ("-1 hour", "error")])
def test_a_clock_that_differs_is_found(
    doctor: Doctor, execute_sql: Callable[[str], None], engine: Engine, hours: str, level: str
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(f"""
            CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql
            AS $$ SELECT pg_catalog.clock_timestamp() + interval '{hours}' $$
        """)
        )
        name = connection.execute(text("SELECT current_database()")).scalar_one()
    execute_sql(f"ALTER DATABASE {name} SET search_path = public, pg_catalog")
    found = doctor.problems()["clock"]
    assert found[0] == level
    assert ("ahead" if hours.startswith("-") else "behind") in found[1]


@pytest.mark.parametrize(
    ("free", "daily", "level"),
    [(500, 1, "ok"), (500, 100, "warning"), (40, 0, "warning"), (5, 0, "error")],
)
def test_a_disk_that_is_full_or_soon_will_be_is_found(
    doctor: Doctor, engine: Engine, monkeypatch: pytest.MonkeyPatch, free: int, daily: int, level: str
) -> None:
    """Sizes in GB; the disk has 1000."""
    monkeypatch.setattr(storage, "disk", lambda *_: Disk(1000 * 10**9, free * 10**9, 20 * 10**9))
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO store_days (day, images, bytes)
                SELECT CAST(now() AT TIME ZONE 'UTC' AS date) - n, 1, :bytes FROM generate_series(0, 7) AS n
            """),
            {"bytes": daily * 10**9},
        )
    [found] = [finding for finding in doctor()["findings"] if finding["what"] == "disk"]
    assert found["level"] == level
    if daily:
        assert found["found"].endswith(f"room for {free / daily:.0f} days")
        with engine.begin() as connection:
            recipes.create(connection, "ring", retention=RetentionPolicy(ok_images_days=30), actor="test")
        [found] = [finding for finding in doctor()["findings"] if finding["what"] == "disk"]
        assert found["found"].endswith("more with what the retention of recipes removes")


def test_a_damaged_bundle_of_an_active_version_is_an_error(
    doctor: Doctor, engine: Engine, settings: Settings, bundle: Path
) -> None:
    store = FolderStore(settings.store_url)
    with engine.begin() as connection:
        make_recipe(connection)
    version_id = register_bundle(engine, store, bundle)
    with engine.begin() as connection:
        model_versions.mark_ready(connection, version_id)
    [found] = [finding for finding in doctor()["findings"] if finding["what"] == "models"]
    assert (found["level"], found["found"]) == ("ok", "1 active versions have the right checksums")
    [file] = (store.root / "models").iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    assert doctor.problems()["models"][0] == "error"
    file.unlink()
    assert "is missing in the store" in doctor.problems()["models"][1]


def test_a_public_address_needs_keys(
    doctor: Doctor, engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINEWATCH_HOST", "0.0.0.0")  # noqa: S104 - what is checked
    monkeypatch.setenv("LINEWATCH_AUTH", "off")
    assert doctor.problems()["access"][0] == "error"
    monkeypatch.delenv("LINEWATCH_AUTH")
    level, found = doctor.problems()["access"]
    assert (level, "0 with the scope admin" in found) == ("warning", True)
    with engine.begin() as connection:
        keys.create(connection, "me", ["admin"], actor="test")
    assert "access" not in doctor.problems()


def test_metrics_that_other_machines_can_read_are_a_note(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEWATCH_METRICS_PORT", "9464")
    assert "metrics" not in [finding["what"] for finding in doctor()["findings"]]
    monkeypatch.setenv("LINEWATCH_METRICS_HOST", "0.0.0.0")  # noqa: S104 - what is checked
    [found] = [finding for finding in doctor()["findings"] if finding["what"] == "metrics"]
    assert (found["level"], "0.0.0.0, from port 9464" in found["found"]) == ("note", True)


def test_a_running_api_is_asked_whether_it_needs_keys(
    doctor: Doctor, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_api(settings) as http:
        url = str(http.base_url).rstrip("/")
        findings = {finding["what"]: finding for finding in doctor(url=url)["findings"]}
        assert (findings["api"]["level"], findings["access"]["level"]) == ("ok", "ok")
        assert "127.0.0.1" in findings["port"]["found"]
        assert findings["system"]["level"] == "error"  # no scoring worker
        monkeypatch.setattr(access, "_listening_on", lambda port: {"0.0.0.0"})  # noqa: S104 - as if it were public
        level, found = doctor.problems(url=url)["access"]
        assert (level, "needs no key" in found) == ("error", True)


def test_a_port_that_another_program_uses_is_an_error() -> None:
    absent = Finding("api", "note", "no response")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        [found] = access.check_port(url, absent)
        assert (found.level, "in use by a program" in found.found) == ("error", True)
    assert access.check_port(url, absent) == []


@pytest.mark.parametrize(
    ("address", "text_"),
    [("0100007F", "127.0.0.1"), ("00000000", "0.0.0.0"), ("00000000000000000000000001000000", "::1")],  # noqa: S104
)
def test_addresses_of_the_kernel_are_read(address: str, text_: str) -> None:
    assert access._address(address) == text_


def test_a_gpu_that_the_build_of_torch_cannot_use_is_found(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "NVIDIA H200, 570.10, 10 MiB, 143771 MiB, 30"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    problems = doctor.problems()
    assert problems["torch"][0] == "warning"
    assert "NVIDIA H200" in problems["torch"][1]
    monkeypatch.setenv("LINEWATCH_DEVICE", "cuda")
    assert doctor.problems()["torch"][0] == "error"


@pytest.mark.parametrize(
    ("architecture", "runs"),
    [
        ("sm_90", True),
        ("sm_80", False),
        ("sm_90a", True),
        ("compute_80", True),
        ("sm_100", False),
        ("compute_100", False),
    ],
)
def test_kernels_run_on_their_generation_and_ptx_on_newer_ones(architecture: str, runs: bool) -> None:
    assert machine._runs_on(architecture, 9, 0) is runs


def test_a_check_that_fails_itself_is_a_finding(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(settings: Settings) -> list[Finding]:
        raise RuntimeError("a defect")

    monkeypatch.setattr(broker_checks, "check_redis", broken)
    assert doctor.problems()["Redis"] == ("error", "could not be checked: RuntimeError: a defect")


def test_the_table_for_people_has_settings_findings_and_remedies(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINEWATCH_REDIS_URL", "redis://127.0.0.1:9/0")
    read_settings.cache_clear()
    assert run(["doctor", "--url", NOBODY]) == 1
    printed = capsys.readouterr()
    assert "LINEWATCH_MAX_UPLOAD_BYTES" in printed.out
    assert "Redis: start it, or set LINEWATCH_REDIS_URL" in printed.err


@contextmanager
def broker(answer: bytes) -> Iterator[str]:
    """Run a fake MQTT broker that answers one connection with these bytes."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1024)
            connection.sendall(answer)
            while connection.recv(1024):  # until the client closes
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve)
        yield f"mqtt://me:s3cret@127.0.0.1:{listener.getsockname()[1]}"
        served.result(30)


def mqtt_finding(capsys: pytest.CaptureFixture[str], url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("LINEWATCH_MQTT_URL", url)
    read_settings.cache_clear()
    run(["doctor", "--json", "--url", NOBODY])
    output = capsys.readouterr().out
    assert "s3cret" not in output
    [result] = [finding for finding in json.loads(output)["findings"] if finding["what"] == "MQTT"]
    return result  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("answer", "level", "message"),
    [
        (b"\x20\x02\x00\x00", "ok", "accepts connections"),
        (b"\x20\x02\x00\x05", "error", "it rejects the connection: Not authorized"),
        (b"SSH-2.0\r\n", "error", "is it a broker?"),
    ],
    ids=["accepted", "not-authorized", "no-broker"],
)
def test_doctor_connects_to_the_mqtt_broker(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: bytes, level: str, message: str
) -> None:
    monkeypatch.setattr("linewatch.server.doctor.broker.MQTT_TIMEOUT", 1.0)
    with broker(answer) as url:
        finding = mqtt_finding(capsys, url, monkeypatch)
    assert (finding["level"], message in finding["found"]) == (level, True), finding


def test_doctor_reports_an_unreachable_broker_and_a_missing_mqtt_client(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = mqtt_finding(capsys, "mqtt://127.0.0.1:9", monkeypatch)
    assert (finding["level"], "cannot be reached" in finding["found"]) == ("error", True)
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    finding = mqtt_finding(capsys, "mqtt://127.0.0.1:9", monkeypatch)
    assert (finding["level"], finding["remedy"]) == ("error", "pip install 'linewatch[mqtt]'")


def test_it_says_whether_traces_can_be_exported(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    def level() -> str | None:
        return {finding["what"]: finding["level"] for finding in doctor()["findings"]}.get("traces")

    assert level() is None
    with socket.create_server(("127.0.0.1", 0)) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.getsockname()[1]}")
        assert level() == "ok"
    assert level() == "warning"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert level() == "error"


def test_doctor_lists_each_archive_root(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LINEWATCH_ARCHIVE_ROOTS", f"{tmp_path}, {tmp_path}/away, s3://images/lot")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    read_settings.cache_clear()
    assert run(["doctor", "--json", "--url", NOBODY]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    roots = [(finding["level"], finding["found"]) for finding in findings if finding["what"] == "archive"]
    assert [level for level, _ in roots] == ["ok", "error", "error"]
    assert f"{tmp_path}/away" in roots[1][1]
    assert "s3://images/lot" in roots[2][1]
