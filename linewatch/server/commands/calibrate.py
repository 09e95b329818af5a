"""`linewatch calibrate`: a new threshold from images of good parts, without training; or whether one still holds."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linewatch.cli.commands.models import active_version, describe_calibration, threshold_text
from linewatch.cli.failures import CommandFailed, WrongUse
from linewatch.cli.image_files import images_in
from linewatch.cli.options import (
    DEFAULT_URL,
    ApiKey,
    AsJson,
    Data,
    Device,
    FalseRejectRate,
    Recipe,
    Url,
    Version,
    client,
)
from linewatch.cli.terminal import print_json, progress, remark, results

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from core.vision.bundle.manifest import Manifest
    from core.vision.calibration.calibration import ExpectedRateCheck
    from core.vision.calibration.record import Calibration
    from core.vision.detectors.detector import Detector
    from core.vision.training.dataset import ScannedImages
    from core.vision.training.grouping import GroupBy
    from linewatch.client import Client
    from linewatch.types.results import ModelVersion, Threshold, ThresholdPreview

_DEFAULT_RATE = 0.05
_WORST = 5


def calibrate(
    recipe: Recipe,
    data: Data,
    false_reject_rate: FalseRejectRate = None,
    review_rate: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="The share of good parts that may be rejected or reviewed. [no review]"),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(help="What a part or lot is: a pattern of file names such as 'part(\\d+)_', or FILE.csv:COLUMN."),
    ] = None,
    version: Version = None,
    station: Annotated[str | None, typer.Option("--station", help="The one station that the threshold is for.")] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Only check the rejects against the expected rate; exit 1 if too many or few."),
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Only say which past verdicts the new threshold would change.")
    ] = False,
    device: Device = "auto",
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Set a threshold from images of good parts.

    It rejects the wished share of them. The images, DATA/train/good/* or DATA/*, must be of good parts that the
    version was not trained on. With --check or --preview nothing is set.
    """
    if check and (preview or false_reject_rate is not None or review_rate is not None):
        raise WrongUse("--check looks at the threshold in force: leave --preview and the rates out")
    rates = _rates(false_reject_rate, review_rate)
    by = _parsed(group_by)
    root, images = _good_parts(data)
    if not check:
        _enough(len(images), rates[0])
    with client(url, api_key) as system:
        number = version or active_version(system, recipe)
        found = system.model_version(recipe, number)
        if check:
            _calibrated_threshold(found, station)  # better refused now than after the scoring
        with tempfile.TemporaryDirectory(prefix="linewatch-") as folder:
            tar = system.download_bundle(recipe, number, Path(folder, "bundle.tar"))
            sample = _scored(tar, root, images, by, device)
        if check:
            _check(found, station, sample, as_json)
        else:
            _renew(system, found, station, _calibration(sample, *rates), only_preview=preview, as_json=as_json)


def _rates(false_reject_rate: float | None, review_rate: float | None) -> tuple[float, float | None]:
    rate = _DEFAULT_RATE if false_reject_rate is None else false_reject_rate
    if not 0 < rate < 1:
        raise WrongUse(f"--false-reject-rate must lie between 0 and 1, not {rate:g}")
    if review_rate is not None and not rate < review_rate < 1:
        raise WrongUse(
            f"--review-rate must lie between the false-reject rate, {rate:g}, and 1, not {review_rate:g}: "
            "it is the share of good parts that may be rejected or reviewed"
        )
    return rate, review_rate


def _enough(count: int, rate: float) -> None:
    """Refuse a sample that cannot do, before anything is read."""
    from core.vision.calibration.calibration import SampleTooSmall, required_sample_size

    if count < required_sample_size(rate):
        raise SampleTooSmall(
            f"{count} good parts are too few for a false-reject rate of {rate:g}: "
            f"at least {required_sample_size(rate)} are needed"
        )


def _parsed(group_by: str | None) -> "GroupBy | None":
    from core.vision.training.grouping import GroupBy

    return None if group_by is None else GroupBy.parse(group_by)


