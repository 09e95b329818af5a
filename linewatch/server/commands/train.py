"""`linewatch train`: train a model version from a folder of good parts. It computes where it is called."""

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
    """What a training writes besides its bundle.

    Attributes:
        report: the file of the HTML report; None writes none.
        checkpoints: the folder where an interrupted training keeps its state; None keeps none.
        restart: whether to discard that state.
    """

    report: Path | None = None
    checkpoints: Path | None = None
    restart: bool = False


_training_options = together(
    [
        click.option("--architecture", help="The detector. [feature-autoencoder, if backbone weights are installed]"),
        click.option("--backbone", help="The pretrained network of a feature detector. [efficientnet-lite0]"),
        click.option(
            "--backbone-weights",
            type=FOLDER_OR_FILE,
            help="A file with the backbone's weights, a plain state dict. [the installed weights]",
        ),
        click.option("--score-method", help="How a conv-autoencoder scores: mse or z-map. [z-map]"),
        click.option("--epochs", type=click.IntRange(min=1), help="Passes over the images, at most."),
        click.option(
            "--input-size",
            type=click.IntRange(min=8, max=4096),
            help="The network's input, pixels. [chosen for the images]",
        ),
        false_reject_rate_option,
        review_rate_option,
        group_by_option,
        click.option("--seed", type=click.IntRange(min=0, max=2**32 - 1), help="Seeds everything random. [0]"),
    ]
)
"""For the fields of `TrainingOptions`, apart from the device; None where the default applies."""


