"""The manifest of a bundle. A bundle is one immutable trained artefact; models are stored and sent as bundles only.

A bundle is a folder, or an uncompressed tar of one, with `manifest.json` and exactly the files that the manifest lists
with their SHA-256. The SHA-256 of `manifest.json` therefore identifies the whole bundle. A bundle contains no
executable code: pickles are not accepted. Only `core.vision.bundle.loading.load_detector` needs torch.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from core.vision.bundle.detectability import Detectability
from core.vision.calibration.record import Calibration
from core.vision.detectors.architecture import WEIGHTS, Architecture, BackboneRecord, Sha256
from core.vision.errors import InvalidBundle
from core.vision.input.input_checks import InputRanges
from core.vision.input.record import Preprocessing
from core.vision.manifest_part import ManifestPart, Rate, Score

FORMAT_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
TRAINING_CURVE: Final = "training_curve.json"
TRIALS: Final = "trials.json"
"""What was tried before the detector was chosen: a list of `core.vision.selection.trial.Trial`."""

_MAX_MANIFEST_BYTES = 1024 * 1024
MAX_FILES = 200
_SUFFIXES = "safetensors|json|png|jpg|jpeg|bmp|webp|tif|tiff|html|svg"


FileName = Annotated[
    str,
    Field(max_length=120, pattern=rf"^([A-Za-z0-9][A-Za-z0-9_-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*\.({_SUFFIXES})$"),
]


class Threshold(ManifestPart):
    """The first threshold of a model version; `calibration` is null if it was set by hand."""

    value: Score
    calibration: Calibration | None

    @model_validator(mode="after")
    def _agrees_with_its_calibration(self) -> Self:
        if self.calibration is not None and self.calibration.threshold != self.value:
            raise ValueError("the threshold differs from that of its calibration")
        return self


class Metrics(ManifestPart):
    """Detection on the folder's `test/` images, and trivial controls to compare with. AUROCs are 0 to 1.

    Attributes:
        good, defective: number of images of each kind.
        auroc: of the detector, with its 95 % bootstrap interval in `auroc_interval`.
        controls: AUROC of trivial scores, by name. If one is as good as `auroc`, the detector proves nothing.
        false_reject_rate: share of the good images at or above the threshold.
        recall: share of the defective images at or above the threshold.
        pixel_auroc, aupro: how well the anomaly maps locate the defects (`core.vision.evaluation.localisation`);
            null if the folder has no masks in `ground_truth/`.
    """

    good: Annotated[int, Field(ge=1)]
    defective: Annotated[int, Field(ge=1)]
    auroc: Rate
    auroc_interval: Annotated[tuple[Rate, Rate], Field(strict=False)]
    controls: dict[str, Rate]
    false_reject_rate: Rate
    recall: Rate
    pixel_auroc: Rate | None = None
    aupro: Rate | None = None


class Training(ManifestPart):
    """How the weights were trained. The loss of every epoch is in `training_curve.json`.

    Attributes:
        training_set_digest: SHA-256 over names and contents of all good images, see `core.vision.training.dataset`.
        parts: number of images that were used for each purpose.
        folds: of the cross-conformal calibration, in which every image is used for training and for calibration; null
            if images were held out for calibration instead.
        unreadable: number of images that were skipped because they could not be decoded.
        options: the training options, seed included.
        epochs: number of epochs run; 0 for a detector that trains no network.
        best_epoch: the epoch that the weights come from, counted from 1; null without epochs.
        device: `cpu` or `cuda`.
        groups: number of groups (parts, lots or copies) among the good images; each is in one fold.
        near_duplicates: number of images that were grouped with another image because they look alike.
    """

    training_set_digest: Sha256
    parts: dict[Literal["training", "validation", "calibration"], int]
    folds: Annotated[int, Field(ge=2)] | None = None
    unreadable: Annotated[int, Field(ge=0)]
    options: dict[str, bool | int | float | str]
    epochs: Annotated[int, Field(ge=0)]
    best_epoch: Annotated[int, Field(ge=1)] | None
    device: str
    groups: Annotated[int, Field(ge=1)] | None = None
    near_duplicates: Annotated[int, Field(ge=0)] = 0


class GoldenScore(ManifestPart):
    """An encoded image in the bundle, and its score when the bundle was made."""

    file: FileName
    score: Score


class Manifest(ManifestPart):
    """`manifest.json`, format version 1. Every number is finite and no text contains U+0000.

    Attributes:
        review_threshold: a person reviews scores between it and the threshold; null for none.
        training: null for imported weights, whose training is unknown.
        metrics: null if the training folder had no `test/`.
        detectability: what it can find, from synthetic defects; null if it was not measured.
        libraries: the versions of the libraries that scores depend on, by name.
        inputs: ranges for the input checks; null if unknown, and then inputs are not checked.
        backbone: null for detectors without a backbone.
        golden_tolerance: the largest relative difference of a golden score that still counts as reproduced, by
            `<device>/<dtype>`.
        files: SHA-256 of every file except the manifest.
    """

    format_version: Literal[1] = FORMAT_VERSION
    architecture: Architecture
    preprocessing: Preprocessing
    score_method: Annotated[str, Field(min_length=1, max_length=100)]
    threshold: Threshold
    review_threshold: Score | None = None
    training: Training | None
    metrics: Metrics | None
    detectability: Detectability | None = None
    libraries: dict[str, str]
    inputs: InputRanges | None = None
    backbone: BackboneRecord | None = None
    golden: Annotated[list[GoldenScore], Field(min_length=1)]
    golden_tolerance: dict[str, Annotated[float, Field(gt=0, lt=1)]]
    files: Annotated[dict[FileName, Sha256], Field(max_length=MAX_FILES)]

    @model_validator(mode="after")
    def _lists_the_files_it_uses(self) -> Self:
        if WEIGHTS not in self.files:
            raise ValueError(f"files does not list {WEIGHTS}")
        if MANIFEST in self.files:
            raise ValueError(f"files lists {MANIFEST} itself")
        missing = sorted({golden.file for golden in self.golden} - self.files.keys())
        if missing:
            raise ValueError(f"files does not list the golden image {missing[0]}")
        if self.review_threshold is not None and self.review_threshold > self.threshold.value:
            raise ValueError("review_threshold is above the threshold")
        return self

    def to_json(self) -> bytes:
        """Encode `manifest.json`: UTF-8, keys sorted, the same bytes for the same content."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False)
        return (text + "\n").encode()


