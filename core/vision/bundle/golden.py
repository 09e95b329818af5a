"""Golden scores: images in a bundle whose scores a machine must reproduce before it uses the bundle."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from core.intake.image_decoding import read_header
from core.vision.bundle.manifest import verify_bundle
from core.vision.detectors.detector import Detector
from core.vision.errors import InvalidBundle

GOLDEN_IMAGES: Final = 3

GOLDEN_TOLERANCE: Final[Mapping[str, float]] = {"cpu/float32": 1e-5, "cuda/float32": 1e-4}
"""Accepted relative difference of a golden score between machines, by device and dtype.

Other processors and library versions add in another order, which changes the sixth or seventh digit of float32.
"""


def golden_images(held_out: Sequence[Path], *, max_pixels: int) -> dict[str, bytes]:
    """Choose the smallest files as golden images; return their contents by name in the bundle.

    Args:
        held_out: images of good parts that the detector was not trained on.
        max_pixels: the largest image to read.
    """
    smallest = sorted(held_out, key=lambda path: (path.stat().st_size, path.as_posix()))[:GOLDEN_IMAGES]
    golden = {}
    for number, path in enumerate(smallest):
        with path.open("rb") as file:
            extension = read_header(file, max_pixels=max_pixels).media_type.removeprefix("image/")
        golden[f"golden/{number}.{extension}"] = path.read_bytes()
    return golden


def check_golden(detector: Detector, files: Mapping[str, bytes]) -> None:
    """Check that this machine reproduces the golden scores of a bundle, starting from the encoded images.

    Raises:
        InvalidBundle: a score is not finite, or differs by more than the manifest's tolerance for this device.
        core.intake.image_decoding.Undecodable: a golden image cannot be decoded here.
    """
    manifest = verify_bundle(files)
    platform = f"{detector.device}/float32"
    tolerance = manifest.golden_tolerance.get(platform, GOLDEN_TOLERANCE[platform])
    scores = detector.score([detector.prepare(files[golden.file]) for golden in manifest.golden]).scores
    for golden, score in zip(manifest.golden, scores.tolist(), strict=True):
        difference = abs(score - golden.score) / max(abs(golden.score), np.finfo(np.float32).tiny)
        if not difference <= tolerance:
            raise InvalidBundle(
                f"the golden score of {golden.file} is not reproduced: expected {golden.score:.9g}, got {score:.9g}, "
                f"a relative difference of {difference:.2g}; {tolerance:g} is allowed on {platform}"
            )
