"""A detector becomes an artefact: a bundle with golden scores, by which every machine proves that it scores alike."""

import platform
from importlib.metadata import version
from pathlib import Path

from core.vision.bundle.folder import write_folder
from core.vision.bundle.golden import GOLDEN_TOLERANCE
from core.vision.bundle.manifest import MANIFEST, Golden, Manifest, Metrics, Threshold, Training, checksums
from core.vision.detectors.detector import Detector
from core.vision.input.input_checks import InputRanges


def write_bundle(
    detector: Detector,
    out: Path,
    *,
    golden: dict[str, bytes],
    extra_files: dict[str, bytes],
    threshold: Threshold,
    training: Training | None,
    metrics: Metrics | None,
    inputs: InputRanges | None = None,
    review_threshold: float | None = None,
) -> Manifest:
    """Write a detector as a bundle.

    The golden scores come from the saved weights, loaded again on the CPU, so they also verify the way through the
    files, and that every machine compares itself with the same reference.

    Args:
        golden: encoded images, by their names in the bundle.
        extra_files: more files, by name.

    Raises:
        FileExistsError: `out` exists.
    """
    files = {**detector.save(), **golden, **extra_files}
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
        libraries=library_versions(),
        backbone=detector.backbone,
        golden=[Golden(file=name, score=score) for name, score in zip(golden, scores, strict=True)],
        golden_tolerance=dict(GOLDEN_TOLERANCE),
        files=checksums(files),
    )
    write_folder(out, {**files, MANIFEST: manifest.to_json()})
    return manifest


def library_versions() -> dict[str, str]:
    """The versions that scores depend on, by name."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("linewatch", "numpy", "pillow", "torch")
    }
