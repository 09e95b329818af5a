"""`linewatch calibrate`: set or check a threshold with images of good parts, without training."""

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
    from core.vision.training.group_by import GroupBy
    from linewatch.client import Client
    from linewatch.types.results import ModelVersion, Threshold, ThresholdPreview

_DEFAULT_RATE = 0.05
_WORST = 5  # highest scores that --check lists


@click.command("calibrate")
@recipe_option
@click.option("--data", type=FOLDER_OR_FILE, required=True, help="A folder of images of good parts.")
@false_reject_rate_option
@review_rate_option
@group_by_option
@version_option
@click.option("--station", help="Only for this station. [all stations]")
@click.option("--check", is_flag=True, help="Only check whether the rejects match the expected rate; exit 1 if not.")
@click.option("--reason", help="Why the threshold is set, for the history.")
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
    reason: str | None,
    preview: bool,
    device: str,
    url: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Set a threshold from images of good parts.

    The threshold is expected to reject the chosen share of good parts. Use images, DATA/train/good/* or DATA/*, of good
    parts that the version was not trained on. --check and --preview set nothing.
    """
    if check and (preview or false_reject_rate is not None or review_rate is not None):
        raise WrongUse("--check tests the threshold in force: omit --preview and the rates")
    rates = _rates(false_reject_rate, review_rate)
    grouping = _parse_grouping(group_by)
    root, images = _find_good_parts(data)
    if not check:
        _require_enough(len(images), rates[0])
    with client(url, api_key) as system:
        number = version or active_version(system, recipe)
        model_version = system.model_version(recipe, number)
        if check:
            _calibrated_threshold(model_version, station)  # fail before the scoring, not after it
        with tempfile.TemporaryDirectory(prefix="linewatch-") as folder:
            tar = system.download_bundle(recipe, number, Path(folder, "bundle.tar"))
            sample = _score(tar, root, images, grouping, device)
        if check:
            _check(model_version, station, sample, as_json)
        else:
            calibration = _calibrate(sample, *rates)
            if preview:
                _preview(system, model_version, station, calibration, as_json=as_json)
            else:
                _set(system, model_version, station, calibration, sample, reason, as_json=as_json)


def _rates(false_reject_rate: float | None, review_rate: float | None) -> tuple[float, float | None]:
    rate = _DEFAULT_RATE if false_reject_rate is None else false_reject_rate
    if not 0 < rate < 1:
        raise WrongUse(f"--false-reject-rate must be between 0 and 1, not {rate:g}")
    if review_rate is not None and not rate < review_rate < 1:
        raise WrongUse(
            f"--review-rate must be between the false-reject rate, {rate:g}, and 1, not {review_rate:g}: "
            "it is the share of good parts that may be rejected or reviewed"
        )
    return rate, review_rate


def _require_enough(count: int, rate: float) -> None:
    """Reject a sample that is too small before reading any image.

    Raises:
        SampleTooSmall: fewer images than the rate needs.
    """
    from core.vision.calibration.calibration import SampleTooSmall, required_sample_size

    if count < required_sample_size(rate):
        raise SampleTooSmall(
            f"{count} good parts are too few for a false-reject rate of {rate:g}: "
            f"at least {required_sample_size(rate)} are needed"
        )


def _parse_grouping(group_by: str | None) -> "GroupBy | None":
    from core.vision.training.group_by import GroupBy

    return None if group_by is None else GroupBy.parse(group_by)


def _find_good_parts(data: Path) -> tuple[Path, list[Path]]:
    """Return the folder that names are relative to, as in training, and its images of good parts."""
    from core.vision.training.dataset import InvalidDataset, read_mvtec_folder

    if (data / "train" / "good").is_dir():
        return data, read_mvtec_folder(data).good
    if not data.is_dir():
        raise InvalidDataset(f"{data} is not a folder: name a folder with images of good parts")
    images = images_in(data)
    if not images:
        raise InvalidDataset(f"{data} has no images: put images of good parts into it, or into its train/good/")
    return data, images


@dataclass(frozen=True)
class _Sample:
    """The scores of good parts, with their names and groups, one entry per image."""

    names: list[str]
    scores: "NDArray[np.float64]"
    groups: list[int]


def _score(tar: Path, root: Path, images: list[Path], grouping: "GroupBy | None", device: str) -> _Sample:
    """Read images of good parts and score them with a bundle."""
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
        parts = _read(images, detector, partial(advance_to, bar))
    _warn_if_trained_on(verify_bundle(files), root, parts)
    grouped = group_parts(parts, root, grouping)
    for note in grouped.notes:
        remark(f"Note: {note}")
    with progress_bar("scoring", len(parts.paths)) as bar:
        scores = score_dataset(detector, parts.images, partial(advance_to, bar))
    return _Sample([path.relative_to(root).as_posix() for path in parts.paths], scores, grouped.groups)


def _read(images: list[Path], detector: "Detector", progress: Any) -> "ScannedImages":
    from core.vision.input.bit_depth import DEPTH
    from core.vision.training.dataset import InvalidDataset, read

    parts = read(images, detector.preprocessing, max_pixels=detector.max_pixels, progress=progress)
    for path, reason in parts.unreadable:
        remark(f"Skipping {path}, which cannot be read: {reason}")
    if not parts.paths:
        raise InvalidDataset(f"none of the {len(images)} images can be read")
    if other := [path for path, reasons in zip(parts.paths, parts.reasons, strict=True) if DEPTH in reasons]:
        raise InvalidDataset(
            f"{len(other)} of the {len(parts.paths)} images do not have the bit depth that the version was trained on, "
            f"{detector.preprocessing.bit_depth}, the first is {other[0]}: such images get review, whatever "
            "their score; leave them out, or train a version with images of their depth"
        )
    return parts


def _warn_if_trained_on(manifest: "Manifest", root: Path, parts: "ScannedImages") -> None:
    from core.vision.training.dataset import dataset_digest

    if manifest.training is None:
        return
    if dataset_digest(root, parts.paths, parts.digests) == manifest.training.training_set_digest:
        remark(
            "This version was trained on these images, so the threshold will be too low and reject more good parts "
            "than expected. Calibrate with images that it was not trained on."
        )


# A new threshold


def _calibrate(sample: _Sample, rate: float, review_rate: float | None) -> "Calibration":
    from core.vision.calibration.calibration import calibrate as choose_threshold

    return choose_threshold(sample.scores, rate, review_rate=review_rate, groups=sample.groups)


def _options(station: str | None, calibration: "Calibration") -> dict[str, Any]:
    review_threshold = calibration.review.threshold if calibration.review else None
    return {"review_threshold": review_threshold, "station_id": station}


def _preview(
    system: "Client", version: "ModelVersion", station: str | None, calibration: "Calibration", *, as_json: bool
) -> None:
    """Print the threshold, and which past verdicts it would have changed."""
    document = calibration.model_dump(mode="json")
    options = _options(station, calibration)
    preview = system.preview_threshold(version.recipe, version.version, calibration.threshold, **options)
    if as_json:
        fields = {"recipe": version.recipe, "version": version.version}
        print_json({**fields, "calibration": document, "preview": preview.document})
        return
    click.echo(f"The new threshold would be {calibration.threshold:.6g}: {describe_calibration(document)}.")
    _print_flips(preview)
    click.echo("Nothing was set.")


def _set(
    system: "Client",
    version: "ModelVersion",
    station: str | None,
    calibration: "Calibration",
    sample: _Sample,
    reason: str | None,
    *,
    as_json: bool,
) -> None:
    """Set the threshold, and print which past verdicts it would have changed."""
    from core.vision.calibration.expected_rate import MAX_SENT_SCORES

    options = _options(station, calibration)
    preview = system.preview_threshold(version.recipe, version.version, calibration.threshold, **options)
    scores = sample.scores.tolist()
    threshold = system.set_threshold(
        version.recipe,
        version.version,
        calibration.threshold,
        calibration=calibration.model_dump(mode="json"),
        held_out_scores=scores if len(scores) <= MAX_SENT_SCORES else None,
        reason=reason,
        **options,
    )
    if as_json:
        fields = {"recipe": version.recipe, "version": version.version}
        print_json({**fields, **threshold.document, "preview": preview.document})
        return
    place = f" at station {station}" if station is not None else ""
    click.echo(f"Version {version.version} of recipe {version.recipe} has a new threshold{place}.")
    click.echo(f"Threshold {threshold_text(threshold)}.")
    _print_flips(preview)


def _print_flips(preview: "ThresholdPreview") -> None:
    newest = "newest " if preview.truncated else ""
    compared = f"the {newest}{preview.inspections} inspections since {preview.since:%Y-%m-%d}"
    if preview.inspections == 0:
        click.echo(f"There are no inspections since {preview.since:%Y-%m-%d} to compare with.")
    elif not preview.flips:
        click.echo(f"It would have changed none of {compared}.")
    else:
        changes = ", ".join(f"{flip.count} from {flip.before} to {flip.after}" for flip in preview.flips)
        click.echo(f"Of {compared} it would have changed {changes}.")
    for flip in preview.flips:
        click.echo(f"{flip.before} to {flip.after}, for example: linewatch show {flip.examples[0].id}")


# The threshold in force


def _calibrated_threshold(version: "ModelVersion", station: str | None) -> tuple["Threshold", "Calibration"]:
    """Return the threshold in force at a station and its calibration.

    Raises:
        CommandFailed: the threshold has no calibration.
    """
    from core.vision.calibration.record import Calibration

    in_force = version.threshold_at(station)
    if in_force.calibration is None:
        raise CommandFailed(
            f"the threshold of version {version.version} of recipe {version.recipe!r} was set by hand and has no "
            "expected false-reject rate: run `linewatch calibrate` without --check first"
        )
    return in_force, Calibration.model_validate(in_force.calibration)


def _check(version: "ModelVersion", station: str | None, sample: _Sample, as_json: bool) -> None:
    """Compare the rejects among the good parts with the expected false-reject rate.

    Raises:
        CommandFailed: the rejects do not match the expected rate.
    """
    from core.models.verdicts import is_anomaly
    from core.vision.calibration.calibration import check_expected_rate

    in_force, calibration = _calibrated_threshold(version, station)
    rejected = sum(is_anomaly(score, in_force.threshold) for score in sample.scores.tolist())
    outcome = check_expected_rate(calibration, rejected, len(sample.scores), sample.groups)
    worst = sorted(zip(sample.scores.tolist(), sample.names, strict=True), reverse=True)[:_WORST]
    if as_json:
        print_json(_outcome_document(version, in_force, outcome, worst))
    else:
        click.echo(f"{outcome.summary[:1].upper()}{outcome.summary[1:]}.")
        click.echo("The highest scores:")
        for score, name in worst:
            mark = ", rejected" if is_anomaly(score, in_force.threshold) else ""
            click.echo(f"  {name}: {score:.6g}{mark}")
    if outcome.verdict == "broken":
        raise CommandFailed(f"the false-reject rate is not as expected: {outcome.summary}; {_advice(outcome)}")


def _outcome_document(
    version: "ModelVersion", in_force: "Threshold", outcome: "ExpectedRateCheck", worst: Sequence[tuple[float, str]]
) -> dict[str, Any]:
    return {
        "recipe": version.recipe,
        "version": version.version,
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
        return "parts, light or camera have changed, or some of these parts are not good: fix that, or calibrate again"
    return "a lower threshold would catch more defects: calibrate again"
