"""`linewatch train`: from a folder of good parts to a version that may score. It computes where it is called."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linewatch.cli.cache import cache_folder
from linewatch.cli.commands.models import describe_calibration, print_metrics, print_outcome, register
from linewatch.cli.failures import WrongUse
from linewatch.cli.options import DEFAULT_URL, Activate, ApiKey, AsJson, Device, FalseRejectRate, Url, client
from linewatch.cli.terminal import print_json, progress, remark, results

if TYPE_CHECKING:
    from core.vision.bundle.manifest import Manifest
    from core.vision.train import Progress, TrainingOptions
    from linewatch.types.results import ModelVersion


@dataclass(frozen=True)
class SideFiles:
    """What a training writes beside its bundle.

    Attributes:
        report: where the page about it goes; None for none.
        checkpoints: the folder where an interrupted training leaves its state; None for none.
        restart: whether that state is to be forgotten.
    """

    report: Path | None = None
    checkpoints: Path | None = None
    restart: bool = False


def train(
    data: Annotated[Path, typer.Option(help="Holds train/good/*, and test/<type>/* where detection is measured.")],
    recipe: Annotated[str | None, typer.Option("--recipe", "-r", help="What the images show.")] = None,
    out: Annotated[Path | None, typer.Option(help="Only write the bundle to this folder; no server is needed.")] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Which detector. [feature-autoencoder where backbone weights are at hand]")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="The pretrained network that a feature detector stands on. [efficientnet-lite0]")
    ] = None,
    backbone_weights: Annotated[
        Path | None, typer.Option(help="A file with that network's weights, a plain state dict. [as installed]")
    ] = None,
    score_method: Annotated[
        str | None, typer.Option(help="How a conv-autoencoder scores: mse or z-map. [z-map]")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the images, at most.")] = None,
    input_size: Annotated[
        int | None, typer.Option(min=8, max=4096, help="The network's input, pixels. [as suits the images]")
    ] = None,
    false_reject_rate: FalseRejectRate = None,
    review_rate: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="The share of good parts that may be rejected or reviewed. [no review]"),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(help="What a part or lot is: a pattern of file names such as 'part(\\d+)_', or FILE.csv:COLUMN."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything random. [0]")] = None,
    device: Device = "auto",
    activate: Activate = False,
    report: Annotated[
        Path | None, typer.Option(help="Where the report is written. [OUT.html, or RECIPE-vN.html]")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Where an interrupted training leaves its state. [the user's cache]")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Do not go on from an interrupted training.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Train on images of good parts.

    Calibrates a threshold with parts that were held out, enters the result as a version of a recipe, and writes a
    report about it. The same command goes on where it was interrupted.
    """
    if out is None and recipe is None:
        raise WrongUse("name the recipe with --recipe, or --out DIR to only write the bundle")
    if out is not None and activate:
        raise WrongUse("--out only writes the bundle, so there is nothing to activate: leave one of them out")
    given = options(
        device,
        {
            "architecture": architecture,
            "backbone": backbone,
            "backbone_weights": backbone_weights,
            "score_method": score_method,
            "epochs": epochs,
            "input_size": input_size,
            "false_reject_rate": false_reject_rate,
            "review_rate": review_rate,
            "group_by": group_by,
            "seed": seed,
        },
    )
    if report is not None and not report.parent.is_dir():
        raise WrongUse(f"there is no folder {report.parent} to write the report to: make it or name another one")
    checkpoints = _checkpoints(checkpoint)
    if out is not None:
        page = report or out.with_name(f"{out.name}.html")
        manifest = train_with_progress(data, out, given, SideFiles(page, checkpoints, restart))
        _print_result(manifest, None, as_json, {"out": str(out), "report": str(page)})
        if not as_json:
            command = f"linewatch models import {out} --recipe {recipe or 'NAME'}"
            results().print(f"The bundle is in {out}. To enter it: {command}", markup=False)
        return
    assert recipe is not None  # noqa: S101 - it was looked at above
    with client(url, api_key) as system, tempfile.TemporaryDirectory(prefix="linewatch-") as folder:
        system.recipes()  # better refused now than after the training
        bundle, draft = Path(folder, "bundle"), Path(folder, "report.html")
        manifest = train_with_progress(data, bundle, given, SideFiles(draft, checkpoints, restart))
        with _kept_if_refused(Path(folder), recipe):
            version = register(system, recipe, bundle, activate=activate)
        page = report or Path(f"{recipe}-v{version.version}.html")
        shutil.copyfile(draft, page)
    _print_result(manifest, version, as_json, {"report": str(page)})


