"""`linewatch train`: train a model version on a folder of images of good parts, on this machine."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linewatch.cli.cache import cache_folder
from linewatch.cli.commands.models import (
    describe_calibration,
    print_detectability,
    print_metrics,
    print_outcome,
    refuse_unfit,
    register,
)
from linewatch.cli.failures import WrongUse
from linewatch.cli.options import FOLDER_OR_FILE, activate_option, client, device_option, force_option, system_options
from linewatch.cli.terminal import print_json, remark
from linewatch.server.commands.train_from_reviews import (
    ReviewOptions,
    learning_from_reviews,
    review_options,
    take_review_options,
)
from linewatch.server.commands.training_options import options, training_options
from linewatch.server.commands.training_progress import SideFiles, train_with_progress

if TYPE_CHECKING:
    from core.vision.bundle.manifest import Manifest
    from core.vision.training_options import TrainingOptions
    from linewatch.client import Client
    from linewatch.types.results import ModelVersion


@click.command("train")
@click.option(
    "--data",
    type=FOLDER_OR_FILE,
    help="A folder with train/good/*, and with test/<type>/* to measure detection.",
)
@review_options
@click.option("--recipe", "-r", help="The recipe.")
@click.option("--out", type=FOLDER_OR_FILE, help="Only write the bundle to this folder. Needs no running system.")
@training_options
@device_option
@activate_option
@force_option
@click.option("--report", type=FOLDER_OR_FILE, help="The report to write. [OUT.html, or RECIPE-vN.html]")
@click.option(
    "--checkpoint",
    type=FOLDER_OR_FILE,
    help="The folder for the state of an interrupted training. [in the user's cache]",
)
@click.option("--restart", is_flag=True, help="Discard the state of an interrupted training and start again.")
@system_options
def train(
    data: Path | None,
    recipe: str | None,
    out: Path | None,
    device: str,
    activate: bool,
    force: bool,
    report: Path | None,
    checkpoint: Path | None,
    restart: bool,
    url: str,
    api_key: str | None,
    as_json: bool,
    **training: Any,
) -> None:
    """Train on images of good parts.

    Calibrates a threshold on the same parts, each scored by a detector that was not trained on it, uploads the bundle
    as a model version of the recipe, and writes a report.
    If you interrupt it, the same command continues where it stopped.

    With --from-reviews, images that the machine rejected and a person called ok join the good parts, and images that a
    person called ng choose the detector and judge it. It says what the new version would have changed, and activates
    nothing.
    """
    reviews = take_review_options(training, recipe=recipe, data=data, out=out, activate=activate)
    if out is None and recipe is None:
        raise WrongUse("name the recipe with --recipe, or --out DIR to only write the bundle")
    if out is not None and activate:
        raise WrongUse("--out only writes the bundle, so there is nothing to activate: omit --activate")
    if force and not activate:
        raise WrongUse("--force activates a version that is not fit for use: add --activate")
    options(device, training)  # fail now if they are wrong
    if report is not None and not report.parent.is_dir():
        raise WrongUse(f"the folder {report.parent} for the report does not exist: create it or name another one")
    side_files = SideFiles(report, _checkpoint_folder(checkpoint), restart)
    if out is not None:
        assert data is not None  # noqa: S101 - checked with the review options
        _train_to_folder(data, out, options(device, training), side_files, recipe, as_json=as_json)
        return
    assert recipe is not None  # noqa: S101 - checked above
    with client(url, api_key) as system:
        recipes = system.recipes()  # also to fail now, not after the training
        if training["bit_depth"] is None:
            training["bit_depth"] = {known.name: known.bit_depth for known in recipes}.get(recipe)
        trained = _Training(recipe, data, options(device, training), side_files)
        if reviews is None:
            version = _train_version(system, trained, activate=activate, force=force, as_json=as_json)
        else:
            choice_is_open = training.get("choose_by") is None
            version = _train_from_reviews(system, trained, reviews, choice_is_open=choice_is_open, as_json=as_json)
    if activate and not force:
        refuse_unfit(version)


@dataclass(frozen=True)
class _Training:
    """What is trained, and for which recipe."""

    recipe: str
    data: Path | None
    options: "TrainingOptions"
    side_files: SideFiles


def _train_to_folder(
    data: Path, out: Path, options: "TrainingOptions", side_files: SideFiles, recipe: str | None, *, as_json: bool
) -> None:
    """Write a bundle and its report, and print the result."""
    report = side_files.report or out.with_name(f"{out.name}.html")
    manifest = train_with_progress(data, out, options, replace(side_files, report=report))
    _print_result(manifest, None, as_json, {"out": str(out), "report": str(report)})
    if not as_json:
        command = f"linewatch models import {out} --recipe {recipe or 'NAME'}"
        click.echo(f"The bundle is in {out}. To upload it: {command}")


def _train_version(
    system: "Client", training: _Training, *, activate: bool, force: bool, as_json: bool
) -> "ModelVersion":
    """Train, upload the version, and print the result."""
    manifest, version, report = _train_and_register(system, training, activate=activate, force=force)
    _print_result(manifest, version, as_json, {"report": str(report)})
    return version


def _train_from_reviews(
    system: "Client", training: _Training, reviews: ReviewOptions, *, choice_is_open: bool, as_json: bool
) -> "ModelVersion":
    """Train on reviewed images, upload the version, and print the result and what would have changed."""
    with learning_from_reviews(
        system, training.recipe, reviews, training.data, training.options, choice_is_open=choice_is_open
    ) as learning:
        learned = replace(
            training,
            data=learning.folder.root,
            options=learning.options,
            side_files=replace(training.side_files, compare=learning.compare),
        )
        manifest, version, report = _train_and_register(system, learned, activate=False, force=False)
    _print_result(manifest, version, as_json, {"report": str(report), **learning.document()})
    if not as_json:
        learning.print_comparison()
    return version


def _train_and_register(
    system: "Client", training: _Training, *, activate: bool, force: bool
) -> tuple["Manifest", "ModelVersion", Path]:
    """Train and upload. Returns the manifest, the version and the path of the report."""
    assert training.data is not None  # noqa: S101 - checked with the review options
    with tempfile.TemporaryDirectory(prefix="linewatch-") as folder:
        bundle, draft = Path(folder, "bundle"), Path(folder, "report.html")
        manifest = train_with_progress(
            training.data, bundle, training.options, replace(training.side_files, report=draft)
        )
        with _keep_on_failure(Path(folder), training.recipe):
            version = register(system, training.recipe, bundle, activate=activate, force=force)
        report = training.side_files.report or Path(f"{training.recipe}-v{version.version}.html")
        shutil.copyfile(draft, report)
    return manifest, version, report


@contextmanager
def _keep_on_failure(folder: Path, recipe: str) -> Iterator[None]:
    """If the block fails, copy the bundle and its report from the temporary folder to the current one."""
    try:
        yield
    except BaseException:
        kept = Path(tempfile.mkdtemp(prefix=f"{recipe}-", dir=Path.cwd()))
        shutil.copytree(folder, kept, dirs_exist_ok=True)
        command = f"linewatch models import {kept / 'bundle'} --recipe {recipe}"
        remark(f"The upload failed. The bundle is kept; to upload it later: {command}")
        raise


def _checkpoint_folder(chosen: Path | None) -> Path | None:
    """Return the folder for the state of interrupted trainings, or None if there is no writable cache."""
    folder = chosen or cache_folder("training")
    if folder is None:
        remark("There is no writable cache folder: an interrupted training has to start again (see --checkpoint).")
    return folder


def describe_threshold(manifest: "Manifest") -> str:
    """Describe the threshold of a new bundle and what it means."""
    calibration = manifest.threshold.calibration
    review = f", review from {manifest.review_threshold:.6g}" if manifest.review_threshold is not None else ""
    meaning = describe_calibration(calibration.model_dump() if calibration else None)
    return f"{manifest.threshold.value:.6g}{review}: {meaning}"


def _print_result(
    manifest: "Manifest", version: "ModelVersion | None", as_json: bool, paths: Mapping[str, Any]
) -> None:
    if as_json:
        result = version.document if version else {"manifest": manifest.model_dump(mode="json")}
        print_json({**result, **paths})
        return
    if version is not None:
        print_outcome(version)
    if manifest.training is not None:
        training = manifest.training
        click.echo(
            f"Trained {manifest.architecture.name} at {manifest.preprocessing.width} × "
            f"{manifest.preprocessing.height} pixels on {training.parts['training']} images on {training.device}."
        )
    click.echo(f"Threshold {describe_threshold(manifest)}.")
    print_metrics(manifest.metrics.model_dump() if manifest.metrics else None)
    print_detectability(manifest.detectability.model_dump() if manifest.detectability else None)
    click.echo(f"The report is in {paths['report']}.")
