"""`linewatch calibrate`: a new threshold from images of good parts, without training; or whether one still holds."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linewatch.cli.commands.models import active_version, describe_calibration, threshold_text
from linewatch.cli.failures import CommandFailed, WrongUse
from linewatch.cli.image_files import images_in
from linewatch.cli.options import (
    FOLDER_OR_FILE,
    client,
    device_option,
    false_reject_rate_option,
    group_by_option,
    recipe_option,
    review_rate_option,
    system_options,
    version_option,
)
from linewatch.cli.terminal import advance_to, print_json, progress_bar, remark

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


@click.command("calibrate")
@recipe_option
@click.option("--data", type=FOLDER_OR_FILE, required=True, help="A folder of images of good parts.")
@false_reject_rate_option
@review_rate_option
@group_by_option
@version_option
@click.option("--station", help="Only for this station. [all stations]")
@click.option("--check", is_flag=True, help="Only check whether the rejects match the expected rate; exit 1 if not.")
@click.option("--preview", is_flag=True, help="Only show which past verdicts the new threshold would change.")
@device_option
@system_options
def calibrate(
    recipe: str,
    data: Path,
    false_reject_rate: float | None,
    review_rate: float | None,
    group_by: str | None,
    version: int | None,
    station: str | None,
    check: bool,
    preview: bool,
    device: str,
    url: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Set a threshold from images of good parts.

    The threshold rejects the chosen share of them. The images, DATA/train/good/* or DATA/*, must show good parts that
    the version was not trained on. With --check or --preview nothing is set.
    """
    if check and (preview or false_reject_rate is not None or review_rate is not None):
        raise WrongUse("--check tests the threshold in force: leave out --preview and the rates")
    rates = _rates(false_reject_rate, review_rate)
    by = _parsed(group_by)
    root, images = _good_parts(data)
    if not check:
        _require_enough(len(images), rates[0])
    with client(url, api_key) as system:
        number = version or active_version(system, recipe)
        found = system.model_version(recipe, number)
        if check:
            _calibrated_threshold(found, station)  # fail now, not after the scoring
        with tempfile.TemporaryDirectory(prefix="linewatch-") as folder:
            tar = system.download_bundle(recipe, number, Path(folder, "bundle.tar"))
            sample = _scored(tar, root, images, by, device)
        if check:
            _check(found, station, sample, as_json)
        else:
            _set_or_preview(system, found, station, _calibration(sample, *rates), only_preview=preview, as_json=as_json)


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


def _require_enough(count: int, rate: float) -> None:
    """Reject a sample that is too small, before anything is read."""
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
    """The folder that names are relative to, as in training, and its images of good parts."""
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
    """Good parts as the version scores them: their names, scores and groups."""

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
    with progress_bar("reading", len(images)) as bar:
        found = _read(images, detector, partial(advance_to, bar))
    _warn_if_trained_on(verify_bundle(files), root, found)
    grouping = group_parts(found.paths, root, found.digests, found.thumbnails, by)
    for note in grouping.notes:
        remark(f"Note: {note}")
    with progress_bar("scoring", len(found.paths)) as bar:
        scores = score_dataset(detector, found.images, partial(advance_to, bar))
    return _Sample([path.relative_to(root).as_posix() for path in found.paths], scores, grouping.groups)


def _read(images: list[Path], detector: "Detector", done: Any) -> "ScannedImages":
    from core.vision.training.dataset import InvalidDataset, read

    found = read(images, detector.preprocessing, max_pixels=detector.max_pixels, progress=done)
    for path, reason in found.unreadable:
        remark(f"{path} cannot be read and is left out: {reason}")
    if not found.paths:
        raise InvalidDataset(f"none of the {len(images)} images can be read")
    return found


def _warn_if_trained_on(manifest: "Manifest", root: Path, found: "ScannedImages") -> None:
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


def _set_or_preview(
    system: "Client",
    found: "ModelVersion",
    station: str | None,
    calibration: "Calibration",
    *,
    only_preview: bool,
    as_json: bool,
) -> None:
    """Set or only preview the threshold, and print which past verdicts it changes."""
    new: dict[str, Any] = {
        "review_threshold": calibration.review.threshold if calibration.review else None,
        "station_id": station,
    }
    document = calibration.model_dump(mode="json")
    flips = system.preview_threshold(found.recipe, found.version, calibration.threshold, **new)
    named = {"recipe": found.recipe, "version": found.version}
    if only_preview:
        if as_json:
            print_json({**named, "calibration": document, "preview": flips.document})
            return
        click.echo(f"The new threshold would be {calibration.threshold:.6g}: {describe_calibration(document)}.")
        _print_flips(flips)
        click.echo("Nothing was set.")
        return
    made = system.set_threshold(found.recipe, found.version, calibration.threshold, calibration=document, **new)
    if as_json:
        print_json({**named, **made.document, "preview": flips.document})
        return
    where = f" at station {station}" if station is not None else ""
    click.echo(f"Version {found.version} of recipe {found.recipe} has a new threshold{where}.")
    click.echo(f"Threshold {threshold_text(made)}.")
    _print_flips(flips)


def _print_flips(preview: "ThresholdPreview") -> None:
    newest = "newest " if preview.truncated else ""
    compared = f"the {newest}{preview.inspections} inspections since {preview.since:%Y-%m-%d}"
    if preview.inspections == 0:
        click.echo(f"There are no inspections since {preview.since:%Y-%m-%d} to compare with.")
    elif not preview.flips:
        click.echo(f"It would have changed none of {compared}.")
    else:
        kinds = ", ".join(f"{one.count} from {one.before} to {one.after}" for one in preview.flips)
        click.echo(f"Of {compared} it would have changed {kinds}.")
    for one in preview.flips:
        click.echo(f"{one.before} to {one.after}, for example: linewatch show {one.examples[0].id}")


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
        click.echo(f"{outcome.summary[:1].upper()}{outcome.summary[1:]}.")
        click.echo("The worst of them:")
        for score, name in worst:
            mark = ", rejected" if is_anomaly(score, in_force.threshold) else ""
            click.echo(f"  {name}: {score:.6g}{mark}")
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
