"""The bundle: one immutable trained artefact, and the only form in which models travel.

A folder, or an uncompressed tar of it, holding `manifest.json` and exactly the files that the manifest lists with
their SHA-256. The SHA-256 of `manifest.json` therefore names the whole. Nothing in it can execute: pickles are not
among the accepted files, and loading needs no torch before `core.vision.bundle.loading.load_detector`.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from core.vision.calibration.record import Calibration, ManifestPart, Rate, Score
from core.vision.detectors.architecture import WEIGHTS, Architecture, BackboneRecord, Sha256
from core.vision.errors import InvalidBundle
from core.vision.input.input_checks import InputRanges
from core.vision.input.preprocessing import Preprocessing

FORMAT_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
TRAINING_CURVE: Final = "training_curve.json"

_MAX_MANIFEST_BYTES = 1024 * 1024
MAX_FILES = 200
_SUFFIXES = "safetensors|json|png|jpg|jpeg|bmp|webp|tif|tiff|html|svg"


FileName = Annotated[
    str,
    Field(max_length=120, pattern=rf"^([A-Za-z0-9][A-Za-z0-9_-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*\.({_SUFFIXES})$"),
]


class Threshold(ManifestPart):
    """The first threshold of a model version; `calibration` is null where a person set it by hand."""

    value: Score
    calibration: Calibration | None

    @model_validator(mode="after")
    def _agrees_with_its_calibration(self) -> Self:
        if self.calibration is not None and self.calibration.threshold != self.value:
            raise ValueError("the threshold differs from the one of its calibration")
        return self


class Metrics(ManifestPart):
    """Detection on the folder's `test/` images, with trivial controls beside it. AUROCs are 0 to 1.

    Attributes:
        good, defective: images of each kind.
        auroc: of the detector; `auroc_interval` its 95 % bootstrap interval.
        controls: AUROC of trivial scores, by name: if one of them is as good, the detector has shown nothing.
        false_reject_rate: share of the good images at or above the threshold.
        recall: share of the defective images at or above the threshold.
        pixel_auroc, aupro: how well the anomaly maps point at the defects (`core.vision.evaluation.localisation`);
            null where the folder has no masks in `ground_truth/`.
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
    """How the weights were made; the loss of every epoch is in `training_curve.json`.

    Attributes:
        training_set_digest: SHA-256 over names and contents of all good images, see `core.vision.training.dataset`.
        parts: images in each split.
        unreadable: images that were skipped because they could not be decoded.
        options: what training was asked to do, seed included.
        epochs, best_epoch: run, and whose weights these are (counted from 1).
        device: `cpu` or `cuda`.
        groups: parts, lots or copies into which the good images fall, each kept on one side of the split.
        near_duplicates: images that were kept together with another one because they look alike.
    """

    training_set_digest: Sha256
    parts: dict[Literal["training", "validation", "calibration"], int]
    unreadable: Annotated[int, Field(ge=0)]
    options: dict[str, bool | int | float | str]
    epochs: Annotated[int, Field(ge=1)]
    best_epoch: Annotated[int, Field(ge=1)]
    device: str
    groups: Annotated[int, Field(ge=1)] | None = None
    near_duplicates: Annotated[int, Field(ge=0)] = 0


class Golden(ManifestPart):
    """An encoded image of the bundle, and the score that it got when the bundle was made."""

    file: FileName
    score: Score


class Manifest(ManifestPart):
    """`manifest.json`, format version 1. Every number is finite and no text holds U+0000.

    Attributes:
        review_threshold: scores between it and the threshold are for a person to judge; null for none.
        training: null for imported weights, whose training is not known.
        metrics: null where the training folder had no `test/`.
        backbone: null for detectors that stand on none.
        inputs: where images of good parts lie; null where it is not known, and nothing is checked then.
        golden_tolerance: the relative difference at which a golden score still counts as reproduced, by
            `<device>/<dtype>`.
        files: SHA-256 of every file but the manifest.
    """

    format_version: Literal[1] = FORMAT_VERSION
    architecture: Architecture
    preprocessing: Preprocessing
    score_method: Annotated[str, Field(min_length=1, max_length=100)]
    threshold: Threshold
    review_threshold: Score | None = None
    training: Training | None
    metrics: Metrics | None
    libraries: dict[str, str]
    inputs: InputRanges | None = None
    backbone: BackboneRecord | None = None
    golden: Annotated[list[Golden], Field(min_length=1)]
    golden_tolerance: dict[str, Annotated[float, Field(gt=0, lt=1)]]
    files: Annotated[dict[FileName, Sha256], Field(max_length=MAX_FILES)]

    @model_validator(mode="after")
    def _lists_what_it_uses(self) -> Self:
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
        """The bytes of `manifest.json`: UTF-8 JSON, sorted, the same for the same content."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False)
        return (text + "\n").encode()


def digest(manifest: bytes) -> str:
    """SHA-256, in hexadecimal, of the bytes of `manifest.json`: the name of the whole bundle."""
    return hashlib.sha256(manifest).hexdigest()


def verify_bundle(files: Mapping[str, bytes]) -> Manifest:
    """The manifest of a bundle, once every file has been compared with it.

    Raises:
        InvalidBundle: the manifest is missing, newer than this program or wrong; a file is missing, differs from its
            checksum or is not listed.
    """
    if MANIFEST not in files:
        raise InvalidBundle(f"the bundle has no {MANIFEST}: is it a folder that `linewatch train` wrote?")
    manifest = _parse(files[MANIFEST])
    listed = manifest.files.keys() | {MANIFEST}
    if missing := sorted(listed - files.keys()):
        raise InvalidBundle(f"the bundle lacks {missing[0]}, which its manifest lists")
    if extra := sorted(files.keys() - listed):
        raise InvalidBundle(f"the bundle holds {extra[0]}, which its manifest does not list")
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
            f"the bundle has format version {version}, this program reads up to {FORMAT_VERSION}: upgrade Linewatch"
        )
    if b"\\u0000" in encoded:
        raise InvalidBundle(f"{MANIFEST} holds U+0000")
    try:
        return Manifest.model_validate_json(encoded)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "its content"
        raise InvalidBundle(f"{MANIFEST} is not valid: {place}: {first['msg']}") from error


def checksums(files: Mapping[str, bytes]) -> dict[str, str]:
    """The SHA-256 of each file: what a manifest lists."""
    return {name: digest(content) for name, content in files.items()}


def encode_json(content: Any) -> bytes:
    """A JSON file of the bundle: UTF-8, finite numbers only, the same bytes for the same content."""
    return (json.dumps(content, sort_keys=True, allow_nan=False) + "\n").encode()
