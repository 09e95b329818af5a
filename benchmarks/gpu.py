"""`make bench-gpu`: what a GPU does with the reference network, stage by stage, next to what its memory allows.

    forward     prepared images to scores, by minibatch size and precision, next to what the memory's bandwidth allows
    decoding    JPEGs to prepared images on the CPU's cores; JPEGs to pixels on the GPU
    the door    the whole system, from upload to verdict, as a share of the slower stage

BENCH_ARGS="FOLDER" measures another bundle. On a machine without a GPU the same figures are of its cores.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.io import decode_jpeg

from benchmarks.speed.bundles import write_reference_bundle
from benchmarks.speed.cores import CORES
from benchmarks.speed.images import JPEG, distinct_images, make_scenes
from benchmarks.speed.linewatch import running
from benchmarks.speed.load import Load
from benchmarks.speed.run import run
from core.vision.bundle.folder import read_folder
from core.vision.bundle.loading import load_detector
from core.vision.detectors.detector import Detector
from core.vision.detectors.device import Device
from core.vision.input.prepared_image import PreparedImage

MINIBATCHES: Final = (1, 8, 32, 128, 512)
PRECISIONS: Final = (torch.float32, torch.bfloat16, torch.float16)
IMAGES: Final = 512
SENT: Final = 5000
SECONDS: Final = 1.0
_MAX_PIXELS: Final = 64_000_000
_COPIED_BYTES: Final = 2**28


def rate(function: Callable[[], object], number: int, *, seconds: float = SECONDS) -> float:
    """Return how many items a second a function handles that handles `number` of them, after one call to warm up."""
    function()
    calls, begun = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < seconds or calls < 1:
        function()
        calls += 1
    return calls * number / elapsed


def bandwidth(device: str) -> float:
    """Return the bytes a second that the memory of a device reads and writes when it is copied."""
    source = torch.empty(_COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        _wait(device)

    return rate(copy, 2 * _COPIED_BYTES)


def bytes_moved(score: Callable[[], object]) -> int:
    """Return the bytes that the layers of a network read and write at least: inputs, outputs and weights, once each.

    Memory cannot deliver them faster than its bandwidth, so they take at least bytes / bandwidth. Fused layers and
    caches need fewer; what is computed outside layers is not counted.
    """
    moved = 0

    def count(module: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        nonlocal moved
        if not any(module.children()):
            tensors = [*inputs, output, *module.parameters()]
            moved += sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))

    hook = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        score()
    finally:
        hook.remove()
    return moved


def forward_lines(detector: Detector, device: Device, images: Sequence[PreparedImage]) -> Iterator[str]:
    """Yield a line for each precision and minibatch size."""
    bytes_a_second = bandwidth(device.name)
    reference = device.score(detector, images[:8]).scores
    yield f"memory: {bytes_a_second / 1e9:.0f} GB/s"
    for precision in PRECISIONS:
        with _precision(device.name, precision):
            changed = np.abs(detector.score(images[:8]).scores / reference - 1).max()
        yield f"{precision}: scores change by up to {changed:.1e}, relative"
        for number in MINIBATCHES:
            minibatch = list(islice(images, number))

            def score(minibatch: Sequence[PreparedImage] = minibatch, precision: torch.dtype = precision) -> None:
                with _precision(device.name, precision):
                    detector.score(minibatch)

            measured = rate(score, len(minibatch))
            floor = bytes_a_second / bytes_moved(score) * len(minibatch)
            share = f"{measured / floor:.2f} of the {floor:.0f}/s that its memory allows"
            yield f"  minibatch {len(minibatch):>3}: {measured:>8.0f}/s, {share}"


@contextmanager
def _precision(device: str, precision: torch.dtype) -> Iterator[None]:
    """Compute in a precision for a `with` block, in this thread."""
    with nullcontext() if precision is torch.float32 else torch.autocast(device, precision):
        yield


def decoding_lines(detector: Detector, device: Device, jpegs: Sequence[bytes]) -> Iterator[str]:
    """Yield a line for the cores and one for the GPU."""
    with ThreadPoolExecutor(CORES, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        on_cores = rate(lambda: list(threads.map(detector.prepare, jpegs)), len(jpegs))
    yield f"decoding and resizing on {CORES} cores: {on_cores:.0f}/s"
    if device.name == "cuda":
        tensors = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs]

        def decode() -> list[Tensor]:
            decoded: list[Tensor] = decode_jpeg(tensors, device=device.name)
            _wait(device.name)
            return decoded

        on_gpu = rate(decode, len(jpegs))
        difference = int((decode()[0].cpu().int() - decode_jpeg(tensors[0]).int()).abs().max())
        yield f"decoding on the GPU: {on_gpu:.0f}/s; pixels differ by up to {difference} levels"


def door_lines(bundle: Path, number: int) -> Iterator[str]:
    """Yield a line for the whole system."""
    with running(bundle) as contender:
        run(contender, Load(contender.target, JPEG, number // 5, first=10**6))
        figures, _ = run(contender, Load(contender.target, JPEG, number, connections=64))
    yield f"from upload to verdict: {figures.rate:.0f}/s; CPU ms an image: " + ", ".join(
        f"{name} {milliseconds:.2f}" for name, milliseconds in figures.cpu_ms.items()
    )


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> int:
    """Measure on this machine's device."""
    device = Device("auto")
    print(torch.cuda.get_device_name() if device.name == "cuda" else f"no GPU: {CORES} cores", flush=True)
    with tempfile.TemporaryDirectory() as name:
        bundle = Path(sys.argv[1]) if sys.argv[1:] else write_reference_bundle(Path(name) / "bundle")
        detector = load_detector(read_folder(bundle), device=device.name, max_pixels=_MAX_PIXELS)
        scenes = [detector.prepare(scene) for scene in make_scenes(JPEG)]
        images = [scenes[number % len(scenes)] for number in range(max(MINIBATCHES))]
        for line in forward_lines(detector, device, images):
            print(line, flush=True)
        for line in decoding_lines(detector, device, distinct_images(JPEG, IMAGES)):
            print(line, flush=True)
        for line in door_lines(bundle, SENT):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
