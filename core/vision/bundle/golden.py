"""Golden scores: images in a bundle whose scores every machine must reproduce before it may use the bundle."""

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
"""Relative differences of a golden score that other machines may show, by device and dtype.

Other processors and versions of the libraries add in another order, which float32 shows in its sixth or seventh digit.
"""


def golden_images(held_out: Sequence[Path], *, max_pixels: int) -> dict[str, bytes]:
    """The smallest of the files, by their names in the bundle.

    Args:
        held_out: files of good parts that the detector was not trained on.
        max_pixels: the largest image that is read.
    """
    smallest = sorted(held_out, key=lambda path: (path.stat().st_size, path.as_posix()))[:GOLDEN_IMAGES]
    golden = {}
    for number, path in enumerate(smallest):
        with path.open("rb") as file:
            kind = read_header(file, max_pixels=max_pixels).media_type.removeprefix("image/")
        golden[f"golden/{number}.{kind}"] = path.read_bytes()
    return golden


def check_golden(detector: Detector, files: Mapping[str, bytes]) -> None:
    """Prove that this machine reproduces the golden scores of a bundle, from the encoded images on.

    Raises:
        InvalidBundle: a score differs by more than the manifest's tolerance for this device, or is not finite.
        core.intake.image_decoding.Undecodable: a golden image cannot be decoded here.
    """
    manifest = verify_bundle(files)
    kind = f"{detector.device}/float32"
    tolerance = manifest.golden_tolerance.get(kind, GOLDEN_TOLERANCE[kind])
    scores = detector.score([detector.prepare(files[golden.file]) for golden in manifest.golden]).scores
    for golden, score in zip(manifest.golden, scores.tolist(), strict=True):
        difference = abs(score - golden.score) / max(abs(golden.score), np.finfo(np.float32).tiny)
        if not difference <= tolerance:
            raise InvalidBundle(
                f"the golden score of {golden.file} is not reproduced: {golden.score:.9g} expected, {score:.9g} found, "
                f"a relative difference of {difference:.2g} where {tolerance:g} is allowed on {kind}"
            )
