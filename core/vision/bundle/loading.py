"""From the files of a bundle to a detector that is ready to score."""

from collections.abc import Mapping

from core.vision.bundle.manifest import verify_bundle
from core.vision.detectors.detector import Detector
from core.vision.detectors.device import resolve_device
from core.vision.detectors.registry import detector_classes
from core.vision.errors import InvalidBundle


def load_detector(files: Mapping[str, bytes], *, device: str, max_pixels: int) -> Detector:
    """The detector of a bundle, ready to score.

    Args:
        files: all files of the bundle by name, as `tar.unpack` and `folder.read_folder` return them.
        device: `auto`, `cpu` or `cuda`.
        max_pixels: the largest image that it decodes.

    Raises:
        InvalidBundle: the bundle is damaged, of an unknown architecture, or its weights do not fit.
        ValueError: there is no such device here (InvalidBundle is one too).
    """
    manifest = verify_bundle(files)
    known, name = detector_classes(), manifest.architecture.name
    if name not in known:
        raise InvalidBundle(f"the architecture {name!r} is not one of {', '.join(known)}: upgrade Linewatch")
    return known[name].load(
        files, manifest.architecture, manifest.preprocessing, device=resolve_device(device), max_pixels=max_pixels
    )
