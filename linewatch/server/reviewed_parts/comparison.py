"""Score the images of past inspections with a new bundle on this machine, and compare the verdicts."""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from core.intake.image_decoding import Undecodable
from core.models.verdicts import Verdict, decide_verdict
from core.vision.bundle.folder import read_folder
from core.vision.bundle.loading import load_detector
from core.vision.bundle.manifest import verify_bundle
from core.vision.evaluation.comparison import ComparedInspection, Comparison
from core.vision.input.input_checks import failed_checks, measure_image
from core.vision.input.prepared_image import PreparedImage
from core.vision.input.preprocessing import prepare
from linewatch.server.reviewed_parts.stored_images import stored_images

if TYPE_CHECKING:
    from linewatch.client import Client
    from linewatch.types.results import Inspection

_MINIBATCH = 16
_MAX_PIXELS = 64_000_000


@dataclass(frozen=True)
class _CheckedImage:
    pixels: PreparedImage
    reasons: list[str]


def newest_completed(system: "Client", recipe: str, at_most: int) -> "list[Inspection]":
    """Return the newest completed inspections of a recipe, newest first."""
    if at_most == 0:
        return []
    listing = system.inspections(page_size=min(at_most, 1000), recipe=recipe, status="completed")
    return list(islice(listing, at_most))


class NewVersion:
    """A bundle that gives verdicts as a worker does."""

    def __init__(self, bundle: Path, *, device: str) -> None:
        """Load the bundle.

        Args:
            bundle: its folder.
            device: `auto`, `cpu` or `cuda`.
        """
        files = read_folder(bundle)
        self._manifest = verify_bundle(files)
        self._detector = load_detector(files, device=device, max_pixels=_MAX_PIXELS)

    def prepare(self, content: bytes) -> _CheckedImage | Undecodable:
        """Prepare and check an encoded image, or return why it cannot be decoded. Safe to call from several threads."""
        try:
            prepared = prepare(content, self._detector.preprocessing, max_pixels=self._detector.max_pixels)
        except Undecodable as error:
            return error
        inputs = self._manifest.inputs
        failed = [] if inputs is None else failed_checks(measure_image(prepared), inputs)
        return _CheckedImage(prepared.pixels, [*prepared.reasons, *failed])

    def verdicts(self, images: list[_CheckedImage]) -> list[Verdict | None]:
        """Return the verdict on each image; None if its score is not finite."""
        if not images:
            return []
        scores = self._detector.score([image.pixels for image in images]).scores.tolist()
        threshold, review_threshold = self._manifest.threshold.value, self._manifest.review_threshold
        return [
            decide_verdict(score, threshold, review_threshold, image.reasons) if math.isfinite(score) else None
            for score, image in zip(scores, images, strict=True)
        ]


def compare(
    system: "Client",
    inspections: "list[Inspection]",
    version: NewVersion,
    *,
    trained_on: Collection[str],
    progress: Callable[[int], None],
) -> Comparison:
    """Compare a new version with past inspections.

    Args:
        inspections: completed ones, newest first.
        trained_on: SHA-256 of each image that the version was trained on, in hexadecimal.
        progress: called with the number of inspections done so far.

    Raises:
        LinewatchError: an image cannot be downloaded, though it may exist.
    """
    compared: list[ComparedInspection] = []
    missing = unscored = done = 0
    requests = ((inspection.id, inspection) for inspection in inspections)
    downloads = stored_images(system, requests, lambda _, content: version.prepare(content))
    for minibatch in _minibatches(downloads):
        missing += sum(image is None for _, image in minibatch)
        images = [(inspection, image) for inspection, image in minibatch if isinstance(image, _CheckedImage)]
        verdicts = version.verdicts([image for _, image in images])
        for (inspection, _), verdict in zip(images, verdicts, strict=True):
            if verdict is not None:
                compared.append(_compared(inspection, verdict, inspection.image.sha256 in trained_on))
        done += len(minibatch)
        unscored = done - missing - len(compared)
        progress(done)
    return Comparison(compared, missing, unscored)


Download = tuple["Inspection", _CheckedImage | Undecodable | None]


def _minibatches(downloads: Iterator[Download]) -> Iterator[list[Download]]:
    while minibatch := list(islice(downloads, _MINIBATCH)):
        yield minibatch


def _compared(inspection: "Inspection", after: Verdict, trained_on: bool) -> ComparedInspection:
    assert inspection.verdict is not None  # noqa: S101 - it is completed
    decided = inspection.effective_verdict if inspection.reviews else None
    reviewed = None if decided == "review" else decided
    return ComparedInspection(str(inspection.id), inspection.verdict, after, reviewed, trained_on)
