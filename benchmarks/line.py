"""`make bench`: the speed of the system on this machine, as ratios within one run, because machines differ.

Starts the whole system in a temporary folder, uploads images, and compares it with a bare loop that decodes and scores
in one process. The images are synthetic: this measures speed only.
"""

import io
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from core.vision.bundle.folder import read_folder
from core.vision.bundle.loading import load_detector
from core.vision.bundle.state_dict import import_state_dict
from core.vision.detectors.autoencoder import Autoencoder, AutoencoderSettings
from core.vision.detectors.device import resolve_device
from linewatch import Client

IMAGES = 600
CLIENTS = 32
MINIBATCH = 32
MAX_PIXELS = 64_000_000
RECIPE = "bench"


def make_images(number: int) -> list[bytes]:
    """Return distinct JPEGs, 640×480, of a smooth scene with noise."""
    random = np.random.default_rng(0)
    scene = np.add.outer(np.linspace(40, 160, 480), np.linspace(0, 60, 640))[..., None].repeat(3, 2)
    jpegs = []
    for _ in range(number):
        out = io.BytesIO()
        Image.fromarray((scene + random.normal(0, 6, scene.shape)).clip(0, 255).astype(np.uint8)).save(out, "JPEG")
        jpegs.append(out.getvalue())
    return jpegs


def write_bundle(folder: Path) -> Path:
    """Write a bundle of the reference network with random weights."""
    torch.manual_seed(0)
    weights = folder.with_suffix(".pth")
    torch.save(Autoencoder(AutoencoderSettings(width=128, height=128)).state_dict(), weights)
    import_state_dict(weights, folder, threshold=0.05)
    return folder


def measure_bare_loop(bundle: Path, data: list[bytes]) -> float:
    """Return the images per second of a loop that only decodes in threads and scores in minibatches."""
    detector = load_detector(read_folder(bundle), device=resolve_device("auto"), max_pixels=MAX_PIXELS)
    with ThreadPoolExecutor(4) as decoders:
        detector.score(list(decoders.map(detector.prepare, data[:MINIBATCH])))
        started = time.perf_counter()
        for start in range(0, len(data), MINIBATCH):
            detector.score(list(decoders.map(detector.prepare, data[start : start + MINIBATCH])))
        return len(data) / (time.perf_counter() - started)


def measure_uploads(url: str, data: list[bytes], clients: int) -> tuple[float, list[str]]:
    """Upload from this many parallel clients. Return the accepted uploads per second and the inspection ids."""
    with Client(url) as lw, ThreadPoolExecutor(clients) as uploaders:
        started = time.perf_counter()
        accepted = list(uploaders.map(lambda image: lw.submit(image, recipe=RECIPE), data))
        return len(data) / (time.perf_counter() - started), [str(inspection.id) for inspection in accepted]


def measure_end_to_end(url: str, data: list[bytes]) -> float:
    """Return the images per second from the first upload to the last verdict, with many clients and single uploads."""
    started = time.perf_counter()
    _, ids = measure_uploads(url, data, CLIENTS)
    with Client(url) as lw:
        for inspection_id in reversed(ids):
            while lw.inspection(inspection_id, wait=60).status in ("queued", "running"):
                pass
    return len(data) / (time.perf_counter() - started)


def measure_latency(url: str, data: list[bytes]) -> float:
    """Return the median seconds from the upload of an image to its verdict, on an idle system."""
    with Client(url) as lw:
        return statistics.median(time_call(partial(lw.submit, image, recipe=RECIPE, wait=60)) for image in data)


def time_call(action: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def measure(url: str, folder: Path) -> None:
    """Print the figures of one run and their ratios."""
    data = make_images(IMAGES)
    bundle = write_bundle(folder / "bundle")
    with Client(url, timeout=120) as lw:
        lw.create_recipe(RECIPE, exist_ok=True)
        lw.upload_bundle(RECIPE, bundle)
    latency = measure_latency(url, data[:40])
    one_client, _ = measure_uploads(url, data[:100], 1)
    time.sleep(5)
    many_clients, _ = measure_uploads(url, data[:300], CLIENTS)
    time.sleep(15)
    end_to_end = measure_end_to_end(url, data)
    bare = measure_bare_loop(bundle, data)
    for name, figure, unit, ratio, reference in (
        ("bare loop of decode + score", bare, "images/s", 1.0, "× itself"),
        (f"end to end, {CLIENTS} clients", end_to_end, "images/s", end_to_end / bare, "× the bare loop"),
        ("accepted, 1 client", one_client, "uploads/s", 1.0, "× itself"),
        (f"accepted, {CLIENTS} clients", many_clients, "uploads/s", many_clients / one_client, "× one client"),
        ("single image, upload to verdict", latency * 1000, "ms", latency * bare, "× its decode + score"),
    ):
        print(f"{name:36} {figure:8.1f} {unit:12} {ratio:6.2f} {reference}")


def main() -> int:
    """Measure on a temporary system."""
    with tempfile.TemporaryDirectory(prefix="lw-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        command = [sys.executable, "-m", "linewatch.cli", "up", "--port", "0", "--data", str(folder / "data")]
        with (
            (folder / "log").open("w") as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
        ):
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("ready: "):
                print((folder / "log").read_text(), file=sys.stderr)
                return 1
            try:
                measure(line.removeprefix("ready: ").strip(), folder)
            finally:
                process.send_signal(signal.SIGTERM)
    return 0


if __name__ == "__main__":
    sys.exit(main())
