"""The programs of docs/mes.md, run unchanged against a running system."""

import csv
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from core.feed.feed import Cursor
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png
from tests.fixtures.running_system import System

DOCUMENT = Path(__file__).parents[3] / "docs" / "mes.md"
PROGRAMS = re.compile(r"<!-- (\w+\.py) -->\n```python\n(.*?)```", re.DOTALL)
SECONDS = 60


@pytest.fixture
def folder(system: System, recipe: str, tmp_path: Path) -> Path:
    """A folder with the programs, adapted to the URL and the recipe, and two images."""
    replacements = {"http://127.0.0.1:8000": system.url, "9000": str(system.webhook_port), '"ring"': f'"{recipe}"'}
    replacements |= {"L-204": f"L-{recipe}", '"mes"': f'"mes-{recipe}"'}
    for name, program in PROGRAMS.findall(DOCUMENT.read_text()):
        for documented, replacement in replacements.items():
            program = program.replace(documented, replacement)
        (tmp_path / name).write_text(program)
    (tmp_path / "part.png").write_bytes(png(700))
    (tmp_path / "scratched.png").write_bytes(png(701, scratched=True))
    return tmp_path


def run(folder: Path, *command: str, code: int = 0) -> str:
    completed = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    assert completed.returncode == code, f"{command}\n{completed.stdout}\n{completed.stderr}"
    return completed.stdout


@contextmanager
def running(folder: Path, name: str, *, end: signal.Signals = signal.SIGKILL) -> Iterator[Path]:
    """Run a program that does not end by itself, and yield the file with its output."""
    output_file = folder / f"{name}.txt"
    with output_file.open("w") as output:
        process = subprocess.Popen([sys.executable, name], cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield output_file
            assert process.poll() is None, output_file.read_text()
        finally:
            process.send_signal(end)
            process.wait()


def stored_verdicts(database: Path) -> dict[str, str | None]:
    """Return the verdicts that a program has stored, by inspection."""
    with closing(sqlite3.connect(database)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'results'").fetchone():
            return {}
        return dict(connection.execute("SELECT id, verdict FROM results"))


def wait_until(condition: Callable[[], bool], message: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, message()
        time.sleep(0.05)


def submit_all(client: httpx.Client, recipe: str, *seeds: int) -> list[str]:
    ids = [submit(client, recipe, png(seed), part_id=f"SN-{seed}")["id"] for seed in seeds]
    for inspection_id in ids:
        final(client, inspection_id)
    return ids


def overrule(client: httpx.Client, inspection_id: str) -> None:
    now = client.get(f"/v1/inspections/{inspection_id}").json()["effective_verdict"]
    new = {"verdict": "ok" if now == "ng" else "ng", "reviewer": "quality desk", "reason": "looked at it"}
    assert client.post(f"/v1/inspections/{inspection_id}/reviews", json=new).status_code == 201


def expected(client: httpx.Client, recipe: str) -> Mapping[str, str | None]:
    items = client.get("/v1/inspections", params={"recipe": recipe, "limit": 1000}).json()["items"]
    return {item["id"]: item["effective_verdict"] for item in items}


def test_the_feed_reader_misses_nothing(client: httpx.Client, recipe: str, folder: Path) -> None:
    database = folder / "mes.db"

    def has_all(number: int) -> Callable[[], bool]:
        return lambda: len(now := stored_verdicts(database)) == number and now == expected(client, recipe)

    with running(folder, "feed.py") as output:
        [first, *_] = submit_all(client, recipe, 1, 2, 3)
        wait_until(has_all(3), output.read_text)
    submit_all(client, recipe, 4, 5)  # while it is not running
    overrule(client, first)
    with running(folder, "feed.py") as output:
        wait_until(has_all(5), output.read_text)

    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE position SET cursor = ?", [str(Cursor(epoch=1, number=1, numbered_at=1))])
        connection.execute("DELETE FROM results")
    with running(folder, "feed.py") as output:
        wait_until(has_all(5), output.read_text)
        assert "cursor_epoch" in output.read_text()


def test_a_consumer_reads_each_result_once(client: httpx.Client, recipe: str, folder: Path) -> None:
    ids = submit_all(client, recipe, 10, 11)
    lines = run(folder, "consumer.py").splitlines()
    # They were submitted separately, so either may finish first.
    assert sorted(line.split()[0] for line in lines if "SN-" in line) == sorted(ids)
    assert f"mes-{recipe} is 0 behind" in lines
    assert "SN-" not in run(folder, "consumer.py")


def test_a_station_waits_for_its_part(client: httpx.Client, folder: Path, recipe: str) -> None:
    part_id = f"SN/{recipe}"
    for path in (folder / "part.png", folder / "scratched.png"):
        completed = subprocess.run(
            [sys.executable, "station.py", part_id, str(path), "part.png"],
            cwd=folder, capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip
        part = client.get(f"/v1/parts/{part_id}").json()
        assert part["status"] == "completed", completed.stderr
        assert completed.stdout.splitlines()[0] == f"{part_id} {part['effective_verdict']}"
        assert completed.returncode == (0 if part["effective_verdict"] == "ok" else 1)
        assert [view["view"] for view in part["views"]] == ["camera-1", "camera-2"]


def test_a_receiver_gets_every_event(client: httpx.Client, recipe: str, folder: Path, system: System) -> None:
    endpoint_id = run(folder, "register.py").strip()
    try:
        with running(folder, "receiver.py") as output:
            [first, *_] = submit_all(client, recipe, 20, 21, 22)
            overrule(client, first)
            wait_until(lambda: stored_verdicts(folder / "events.db") == expected(client, recipe), output.read_text)
            forged = httpx.post(f"http://127.0.0.1:{system.webhook_port}/linewatch", json={"type": "x", "data": {}})
            assert forged.status_code == 400
            delivery = client.post(f"/v1/webhook-endpoints/{endpoint_id}/test").json()
            wait_until(lambda: client.get(f"/v1/deliveries/{delivery['id']}").json()["tries"] > 0, output.read_text)
            assert client.get(f"/v1/deliveries/{delivery['id']}").json()["state"] == "delivered", output.read_text()
    finally:
        assert client.delete(f"/v1/webhook-endpoints/{endpoint_id}").status_code == 204


def test_the_lot_program_reviews_and_exports_a_lot(folder: Path, recipe: str) -> None:
    lines = run(folder, "lot.py").splitlines()
    assert lines == ["completed 2", "2 are ok"]
    with (folder / f"L-{recipe}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["external_id"], row["effective_verdict"], row["reviewer"]) for row in rows} == {
        ("part.png", "ok", "quality desk"),
        ("scratched.png", "ok", "quality desk"),
    }
    assert pq.read_table(folder / f"L-{recipe}.parquet").column("id").to_pylist() == [row["id"] for row in rows]


def test_the_page_documents_every_field() -> None:
    from core.documents.documents import Inspection
    from core.documents.opcua import OpcUaResult

    _, _, section = DOCUMENT.read_text().partition("## Field names in OPC UA")
    words = set(re.findall(r"[A-Za-z_]+", " ".join(re.findall(r"`([^`]+)`", section))))
    names = {field.serialization_alias or name for name, field in OpcUaResult.model_fields.items()}
    assert names | set(Inspection.model_fields) <= words


def test_every_program_of_the_page_is_tested() -> None:
    tested = set(re.findall(r'"(\w+\.py)"', Path(__file__).read_text()))
    assert {name for name, _ in PROGRAMS.findall(DOCUMENT.read_text())} == tested
    assert DOCUMENT.read_text().count("```python") == len(tested)