@contextmanager
def _kept_if_refused(folder: Path, recipe: str) -> Iterator[None]:
    """Save the bundle and its report from being lost with a temporary folder where the system does not take them."""
    try:
        yield
    except BaseException:
        kept = Path(tempfile.mkdtemp(prefix=f"{recipe}-", dir=Path.cwd()))
        shutil.copytree(folder, kept, dirs_exist_ok=True)
        remark(f"The bundle was not entered and is kept: linewatch models import {kept / 'bundle'} --recipe {recipe}")
        raise


def _checkpoints(given: Path | None) -> Path | None:
    """The folder for states of interrupted trainings; None where there is no cache that could be written to."""
    folder = given or cache_folder("training")
    if folder is None:
        remark("There is no cache folder to write to: an interrupted training starts afresh (see --checkpoint).")
    return folder


def options(device: str, given: Mapping[str, Any]) -> "TrainingOptions":
    """The options of a training; what is None is left to its default.

    Raises:
        WrongUse: they make no sense, or there is no such device.
    """
    from core.vision.detectors.device import resolve_device
    from core.vision.detectors.registry import default_architecture
    from core.vision.train import TrainingOptions

    wanted = {name: value for name, value in given.items() if value is not None}
    wanted.setdefault("architecture", default_architecture(given.get("backbone_weights")))
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
    with progress() as bar:
        tasks = {}

        def show(now: "Progress") -> None:
            if now.note:
                remark(now.note)
            if now.stage not in tasks:
                tasks[now.stage] = bar.add_task(now.stage, total=now.total)
            loss = f", loss {now.epoch.validation_loss:.5f}" if now.epoch else ""
            unit = " (epochs)" if now.stage == "training" else ""
            bar.update(tasks[now.stage], completed=now.done, total=now.total, description=now.stage + unit + loss)

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
            if beside.checkpoints is not None and "training" in tasks:
                remark("The same command goes on after the last whole epoch; --restart starts afresh.")
            raise
        for task in bar.tasks:  # training may end before its last epoch
            bar.update(task.id, completed=task.total)
    return manifest


def threshold_of(manifest: "Manifest") -> str:
    """The threshold of a new bundle with its meaning, for people."""
    calibration = manifest.threshold.calibration
    review = f", review from {manifest.review_threshold:.6g}" if manifest.review_threshold is not None else ""
    meaning = describe_calibration(calibration.model_dump() if calibration else None)
    return f"{manifest.threshold.value:.6g}{review}: {meaning}"


def _print_result(manifest: "Manifest", version: "ModelVersion | None", as_json: bool, more: Mapping[str, str]) -> None:
    if as_json:
        whole = version.model_dump(mode="json") if version else {"manifest": manifest.model_dump(mode="json")}
        print_json({**whole, **more})
        return
    if version is not None:
        print_outcome(version)
    if manifest.training is not None:
        trained = manifest.training
        results().print(
            f"Trained on {trained.parts['training']} images on {trained.device}; "
            f"the weights are those of epoch {trained.best_epoch} of {trained.epochs}."
        )
    results().print(f"Threshold {threshold_of(manifest)}.")
    print_metrics(manifest.metrics.model_dump() if manifest.metrics else None)
    results().print(f"The report is in {more['report']}.", markup=False)