def digest(content: bytes) -> str:
    """Return the SHA-256 in hexadecimal. That of the bytes of `manifest.json` identifies the whole bundle."""
    return hashlib.sha256(content).hexdigest()


def verify_bundle(files: Mapping[str, bytes]) -> Manifest:
    """Compare every file of a bundle with its manifest, and return the manifest.

    Raises:
        InvalidBundle: the manifest is missing, invalid or of a newer format; a file is missing, differs from its
            checksum or is not listed.
    """
    if MANIFEST not in files:
        raise InvalidBundle(f"the bundle has no {MANIFEST}: use a folder that `linewatch train` wrote")
    manifest = _parse(files[MANIFEST])
    listed = manifest.files.keys() | {MANIFEST}
    if missing := sorted(listed - files.keys()):
        raise InvalidBundle(f"the bundle lacks {missing[0]}, which its manifest lists")
    if extra := sorted(files.keys() - listed):
        raise InvalidBundle(f"the bundle contains {extra[0]}, which its manifest does not list")
    for name, expected in sorted(manifest.files.items()):
        if digest(files[name]) != expected:
            raise InvalidBundle(f"{name} differs from the SHA-256 in the manifest: the bundle was changed or damaged")
    return manifest


def _parse(encoded: bytes) -> Manifest:
    if len(encoded) > _MAX_MANIFEST_BYTES:
        raise InvalidBundle(f"{MANIFEST} is larger than {_MAX_MANIFEST_BYTES} bytes")
    try:
        version = json.loads(encoded).get("format_version")
    except (ValueError, RecursionError, AttributeError) as error:
        raise InvalidBundle(f"{MANIFEST} is not a JSON object in UTF-8") from error
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InvalidBundle(
            f"the bundle has format version {version}, but this version of Linewatch reads up to {FORMAT_VERSION}: "
            "upgrade Linewatch"
        )
    if b"\\u0000" in encoded:
        raise InvalidBundle(f"{MANIFEST} contains U+0000")
    try:
        return Manifest.model_validate_json(encoded)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        location = ".".join(str(step) for step in first["loc"]) or "its content"
        raise InvalidBundle(f"{MANIFEST} is not valid: {location}: {first['msg']}") from error


def checksums(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of each file, for the manifest's `files`."""
    return {name: digest(content) for name, content in files.items()}


def encode_json(content: Any) -> bytes:
    """Encode a JSON file of the bundle: UTF-8, finite numbers only, the same bytes for the same content."""
    return (json.dumps(content, sort_keys=True, allow_nan=False) + "\n").encode()
