"""`make bench`: the line's speed on this machine, as ratios of figures from one run, because machines differ.

Starts the whole system in a temporary folder, sends it images, and compares it with the bare loop of decoding and
scoring in one process. The images are synthetic: only speed is measured here.
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


def images(number: int) -> list[bytes]:
    """Distinct JPEGs, 640×480, of a smooth scene with some grain."""
    random = np.random.default_rng(0)
    scene = np.add.outer(np.linspace(40, 160, 480), np.linspace(0, 60, 640))[..., None].repeat(3, 2)
    made = []
    for _ in range(number):
        out = io.BytesIO()
        Image.fromarray((scene + random.normal(0, 6, scene.shape)).clip(0, 255).astype(np.uint8)).save(out, "JPEG")
        made.append(out.getvalue())
    return made


def write_bundle(folder: Path) -> Path:
    """The reference network with random weights."""
    torch.manual_seed(0)
    weights = folder.with_suffix(".pth")
    torch.save(Autoencoder(AutoencoderSettings(width=128, height=128)).state_dict(), weights)
    import_state_dict(weights, folder, threshold=0.05)
    return folder


def bare_rate(bundle: Path, data: list[bytes]) -> float:
    """Images a second of decoding, in threads, and scoring, in minibatches, and nothing else."""
    own = load_detector(read_folder(bundle), device=resolve_device("auto"), max_pixels=MAX_PIXELS)
    with ThreadPoolExecutor(4) as decoders:
        own.score(list(decoders.map(own.prepare, data[:MINIBATCH])))
        begun = time.perf_counter()
        for start in range(0, len(data), MINIBATCH):
            own.score(list(decoders.map(own.prepare, data[start : start + MINIBATCH])))
        return len(data) / (time.perf_counter() - begun)


def accept_rate(url: str, data: list[bytes], clients: int) -> tuple[float, list[str]]:
    """Uploads a second that so many clients get answered with 202, and the ids."""
    with Client(url) as lw, ThreadPoolExecutor(clients) as stations:
        begun = time.perf_counter()
        ids = [one.id for one in stations.map(lambda image: lw.submit(image, recipe=RECIPE), data)]
        return len(data) / (time.perf_counter() - begun), [str(one) for one in ids]


def end_to_end_rate(url: str, data: list[bytes]) -> float:
    """Images a second from the first byte sent to the last verdict, over single uploads of many clients."""
    begun = time.perf_counter()
    _, ids = accept_rate(url, data, CLIENTS)
    with Client(url) as lw:
        for one in reversed(ids):
            while lw.inspection(one, wait=60).status in ("queued", "running"):
                pass
    return len(data) / (time.perf_counter() - begun)


def lone_seconds(url: str, data: list[bytes]) -> float:
    """The median time from handing in one image to its verdict, when there is nothing else to do."""
    with Client(url) as lw:
        return statistics.median(timed(partial(lw.submit, one, recipe=RECIPE, wait=60)) for one in data)


def timed(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def measure(url: str, folder: Path) -> None:
    """Print the figures of one run and the ratios between them."""
    data = images(IMAGES)
    bundle = write_bundle(folder / "bundle")
    with Client(url, timeout=120) as lw:
        lw.create_recipe(RECIPE, exist_ok=True)
        lw.upload_bundle(RECIPE, bundle)
    lone = lone_seconds(url, data[:40])
    one_client, _ = accept_rate(url, data[:100], 1)
    time.sleep(5)
    many_clients, _ = accept_rate(url, data[:300], CLIENTS)
    time.sleep(15)
    through = end_to_end_rate(url, data)
    bare = bare_rate(bundle, data)
    for name, figure, unit, ratio, of_what in (
        ("bare loop of decode + score", bare, "images/s", 1.0, "of itself"),
        (f"end to end, {CLIENTS} clients", through, "images/s", through / bare, "of the bare loop"),
        ("accepted, 1 client", one_client, "uploads/s", 1.0, "of itself"),
        (f"accepted, {CLIENTS} clients", many_clients, "uploads/s", many_clients / one_client, "of one client"),
        ("a lone image, upload to verdict", lone * 1000, "ms", lone * bare, "of its decode + score"),
    ):
        print(f"{name:36} {figure:8.1f} {unit:12} {ratio:6.2f} {of_what}")


def main() -> int:
    """Measure on a system of its own."""
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