def _good_parts(data: Path) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, as in training, and the images of good parts in it."""
    from core.vision.training.dataset import InvalidDataset, read_mvtec_folder

    if (data / "train" / "good").is_dir():
        return data, read_mvtec_folder(data).good
    if not data.is_dir():
        raise InvalidDataset(f"{data} is not a folder: name one that holds images of good parts")
    found = images_in(data)
    if not found:
        raise InvalidDataset(f"{data} holds no images: put images of good parts there, or into train/good/")
    return data, found


@dataclass(frozen=True)
class _Sample:
    """Good parts as the version scores them: names, scores, and which belong together."""

    names: list[str]
    scores: "NDArray[np.float64]"
    groups: list[int]


def _scored(tar: Path, root: Path, images: list[Path], by: "GroupBy | None", device: str) -> _Sample:
    """Read and score good parts with a bundle."""
    from core.vision.bundle.loading import load_detector
    from core.vision.bundle.manifest import verify_bundle
    from core.vision.bundle.tar import unpack
    from core.vision.evaluation.evaluation import score_dataset
    from core.vision.training.grouping import group_parts
    from core.vision.training_options import TrainingOptions

    with tar.open("rb") as file:
        files = unpack(file, max_bytes=tar.stat().st_size)
    try:
        detector = load_detector(files, device=device, max_pixels=TrainingOptions.max_pixels)
    except ValueError as error:
        raise CommandFailed(str(error)) from error
    with progress() as bar:
        reading = bar.add_task("reading", total=len(images))
        found = _read(images, detector, lambda done: bar.update(reading, completed=done))
        _warn_of_known(verify_bundle(files), root, found)
        grouping = group_parts(found.paths, root, found.digests, found.thumbnails, by)
        for note in grouping.notes:
            remark(f"Note: {note}")
        scoring = bar.add_task("scoring", total=len(found.paths))
        scores = score_dataset(detector, found.images, lambda done: bar.update(scoring, completed=done))
    return _Sample([path.relative_to(root).as_posix() for path in found.paths], scores, grouping.groups)


def _read(images: list[Path], detector: "Detector", done: Any) -> "ScannedImages":
    from core.vision.training.dataset import InvalidDataset, read

    found = read(images, detector.preprocessing, max_pixels=detector.max_pixels, progress=done)
    for path, reason in found.unreadable:
        remark(f"{path} cannot be read and is left out: {reason}")
    if not found.paths:
        raise InvalidDataset(f"none of the {len(images)} images can be read")
    return found


def _warn_of_known(manifest: "Manifest", root: Path, found: "ScannedImages") -> None:
    from core.vision.training.dataset import dataset_digest

    if manifest.training is None:
        return
    if dataset_digest(root, found.paths, found.digests) == manifest.training.training_set_digest:
        remark(
            "This version was trained on these images, so the threshold will be too low and reject more good parts "
            "than expected: calibrate with images that it was not trained on."
        )


# A new threshold


def _calibration(sample: _Sample, rate: float, review_rate: float | None) -> "Calibration":
    from core.vision.calibration.calibration import calibrate as choose

    return choose(sample.scores, rate, review_rate=review_rate, groups=sample.groups)


def _renew(
    system: "Client",
    found: "ModelVersion",
    station: str | None,
    calibration: "Calibration",
    *,
    only_preview: bool,
    as_json: bool,
) -> None:
    """Set the threshold, unless it is only previewed, and say what it changes."""
    new: dict[str, Any] = {
        "review_threshold": calibration.review.threshold if calibration.review else None,
        "station_id": station,
    }
    described = calibration.model_dump(mode="json")
    flips = system.preview_threshold(found.recipe, found.version, calibration.threshold, **new)
    named = {"recipe": found.recipe, "version": found.version}
    if only_preview:
        if as_json:
            print_json({**named, "calibration": described, "preview": flips.model_dump(mode="json")})
            return
        results().print(
            f"The new threshold would be {calibration.threshold:.6g}: {describe_calibration(described)}.", markup=False
        )
        _tell_flips(flips)
        results().print("Nothing was set.")
        return
    made = system.set_threshold(found.recipe, found.version, calibration.threshold, calibration=described, **new)
    if as_json:
        print_json({**named, **made.model_dump(mode="json"), "preview": flips.model_dump(mode="json")})
        return
    where = f" at station {station}" if station is not None else ""
    results().print(f"Version {found.version} of recipe {found.recipe} has a new threshold{where}.", markup=False)
    results().print(f"Threshold {threshold_text(made)}.", markup=False)
    _tell_flips(flips)


def _tell_flips(preview: "ThresholdPreview") -> None:
    newest = "newest " if preview.truncated else ""
    seen = f"the {newest}{preview.inspections} inspections since {preview.since:%Y-%m-%d}"
    if preview.inspections == 0:
        results().print(f"There are no inspections since {preview.since:%Y-%m-%d} to compare with.")
    elif not preview.flips:
        results().print(f"It would have changed none of {seen}.")
    else:
        kinds = ", ".join(f"{one.count} from {one.before} to {one.after}" for one in preview.flips)
        results().print(f"Of {seen} it would have changed {kinds}.")
    for one in preview.flips:
        results().print(f"{one.before} to {one.after}, for example: linewatch show {one.examples[0].id}", markup=False)


# The threshold in force


def _calibrated_threshold(found: "ModelVersion", station: str | None) -> tuple["Threshold", "Calibration"]:
    """The threshold in force at a station, and the calibration that it came from.

    Raises:
        CommandFailed: it has no calibration.
    """
    from core.vision.calibration.record import Calibration

    in_force = found.threshold_at(station)
    if in_force.calibration is None:
        raise CommandFailed(
            f"the threshold of version {found.version} of recipe {found.recipe!r} was set by hand and has no expected "
            "false-reject rate: set one with `linewatch calibrate` first"
        )
    return in_force, Calibration.model_validate(in_force.calibration)


def _check(found: "ModelVersion", station: str | None, sample: _Sample, as_json: bool) -> None:
    """Compare the rejects among the good parts with the expected false-reject rate; exit 1 if they do not fit."""
    from core.models.verdicts import is_anomaly
    from core.vision.calibration.calibration import check_expected_rate

    in_force, calibration = _calibrated_threshold(found, station)
    rejected = sum(is_anomaly(score, in_force.threshold) for score in sample.scores.tolist())
    outcome = check_expected_rate(calibration, rejected, len(sample.scores), sample.groups)
    worst = sorted(zip(sample.scores.tolist(), sample.names, strict=True), reverse=True)[:_WORST]
    if as_json:
        print_json(_outcome(found, in_force, outcome, worst))
    else:
        results().print(f"{outcome.summary[:1].upper()}{outcome.summary[1:]}.", markup=False)
        results().print("The worst of them:")
        for score, name in worst:
            mark = ", rejected" if is_anomaly(score, in_force.threshold) else ""
            results().print(f"  {name}: {score:.6g}{mark}", markup=False)
    if outcome.verdict == "broken":
        raise CommandFailed(f"the false-reject rate is not as expected: {outcome.summary}; {_advice(outcome)}")


def _outcome(
    found: "ModelVersion", in_force: "Threshold", outcome: "ExpectedRateCheck", worst: Sequence[tuple[float, str]]
) -> dict[str, Any]:
    return {
        "recipe": found.recipe,
        "version": found.version,
        "station_id": in_force.station_id,
        "threshold": in_force.threshold,
        "verdict": outcome.verdict,
        "rejected": outcome.rejected,
        "of": outcome.good_parts,
        "expected": list(outcome.expected),
        "p_value": outcome.p_value,
        "worst": [{"name": name, "anomaly_score": score} for score, name in worst],
    }


def _advice(outcome: "ExpectedRateCheck") -> str:
    if outcome.rejected > outcome.expected[1]:
        return "parts, light or camera have changed, or some of these parts are not good: see to that, or calibrate"
    return "it could be lower and catch more: calibrate"
