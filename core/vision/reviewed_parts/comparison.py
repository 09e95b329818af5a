"""Score the images of past inspections with a new bundle on this machine, and compare the verdicts."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from core.intake.image_decoding import Undecodable
from core.models.verdicts import Verdict, decide_verdict
from core.vision.bundle.folder import read_folder
from core.vision.bundle.loading import load_detector
from core.vision.bundle.manifest import verify_bundle
from core.vision.evaluation.comparison import ComparedInspection, Comparison
from core.vision.input.input_checks import failed_checks, measure_image
from core.vision.input.prepared_image import PreparedImage
from core.vision.input.preprocessing import prepare

_MINIBATCH = 16
_MAX_PIXELS = 64_000_000


@dataclass(frozen=True)
class PastInspection:
    """A completed inspection to compare with.

    Attributes:
        sha256: of its image, in hexadecimal.
        verdict: of the machine.
        reviewed: the verdict that its reviews decided, `ok` or `ng`; None without one.
    """

    id: str
    sha256: str
    verdict: str
    reviewed: str | None


@dataclass(frozen=True)
class CheckedImage:
    """A prepared image, and the input checks that it fails."""

    pixels: PreparedImage
    reasons: list[str]


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

    def prepare(self, content: bytes) -> CheckedImage | Undecodable:
        """Prepare and check an encoded image, or return why it cannot be decoded. Safe to call from several threads."""
        try:
            prepared = prepare(content, self._detector.preprocessing, max_pixels=self._detector.max_pixels)
        except Undecodable as error:
            return error
        inputs = self._manifest.inputs
        failed = [] if inputs is None else failed_checks(measure_image(prepared), inputs)
        return CheckedImage(prepared.pixels, [*prepared.reasons, *failed])

    def verdicts(self, images: list[CheckedImage]) -> list[Verdict | None]:
        """Return the verdict on each image; None if its score is not finite."""
        if not images:
            return []
        scores = self._detector.score([image.pixels for image in images]).scores.tolist()
        threshold, review_threshold = self._manifest.threshold.value, self._manifest.review_threshold
        return [
            decide_verdict(score, threshold, review_threshold, image.reasons) if math.isfinite(score) else None
            for score, image in zip(scores, images, strict=True)
        ]


Prepared = tuple[PastInspection, CheckedImage | Undecodable | None]
"""An inspection with its image; None if the store no longer has it."""


def compare(
    inspections: Iterable[Prepared],
    version: NewVersion,
    *,
    trained_on: Collection[str],
    progress: Callable[[int], None],
) -> Comparison:
    """Compare a new version with past inspections.

    Args:
        inspections: newest first, with their images as `version.prepare` returns them.
        trained_on: SHA-256 of each image that the version was trained on, in hexadecimal.
        progress: called with the number of inspections done so far.
    """
    compared: list[ComparedInspection] = []
    missing = unscored = done = 0
    for minibatch in _minibatches(iter(inspections)):
        missing += sum(image is None for _, image in minibatch)
        images = [(inspection, image) for inspection, image in minibatch if isinstance(image, CheckedImage)]
        verdicts = version.verdicts([image for _, image in images])
        for (inspection, _), verdict in zip(images, verdicts, strict=True):
            if verdict is not None:
                was_seen = inspection.sha256 in trained_on
                compared.append(
                    ComparedInspection(inspection.id, inspection.verdict, verdict, inspection.reviewed, was_seen)
                )
        done += len(minibatch)
        unscored = done - missing - len(compared)
        progress(done)
    return Comparison(compared, missing, unscored)


def _minibatches(inspections: Iterator[Prepared]) -> Iterator[list[Prepared]]:
    while minibatch := list(islice(inspections, _MINIBATCH)):
        yield minibatch
