"""`linewatch train`: train a model version on a folder of images of good parts, on this machine."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from linewatch.cli.cache import cache_folder
from linewatch.cli.commands.models import describe_calibration, print_metrics, print_outcome, register
from linewatch.cli.failures import WrongUse
from linewatch.cli.options import (
    FOLDER_OR_FILE,
    activate_option,
    client,
    device_option,
    false_reject_rate_option,
    group_by_option,
    review_rate_option,
    system_options,
    together,
)
from linewatch.cli.terminal import advance_to, print_json, progress_bar, remark

if TYPE_CHECKING:
    from tqdm import tqdm

    from core.vision.bundle.manifest import Manifest
    from core.vision.train import Progress, TrainingOptions
    from linewatch.types.results import ModelVersion


@dataclass(frozen=True)
class SideFiles:
    """The files that a training writes besides its bundle.

    Attributes:
        report: the path of the HTML report, or None for no report.
        checkpoints: the folder for the state of an interrupted training, or None to keep no state.
        restart: whether to discard that state.
    """

    report: Path | None = None
    checkpoints: Path | None = None
    restart: bool = False


_training_options = together(
    [
        click.option(
            "--architecture",
            help="The detector's architecture. [feature-autoencoder, if backbone weights are installed]",
        ),
        click.option("--backbone", help="The pretrained network of a feature detector. [efficientnet-lite0]"),
        click.option(
            "--backbone-weights",
            type=FOLDER_OR_FILE,
            help="A file with the backbone's weights, a plain state dict. [the installed weights]",
        ),
        click.option("--score-method", help="How a conv-autoencoder scores: mse or z-map. [z-map]"),
        click.option("--epochs", type=click.IntRange(min=1), help="The largest number of passes over the images."),
        click.option(
            "--input-size",
            type=click.IntRange(min=8, max=4096),
            help="Both sides of the network's input, in pixels. [chosen for the images]",
        ),
        false_reject_rate_option,
        review_rate_option,
        group_by_option,
        click.option("--seed", type=click.IntRange(min=0, max=2**32 - 1), help="The seed of all random numbers. [0]"),
    ]
)
"""The fields of `TrainingOptions` except the device. None means the default."""


@click.command("train")
@click.option(
    "--data",
    type=FOLDER_OR_FILE,
    required=True,
    help="A folder with train/good/*, and with test/<type>/* to measure detection.",
)
@click.option("--recipe", "-r", help="The recipe.")
@click.option("--out", type=FOLDER_OR_FILE, help="Only write the bundle to this folder. Needs no running system.")
@_training_options
@device_option
@activate_option
@click.option("--report", type=FOLDER_OR_FILE, help="The report to write. [OUT.html, or RECIPE-vN.html]")
@click.option(
    "--checkpoint",
    type=FOLDER_OR_FILE,
    help="The folder for the state of an interrupted training. [in the user's cache]",
)
@click.option("--restart", is_flag=True, help="Discard the state of an interrupted training and start again.")
@system_options
def train(
    data: Path,
    recipe: str | None,
    out: Path | None,
    device: str,
    activate: bool,
    report: Path | None,
    checkpoint: Path | None,
    restart: bool,
    url: str,
    api_key: str | None,
    as_json: bool,
    **training: Any,
) -> None:
    """Train on images of good parts.

    Calibrates a threshold on held-out parts, uploads the bundle as a model version of the recipe, and writes a report.
    If you interrupt it, the same command continues where it stopped.
    """
    if out is None and recipe is None:
        raise WrongUse("name the recipe with --recipe, or --out DIR to only write the bundle")
    if out is not None and activate:
        raise WrongUse("--out only writes the bundle, so there is nothing to activate: omit --activate")
    training_options = options(device, training)
    if report is not None and not report.parent.is_dir():
        raise WrongUse(f"the folder {report.parent} for the report does not exist: create it or name another one")
    checkpoints = _checkpoint_folder(checkpoint)
    if out is not None:
        report_file = report or out.with_name(f"{out.name}.html")
        manifest = train_with_progress(data, out, training_options, SideFiles(report_file, checkpoints, restart))
        _print_result(manifest, None, as_json, {"out": str(out), "report": str(report_file)})
        if not as_json:
            command = f"linewatch models import {out} --recipe {recipe or 'NAME'}"
            click.echo(f"The bundle is in {out}. To upload it: {command}")
        return
    assert recipe is not None  # noqa: S101 - checked above
    with client(url, api_key) as system, tempfile.TemporaryDirectory(prefix="linewatch-") as folder:
        system.recipes()  # fail now, not after the training
        bundle, draft = Path(folder, "bundle"), Path(folder, "report.html")
        manifest = train_with_progress(data, bundle, training_options, SideFiles(draft, checkpoints, restart))
        with _keep_on_failure(Path(folder), recipe):
            version = register(system, recipe, bundle, activate=activate)
        report_file = report or Path(f"{recipe}-v{version.version}.html")
        shutil.copyfile(draft, report_file)
    _print_result(manifest, version, as_json, {"report": str(report_file)})


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


def options(device: str, chosen: Mapping[str, Any]) -> "TrainingOptions":
    """Return the options of a training. None means the default.

    Raises:
        WrongUse: options contradict each other, or the device does not exist.
    """
    from core.vision.detectors.device import resolve_device
    from core.vision.detectors.registry import default_architecture
    from core.vision.train import TrainingOptions

    fields = {name: value for name, value in chosen.items() if value is not None}
    fields.setdefault("architecture", default_architecture(chosen.get("backbone_weights")))
    try:
        return TrainingOptions(device=resolve_device(device), **fields)
    except ValueError as error:
        raise WrongUse(str(error)) from error


def train_with_progress(
    data: Path, out: Path, options: "TrainingOptions", side_files: SideFiles | None = None
) -> "Manifest":
    """Train with progress bars and write the bundle to `out`. Raises what `core.vision.train.train` raises."""
    from core.vision.train import train as train_detector

    side_files = side_files or SideFiles()
    with ExitStack() as open_bars:
        bars: dict[str, tqdm[NoReturn]] = {}

        def show(progress: "Progress") -> None:
            if progress.note:
                remark(progress.note)
            if progress.stage not in bars:
                bars[progress.stage] = open_bars.enter_context(progress_bar(progress.stage))
            bar = bars[progress.stage]
            bar.total = progress.total
            loss = f", loss {progress.epoch.validation_loss:.5f}" if progress.epoch else ""
            unit = " (epochs)" if progress.stage == "training" else ""
            bar.set_description_str(progress.stage + unit + loss, refresh=False)
            advance_to(bar, progress.done)

        try:
            manifest = train_detector(
                data,
                out,
                options,
                show,
                report=side_files.report,
                checkpoints=side_files.checkpoints,
                restart=side_files.restart,
            )
        except KeyboardInterrupt:
            if side_files.checkpoints is not None and "training" in bars:
                remark("The same command continues after the last complete epoch; with --restart it starts again.")
            raise
        for bar in bars.values():  # training may end before its last epoch
            bar.update((bar.total or 0) - bar.n)
    return manifest


def describe_threshold(manifest: "Manifest") -> str:
    """Describe the threshold of a new bundle and what it means."""
    calibration = manifest.threshold.calibration
    review = f", review from {manifest.review_threshold:.6g}" if manifest.review_threshold is not None else ""
    meaning = describe_calibration(calibration.model_dump() if calibration else None)
    return f"{manifest.threshold.value:.6g}{review}: {meaning}"


def _print_result(
    manifest: "Manifest", version: "ModelVersion | None", as_json: bool, paths: Mapping[str, str]
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
            f"Trained on {training.parts['training']} images on {training.device}; "
            f"the weights are from epoch {training.best_epoch} of {training.epochs}."
        )
    click.echo(f"Threshold {describe_threshold(manifest)}.")
    print_metrics(manifest.metrics.model_dump() if manifest.metrics else None)
    click.echo(f"The report is in {paths['report']}.")