@click.command("train")
@click.option(
    "--data",
    type=FOLDER_OR_FILE,
    required=True,
    help="Holds train/good/*, and test/<type>/* if detection is to be measured.",
)
@click.option("--recipe", "-r", help="The recipe.")
@click.option("--out", type=FOLDER_OR_FILE, help="Only write the bundle to this folder; no server is needed.")
@_training_options
@device_option
@activate_option
@click.option("--report", type=FOLDER_OR_FILE, help="Where to write the report. [OUT.html, or RECIPE-vN.html]")
@click.option(
    "--checkpoint",
    type=FOLDER_OR_FILE,
    help="The folder where an interrupted training keeps its state. [in the user's cache]",
)
@click.option("--restart", is_flag=True, help="Start afresh after an interrupted training.")
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

    Calibrates a threshold on held-out parts, uploads the result as a model version of the recipe, and writes a report.
    If it is interrupted, the same command continues where it stopped.
    """
    if out is None and recipe is None:
        raise WrongUse("name the recipe with --recipe, or --out DIR to only write the bundle")
    if out is not None and activate:
        raise WrongUse("--out only writes the bundle, so there is nothing to activate: leave out --activate")
    chosen = options(device, training)
    if report is not None and not report.parent.is_dir():
        raise WrongUse(f"there is no folder {report.parent} to write the report to: make it or name another one")
    checkpoints = _checkpoint_folder(checkpoint)
    if out is not None:
        page = report or out.with_name(f"{out.name}.html")
        manifest = train_with_progress(data, out, chosen, SideFiles(page, checkpoints, restart))
        _print_result(manifest, None, as_json, {"out": str(out), "report": str(page)})
        if not as_json:
            command = f"linewatch models import {out} --recipe {recipe or 'NAME'}"
            click.echo(f"The bundle is in {out}. To upload it: {command}")
        return
    assert recipe is not None  # noqa: S101 - checked above
    with client(url, api_key) as system, tempfile.TemporaryDirectory(prefix="linewatch-") as folder:
        system.recipes()  # fail now, not after the training
        bundle, draft = Path(folder, "bundle"), Path(folder, "report.html")
        manifest = train_with_progress(data, bundle, chosen, SideFiles(draft, checkpoints, restart))
        with _kept_if_refused(Path(folder), recipe):
            version = register(system, recipe, bundle, activate=activate)
        page = report or Path(f"{recipe}-v{version.version}.html")
        shutil.copyfile(draft, page)
    _print_result(manifest, version, as_json, {"report": str(page)})


@contextmanager
def _kept_if_refused(folder: Path, recipe: str) -> Iterator[None]:
    """Keep the bundle and its report if the system rejects them; otherwise they go with the temporary folder."""
    try:
        yield
    except BaseException:
        kept = Path(tempfile.mkdtemp(prefix=f"{recipe}-", dir=Path.cwd()))
        shutil.copytree(folder, kept, dirs_exist_ok=True)
        remark(f"The upload failed; the bundle is kept: linewatch models import {kept / 'bundle'} --recipe {recipe}")
        raise


def _checkpoint_folder(chosen: Path | None) -> Path | None:
    """The folder for the state of interrupted trainings; None if there is no writable cache."""
    folder = chosen or cache_folder("training")
    if folder is None:
        remark("There is no writable cache folder: an interrupted training will start afresh (see --checkpoint).")
    return folder


def options(device: str, chosen: Mapping[str, Any]) -> "TrainingOptions":
    """The options of a training; None stands for the default.

    Raises:
        WrongUse: they contradict each other, or the device does not exist.
    """
    from core.vision.detectors.device import resolve_device
    from core.vision.detectors.registry import default_architecture
    from core.vision.train import TrainingOptions

    wanted = {name: value for name, value in chosen.items() if value is not None}
    wanted.setdefault("architecture", default_architecture(chosen.get("backbone_weights")))
    try:
        return TrainingOptions(device=resolve_device(device), **wanted)
    except ValueError as error:
        raise WrongUse(str(error)) from error


def train_with_progress(
    data: Path, out: Path, options: "TrainingOptions", beside: SideFiles | None = None
) -> "Manifest":
    """Train with a progress bar, and write the bundle to `out`; see `core.vision.train.train` for what it raises."""
    from core.vision.train import train as train_detector

    beside = beside or SideFiles()
    with ExitStack() as open_bars:
        bars: dict[str, tqdm[NoReturn]] = {}

        def show(now: "Progress") -> None:
            if now.note:
                remark(now.note)
            if now.stage not in bars:
                bars[now.stage] = open_bars.enter_context(progress_bar(now.stage))
            bar = bars[now.stage]
            bar.total = now.total
            loss = f", loss {now.epoch.validation_loss:.5f}" if now.epoch else ""
            unit = " (epochs)" if now.stage == "training" else ""
            bar.set_description_str(now.stage + unit + loss, refresh=False)
            advance_to(bar, now.done)

        try:
            manifest = train_detector(
                data,
                out,
                options,
                show,
                report=beside.report,
                checkpoints=beside.checkpoints,
                restart=beside.restart,
            )
        except KeyboardInterrupt:
            if beside.checkpoints is not None and "training" in bars:
                remark("The same command goes on after the last whole epoch; --restart starts afresh.")
            raise
        for bar in bars.values():  # training may end before its last epoch
            bar.update((bar.total or 0) - bar.n)
    return manifest


def threshold_of(manifest: "Manifest") -> str:
    """The threshold of a new bundle and what it means, as text."""
    calibration = manifest.threshold.calibration
    review = f", review from {manifest.review_threshold:.6g}" if manifest.review_threshold is not None else ""
    meaning = describe_calibration(calibration.model_dump() if calibration else None)
    return f"{manifest.threshold.value:.6g}{review}: {meaning}"


def _print_result(manifest: "Manifest", version: "ModelVersion | None", as_json: bool, more: Mapping[str, str]) -> None:
    if as_json:
        whole = version.document if version else {"manifest": manifest.model_dump(mode="json")}
        print_json({**whole, **more})
        return
    if version is not None:
        print_outcome(version)
    if manifest.training is not None:
        trained = manifest.training
        click.echo(
            f"Trained on {trained.parts['training']} images on {trained.device}; "
            f"the weights are those of epoch {trained.best_epoch} of {trained.epochs}."
        )
    click.echo(f"Threshold {threshold_of(manifest)}.")
    print_metrics(manifest.metrics.model_dump() if manifest.metrics else None)
    click.echo(f"The report is in {more['report']}.")
