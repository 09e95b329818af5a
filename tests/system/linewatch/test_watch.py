"""`linewatch watch` against a real api: kills, outages and signals lose no image and send none twice."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from core.models import recipes
from core.settings import Settings
from linewatch.cli import run
from tests.fixtures import documentation
from tests.fixtures.api_process import running_api
from tests.fixtures.part_images import png
from tests.fixtures.servers import free_port

QUICK = ["--settle", "0.1", "--every", "0.05"]
SECONDS = 60


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def http(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """An api without workers; the recipe `ring` accepts images."""
    with running_api(settings) as client:
        assert client.post("/v1/recipes", json={"name": "ring", "without_model": "wait"}).status_code == 201
        monkeypatch.setenv("LINEWATCH_URL", str(client.base_url))
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "camera"
    folder.mkdir()
    return folder


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(len(name)))


def stored(engine: Engine, columns: str = "external_id") -> list[Any]:
    with engine.begin() as connection:
        rows = connection.execute(text(f"SELECT {columns} FROM work ORDER BY external_id"))  # noqa: S608 - constants
        return [row[0] if len(row) == 1 else tuple(row) for row in rows]


@contextmanager
def watching(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "linewatch.cli", "watch", str(folder), "--recipe", "ring", *QUICK, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_is_there_is_taken_with_the_fields_of_its_path(
    http: httpx.Client, folder: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "2/L-7/SN_1_top.png", "2/L-7/SN_2_side.png", "2/L-7/SN_3.png.part")
    (folder / "2/L-7/SN_4_top.png").write_text("no image")
    pattern = "{line_id}/{lot_id}/{part_id}_{view}.*"
    arguments = ["watch", str(folder), "--once", "--recipe", "ring", "--fields", pattern, "--station", "st-7", *QUICK]
    assert run(arguments) == 1
    output = capsys.readouterr()
    lines = sorted(output.out.splitlines())
    assert [line.split()[:2] for line in lines] == [
        ["accepted", "2/L-7/SN_1_top.png"],
        ["accepted", "2/L-7/SN_2_side.png"],
        ["rejected", "2/L-7/SN_4_top.png:"],
    ]
    assert "2 images were accepted and 1 rejected." in output.err
    assert stored(engine, "line_id, lot_id, part_id, view, station_id") == [
        ("2", "L-7", "SN_1", "top", "st-7"),
        ("2", "L-7", "SN_2", "side", "st-7"),
    ]
    assert (folder / "rejected/2/L-7/SN_4_top.png.txt").read_text().endswith("(unsupported_media_type)\n")
    assert (folder / "accepted/2/L-7/SN_1_top.png").is_file()
    assert run([*arguments, "--json"]) == 0
    assert capsys.readouterr().out == ""


def test_an_image_is_taken_once_it_is_complete(http: httpx.Client, folder: Path, engine: Engine) -> None:
    image = png(1)
    with watching(folder, "--settle", "2") as process:
        with (folder / "slow.png").open("wb") as file:
            for start in range(0, len(image), len(image) // 10):
                file.write(image[start : start + len(image) // 10])
                file.flush()
                time.sleep(0.1)
        assert process.stdout is not None
        name, inspection_id = process.stdout.readline().split()[1:]
        assert name == "slow.png"
    assert http.get(f"/v1/inspections/{inspection_id}/image").content == image
    assert stored(engine) == ["slow.png"]


def test_a_killed_watch_sends_nothing_twice_and_forgets_nothing(
    http: httpx.Client, folder: Path, engine: Engine
) -> None:
    names = [f"{number:03}.png" for number in range(60)]
    write(folder, *names)
    for taken in (1, 10, 30):
        with watching(folder) as process:
            wait_until(lambda taken=taken: len(stored(engine)) >= taken)  # type: ignore[misc]
            process.kill()
            process.wait()
    assert run(["watch", str(folder), "--once", "--recipe", "ring", *QUICK]) == 0
    assert stored(engine) == names
    assert sorted(path.name for path in (folder / "accepted").iterdir()) == names
    assert [path.name for path in folder.iterdir()] == ["accepted"]


def test_it_waits_for_the_api_and_the_folder_and_ends_on_sigterm(
    settings: Settings, folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = str(free_port())
    monkeypatch.setenv("LINEWATCH_URL", f"http://127.0.0.1:{port}")
    with engine.begin() as connection:
        recipes.create(connection, "ring", without_model="wait", actor="test")
    write(folder, "1.png")
    with watching(folder, "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline().startswith(f"Waiting: http://127.0.0.1:{port} cannot be reached")
        with running_api(settings, LINEWATCH_PORT=port):
            assert json.loads(process.stdout.readline())["external_id"] == "1.png"
            assert process.stderr.readline().startswith("Back after ")
            wait_until((folder / "accepted/1.png").exists)
            away = folder.rename(folder.with_name("away"))
            assert process.stderr.readline() == f"Waiting: {folder}: No such file or directory.\n"
            away.rename(folder)
            assert process.stderr.readline().startswith("The folder: all right again")
            write(folder, "2.png")
            assert json.loads(process.stdout.readline())["external_id"] == "2.png"
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        assert process.stderr.read() == "2 images were accepted and 0 rejected.\n"
    assert stored(engine) == ["1.png", "2.png"]


def test_sigterm_ends_a_wait_for_the_api(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEWATCH_URL", f"http://127.0.0.1:{free_port()}")
    write(folder, "1.png")
    with watching(folder) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("Waiting: ")
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    assert (folder / "1.png").exists()


def test_one_watch_takes_a_folder(http: httpx.Client, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "1.png")
    with watching(folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("accepted 1.png")
        assert run(["watch", str(folder), "--once", "--recipe", "ring"]) == 1
    assert "another process is watching this folder" in capsys.readouterr().err


def test_the_commands_of_the_guide_run(http: httpx.Client, tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "part.png").write_bytes(png(1))
    variables = documentation.environment(tmp_path, str(http.base_url))
    [block] = [block for block in documentation.blocks("docs/watch-folder.md") if block.language == "bash"]
    assert documentation.run(block, tmp_path, variables, {}).startswith("accepted L-208/SN-4713_top.png ")
    assert stored(engine, "lot_id, part_id, view") == [("L-208", "SN-4713", "top")]
