"""Loading a detector from the files of a bundle."""

from collections.abc import Mapping

from core.vision.bundle.manifest import verify_bundle
from core.vision.detectors.detector import Detector
from core.vision.detectors.device import resolve_device
from core.vision.detectors.registry import detector_classes
from core.vision.errors import InvalidBundle


def load_detector(files: Mapping[str, bytes], *, device: str, max_pixels: int) -> Detector:
    """Load the detector of a bundle.

    Args:
        files: all files of the bundle by name, as `tar.unpack` and `folder.read_folder` return them.
        device: `auto`, `cpu` or `cuda`.
        max_pixels: the largest image that the detector decodes.

    Raises:
        InvalidBundle: the bundle is damaged, its architecture is unknown, or its weights do not fit.
        ValueError: this machine has no such device. (`InvalidBundle` is a `ValueError` too.)
    """
    manifest = verify_bundle(files)
    classes, name = detector_classes(), manifest.architecture.name
    if name not in classes:
        raise InvalidBundle(f"the architecture {name!r} is not one of {', '.join(classes)}: upgrade Linewatch")
    return classes[name].load(
        files, manifest.architecture, manifest.preprocessing, device=resolve_device(device), max_pixels=max_pixels
    )
