"""Writing a detector as a bundle, with golden scores that every machine can check."""

import platform
from importlib.metadata import version
from pathlib import Path

from core.vision.bundle.detectability import Detectability
from core.vision.bundle.folder import write_folder
from core.vision.bundle.golden import GOLDEN_TOLERANCE
from core.vision.bundle.manifest import MANIFEST, GoldenScore, Manifest, Metrics, Threshold, Training, checksums
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
    detectability: Detectability | None = None,
    inputs: InputRanges | None = None,
    review_threshold: float | None = None,
) -> Manifest:
    """Write a detector as a bundle.

    The golden scores are computed from the saved weights, loaded again on the CPU. So they also cover saving and
    loading, and every machine compares itself with the same reference.

    Args:
        golden: encoded images, by name in the bundle.
        extra_files: other files of the bundle, by name.

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
        detectability=detectability,
        inputs=inputs,
        review_threshold=review_threshold,
        libraries=library_versions(),
        backbone=detector.backbone,
        golden=[GoldenScore(file=name, score=score) for name, score in zip(golden, scores, strict=True)],
        golden_tolerance=dict(GOLDEN_TOLERANCE),
        files=checksums(files),
    )
    write_folder(out, {**files, MANIFEST: manifest.to_json()})
    return manifest


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that scores depend on, by name."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("linewatch", "numpy", "pillow", "torch")
    }
