"""A detector becomes an artefact: a bundle with golden scores, by which every machine proves that it scores alike."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from core.pictures import read_header
from core.vision.bundle import MANIFEST, Golden, Manifest, Metrics, Threshold, Training, checksums, write_folder
from core.vision.detector import GOLDEN_TOLERANCE, Detector
from core.vision.inputs import InputRanges

GOLDEN_PICTURES: Final = 3


def write_bundle(
    detector: Detector,
    out: Path,
    *,
    golden: dict[str, bytes],
    others: dict[str, bytes],
    threshold: Threshold,
    training: Training | None,
    metrics: Metrics | None,
    inputs: InputRanges | None = None,
    review_threshold: float | None = None,
) -> Manifest:
    """Write a detector as a bundle.

    The golden scores come from the saved weights, loaded anew on the CPU, so that they also prove the way through the
    files, and that every machine compares itself with the same reference.

    Args:
        golden: encoded pictures, by their names in the bundle.
        others: more files, by name.

    Raises:
        FileExistsError: `out` exists.
    """
    files = {**detector.save(), **golden, **others}
    reference = type(detector).load(
        files, detector.architecture, detector.preprocessing, device="cpu", max_pixels=detector.max_pixels
    )
    scores = reference.score([reference.prepare(content) for content in golden.values()]).scores.tolist()
    manifest = Manifest(
        architecture=detector.architecture,
        preprocessing=detector.preprocessing,
        score_method=detector.score_method,
        threshold=threshold,
        training=training,
        metrics=metrics,
        inputs=inputs,
        review_threshold=review_threshold,
        libraries=libraries(),
        backbone=detector.backbone,
        golden=[Golden(file=name, score=score) for name, score in zip(golden, scores, strict=True)],
        golden_tolerance=dict(GOLDEN_TOLERANCE),
        files=checksums(files),
    )
    write_folder(out, {**files, MANIFEST: manifest.encoded()})
    return manifest


def golden_pictures(held_out: Sequence[Path], *, max_pixels: int) -> dict[str, bytes]:
    """The smallest of the files, by their names in the bundle.

    Args:
        held_out: files of good parts that the detector was not trained on.
        max_pixels: the largest picture that is read.
    """
    smallest = sorted(held_out, key=lambda path: (path.stat().st_size, path.as_posix()))[:GOLDEN_PICTURES]
    golden = {}
    for number, path in enumerate(smallest):
        with path.open("rb") as file:
            kind = read_header(file, max_pixels=max_pixels).media_type.removeprefix("image/")
        golden[f"golden/{number}.{kind}"] = path.read_bytes()
    return golden


def libraries() -> dict[str, str]:
    """The versions that scores depend on, by name."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("linewatch", "numpy", "pillow", "torch")
    }
