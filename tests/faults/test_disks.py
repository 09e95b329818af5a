"""Full disks, which are small tmpfs here: uploads are refused with a code, and go on when there is room again."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.fixtures.faults.injection import Target
from tests.fixtures.faults.recovery import Recovery, verify
from tests.fixtures.faults.steady_uploads import Uploads
from tests.fixtures.part_images import png
from tests.fixtures.running_system import System

FULL_SECONDS = 8
STORE_MB = 24
PNG = {"Content-Type": "image/png"}
DATA_MB = 700  # the database's first files and write-ahead log, and the copy of its programs


@pytest.fixture
def small_disk(tmp_path: Path, reachable_folder: Path) -> Iterator[Callable[[int], Path]]:
    """`small_disk(megabytes)` mounts one."""
    mounted = []

    def mount(megabytes: int) -> Path:
        folder = reachable_folder / f"disk-{megabytes}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"mounting a small disk needs root: {done.stderr}"
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Fill a disk to the last byte for a `with` block."""
    file = disk / "filler"
    with file.open("wb", buffering=0) as filler:
        for size in (1_000_000, 4096, 1):
            try:
                while True:
                    filler.write(bytes(size))
            except OSError:
                continue
    try:
        yield
    finally:
        file.unlink()


def _measure(target: Target, uploads: Uploads, disk: Path, name: str) -> Recovery:
    with uploads.running(20):
        target.oracle.wait_until_final(uploads.wait_for(60), 30)
        before = len(uploads.accepted)
        with filled(disk):
            time.sleep(FULL_SECONDS)
            answer = _try(target.system.url, uploads.recipe)
            assert answer is None or answer.status_code in (202, 503, 507), answer.text
        freed = time.monotonic()
        uploads.send_image(png(7))
        target.oracle.require_final(uploads.ids, 90)
        return Recovery(name, time.monotonic() - freed, len(uploads.accepted) - before)


def _try(url: str, recipe: str) -> httpx.Response | None:
    """An upload without a retry; None without an answer."""
    try:
        return httpx.post(f"{url}/v1/inspections", params={"recipe": recipe}, content=png(8), headers=PNG, timeout=30)
    except httpx.TransportError:
        return None


def test_a_full_disk_of_the_store(
    small_disk: Callable[[int], Path], reachable_folder: Path, bundle: Path, recoveries: list[Recovery]
) -> None:
    disk = small_disk(STORE_MB)
    folder = reachable_folder / "full-store"
    folder.mkdir()
    with System.running(folder, LINEWATCH_STORE_URL=disk.as_uri()) as system:
        target = Target.of(system)
        uploads = Uploads.of_a_new_recipe(system.url, bundle, seed=4)
        recoveries.append(_measure(target, uploads, disk, "the disk of the image store is full for 8 s"))
        verify(target, uploads)


def test_a_full_disk_of_the_database(
    small_disk: Callable[[int], Path], bundle: Path, recoveries: list[Recovery]
) -> None:
    """The store, the write-ahead log of PostgreSQL and the file of Valkey: nothing can be written."""
    disk = small_disk(DATA_MB)
    folder = disk / "everything"
    folder.mkdir()
    with System.running(folder) as system:
        target = Target.of(system)
        uploads = Uploads.of_a_new_recipe(system.url, bundle, seed=5)
        recoveries.append(_measure(target, uploads, disk, "the disk of everything is full for 8 s"))
        verify(target, uploads)
