"""An image that kills its decoder is poison, a broken one is not; other images are decoded."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from core.errors import Failure
from core.intake.image_decoding import Undecodable, decode
from core.vision.evaluation.heatmap import overlay
from core.vision.input.bit_depth import DEPTH, decode_visible
from core.vision.input.preprocessing import prepare
from core.vision.input.record import Preprocessing, Upright
from core.vision.input.upright import POSE
from tests.fixtures.child_processes import children
from tests.fixtures.deep_images import deep_levels, deep_png
from tests.fixtures.part_images import encoded, png
from tests.fixtures.posed_parts import Placement, draw_part, wedge
from worker.pipeline import isolated_decoding, limited_child
from worker.pipeline.isolated_decoding import IsolatedDecoder, Unfinished

SQUARE = Preprocessing(width=32, height=32, scaled_decode=False)
LIMIT = 1_000_000


@pytest.fixture
def decoder() -> Iterator[IsolatedDecoder]:
    with IsolatedDecoder(SQUARE, max_pixels=LIMIT) as decoder:
        yield decoder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "part.png"
    file.write_bytes(png(1))
    return file


def decoding_children() -> list[psutil.Process]:
    """Return the decoding child processes of this process."""
    return children("worker.pipeline.decoding_child")


def test_a_child_decodes_like_the_worker(decoder: IsolatedDecoder, image: Path) -> None:
    expected = prepare(image.read_bytes(), SQUARE, max_pixels=LIMIT)
    for _ in range(3):
        prepared = decoder.prepare(image)
        np.testing.assert_array_equal(prepared.pixels, expected.pixels)
        assert (prepared.width, prepared.height) == (expected.width, expected.height) == (96, 64)
    assert len(decoding_children()) == 1


def test_a_child_draws_heatmaps(decoder: IsolatedDecoder, image: Path) -> None:
    heat = np.zeros((4, 6), dtype=np.float32)
    heat[1, 2] = 2
    expected = overlay(decode(image.read_bytes(), max_pixels=LIMIT), heat)
    decoder.prepare(image)
    drawn = Image.open(io.BytesIO(decoder.heatmap(image, heat)))
    assert (drawn.format, drawn.size) == ("PNG", (96, 64))
    np.testing.assert_array_equal(np.asarray(drawn), np.asarray(expected))
    assert decoder.prepare(image).pixels.shape == (32, 32, 3)
    assert len(decoding_children()) == 1


def test_a_child_decodes_and_draws_deep_images(tmp_path: Path) -> None:
    deep = SQUARE.model_copy(update={"bit_depth": 12})
    files = {"deep.png": deep_png(deep_levels(1)), "eight.png": png(1)}
    with IsolatedDecoder(deep, max_pixels=LIMIT) as decoder:
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
            expected, prepared = prepare(data, deep, max_pixels=LIMIT), decoder.prepare(tmp_path / name)
            np.testing.assert_array_equal(prepared.pixels, expected.pixels)
            assert prepared.pixels.dtype == np.float32
            assert prepared.reasons == expected.reasons
        heat = np.zeros((4, 6), dtype=np.float32)
        drawn = Image.open(io.BytesIO(decoder.heatmap(tmp_path / "deep.png", heat)))
        np.testing.assert_array_equal(
            np.asarray(drawn), np.asarray(decode_visible(files["deep.png"], 12, max_pixels=LIMIT))
        )
        example = Image.open(io.BytesIO(decoder.encode_example(tmp_path / "deep.png")))
        assert abs(np.asarray(example).mean() - np.asarray(drawn).mean()) < 1
    assert expected.reasons == (DEPTH,)
    assert np.asarray(drawn).mean() > 80  # of 255: without the bit depth it would be almost black


@pytest.mark.parametrize("bits", [8, 12])
def test_a_child_brings_parts_upright_like_the_worker(tmp_path: Path, bits: int) -> None:
    upright = Upright(length=0.56, width=0.18, size=0.27, axis="area", lopsided=True, inside=True, shadow=False)
    posed = Preprocessing(width=96, height=40, scaled_decode=True, bit_depth=bits, upright=upright)  # type: ignore[arg-type]
    part = draw_part(wedge, Placement(70, 0.45, 0.55))
    levels = np.asarray(part.convert("L"), dtype=np.uint16) * 16
    empty = np.full_like(levels, 3000)
    files = {"part": encoded(part), "empty": encoded(Image.new("RGB", (240, 200), (200, 200, 200)))}
    if bits == 12:
        files = {"part": deep_png(levels, significant_bits=12), "empty": deep_png(empty, significant_bits=12)}
    with IsolatedDecoder(posed, max_pixels=LIMIT) as decoder:
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
            expected, prepared = prepare(data, posed, max_pixels=LIMIT), decoder.prepare(tmp_path / name)
            np.testing.assert_array_equal(prepared.pixels, expected.pixels)
            assert prepared.pixels.dtype == posed.dtype
            assert prepared.placed == expected.placed
            assert prepared.placed is not None
            assert prepared.reasons == expected.reasons == (() if name == "part" else (POSE,))
            assert (prepared.width, prepared.height) == (240, 200)


def test_a_broken_image_is_not_poison(decoder: IsolatedDecoder, image: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(png(2)[:200])
    with pytest.raises(Undecodable) as broken:
        decoder.prepare(tmp_path / "broken.png")
    assert broken.value.failure is Failure.IMAGE_UNDECODABLE
    with pytest.raises(Undecodable) as broken:
        decoder.heatmap(tmp_path / "broken.png", np.ones((2, 2), dtype=np.float32))
    assert broken.value.failure is Failure.IMAGE_UNDECODABLE
    assert decoder.prepare(image).pixels.shape == (32, 32, 3)


def test_an_image_whose_child_dies_twice_is_poison_and_affects_no_other(
    decoder: IsolatedDecoder, image: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hanging = tmp_path / "hanging.png"
    os.mkfifo(hanging)  # opening it blocks until the process is killed
    killed: list[int] = []

    def kill_blocked_children() -> None:
        while len(killed) < limited_child.DEATHS_TO_BE_POISON:
            for child in decoding_children():
                if child.pid not in killed and child.status() == psutil.STATUS_SLEEPING:
                    child.kill()
                    killed.append(child.pid)
            time.sleep(0.5)

    assert decoder.prepare(image).pixels.shape == (32, 32, 3)
    killer = threading.Thread(target=kill_blocked_children)
    killer.start()
    with pytest.raises(Undecodable) as poison:
        decoder.prepare(hanging)
    killer.join()
    assert poison.value.failure is Failure.POISON
    assert decoder.prepare(image).pixels.shape == (32, 32, 3)
    assert "died" in caplog.text


def test_a_hanging_image_is_given_up(decoder: IsolatedDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated_decoding, "CPU_SECONDS_PER_IMAGE", 0.05)
    os.mkfifo(tmp_path / "hanging.png")
    with pytest.raises(Undecodable) as poison:
        decoder.prepare(tmp_path / "hanging.png")
    assert poison.value.failure is Failure.POISON


def test_no_child_process_is_left_behind(image: Path) -> None:
    with IsolatedDecoder(SQUARE, max_pixels=LIMIT) as decoder:
        decoder.prepare(image)
        [child] = decoding_children()
    assert not child.is_running()


def test_a_slow_image_is_unfinished_after_a_short_limit(
    decoder: IsolatedDecoder, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decoder.prepare_quickly(image).pixels.shape == (32, 32, 3)
    monkeypatch.setattr(isolated_decoding, "QUICK_CPU_SECONDS", 0.05)
    os.mkfifo(tmp_path / "hanging.png")
    with pytest.raises(Unfinished):
        decoder.prepare_quickly(tmp_path / "hanging.png")
    (tmp_path / "broken.png").write_bytes(png(2)[:200])
    monkeypatch.undo()
    with pytest.raises(Undecodable) as broken:
        decoder.prepare_quickly(tmp_path / "broken.png")
    assert broken.value.failure is Failure.IMAGE_UNDECODABLE


def test_a_child_inherits_no_passwords(decoder: IsolatedDecoder, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("LINEWATCH_DATABASE_URL", "LINEWATCH_REDIS_URL", "AWS_SECRET_ACCESS_KEY")
    for name in secrets:
        monkeypatch.setenv(name, "secret")
    decoder.prepare(image)
    [child] = decoding_children()
    environment = child.environ()
    assert "secret" not in environment.values()
    assert environment["PATH"] == os.environ["PATH"]


def test_an_idle_child_lives_on_after_the_limit_of_its_last_image(
    decoder: IsolatedDecoder, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder.prepare(image)
    [child] = decoding_children()
    monkeypatch.setattr(isolated_decoding, "CPU_SECONDS_PER_IMAGE", 0.2)
    decoder.prepare(image)
    time.sleep(2 * limited_child.WALL_FACTOR * 0.2 + 0.5)
    assert decoding_children() == [child]
    assert child.is_running()


LIMITED = """
from worker.pipeline.limited_child import limit
limit({{"cpu_seconds": {cpu_seconds}, "wall_seconds": 240, "max_pixels": 1_000_000}})
{work}
"""


LIMITED_BEFORE = """
import os, resource
from worker.pipeline.limited_child import limit
hard = 2 * 1024**3
for kind in (resource.RLIMIT_CPU, resource.RLIMIT_DATA):
    resource.setrlimit(kind, (hard, hard))
if os.getuid() == 0:
    os.setuid(65534)  # root may raise a hard limit
limit({"cpu_seconds": 60, "wall_seconds": 240, "max_pixels": 100_000_000})
assert resource.getrlimit(resource.RLIMIT_DATA) == (hard, hard)
assert resource.getrlimit(resource.RLIMIT_CPU)[1] == hard
"""


def test_a_child_keeps_to_the_hard_limits_of_its_worker() -> None:
    assert subprocess.run([sys.executable, "-c", LIMITED_BEFORE], check=False).returncode == 0


@pytest.mark.parametrize(
    ("cpu_seconds", "work", "status"),
    [
        (0.9, "while True: pass", -signal.SIGXCPU),  # the limit of CPU time is a second, that of elapsed time longer
        (60, "try: bytearray(2 * 1024**3)\nexcept MemoryError: exit(7)", 7),
        (60, "bytearray(256 * 1024**2)", 0),
    ],
)
def test_a_child_has_limits_of_cpu_time_and_memory(cpu_seconds: float, work: str, status: int) -> None:
    script = LIMITED.format(cpu_seconds=cpu_seconds, work=work)
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == status
