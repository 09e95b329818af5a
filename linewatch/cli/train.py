"""`linewatch train`: from a folder of good parts to a version that may score. It computes where it is called."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linewatch.cli.failures import WrongUse
from linewatch.cli.models import announce, meaning, print_metrics, register
from linewatch.cli.options import DEFAULT_URL, Activate, ApiKey, AsJson, Device, FalseRejectRate, Url, client
from linewatch.cli.terminal import print_json, progress, remark, results

if TYPE_CHECKING:
    from core.vision.bundle import Manifest
    from core.vision.training import Progress, TrainingOptions
    from linewatch.results import ModelVersion


def train(
    data: Annotated[Path, typer.Option(help="Holds train/good/*, and test/<type>/* where detection is measured.")],
    recipe: Annotated[str | None, typer.Option("--recipe", "-r", help="What the pictures show.")] = None,
    out: Annotated[Path | None, typer.Option(help="Only write the bundle to this folder; no server is needed.")] = None,
    architecture: Annotated[str | None, typer.Option(help="Which detector. [conv-autoencoder]")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the pictures, at most. [8]")] = None,
    input_size: Annotated[int | None, typer.Option(min=8, help="Both sides of the network's input, pixels.")] = None,
    false_reject_rate: FalseRejectRate = None,
    device: Device = "auto",
    activate: Activate = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Train on pictures of good parts.

    Calibrates a threshold with parts that were held out, and enters the result as a version of a recipe.
    """
    if out is None and recipe is None:
        raise WrongUse("name the recipe with --recipe, or --out DIR to only write the bundle")
    if out is not None and activate:
        raise WrongUse("--out only writes the bundle, so there is nothing to activate: leave one of them out")
    given = {
        "architecture": architecture,
        "epochs": epochs,
        "input_size": input_size,
        "false_reject_rate": false_reject_rate,
    }
    if out is not None:
        manifest = learn(data, out, options(device, given))
        _report(manifest, None, as_json, {"out": str(out)})
        if not as_json:
            command = f"linewatch models import {out} --recipe {recipe or 'NAME'}"
            results().print(f"The bundle is in {out}. To enter it: {command}", markup=False)
        return
    assert recipe is not None  # noqa: S101 - it was looked at above
    with client(url, api_key) as system, tempfile.TemporaryDirectory(prefix="linewatch-") as folder:
        system.recipes()  # better refused now than after the training
        bundle = Path(folder, "bundle")
        manifest = learn(data, bundle, options(device, given))
        version = register(system, recipe, bundle, activate=activate)
    _report(manifest, version, as_json, {})


def options(device: str, given: Mapping[str, Any]) -> "TrainingOptions":
    """The options of a training; what is None is left to its default.

    Raises:
        WrongUse: they make no sense, or there is no such device.
    """
    from core.vision.detector import resolve_device
    from core.vision.training import TrainingOptions

    try:
        return TrainingOptions(
            device=resolve_device(device), **{name: value for name, value in given.items() if value is not None}
        )
    except ValueError as error:
        raise WrongUse(str(error)) from error


def learn(data: Path, out: Path, options: "TrainingOptions") -> "Manifest":
    """Train with a progress bar, and write the bundle to `out`; see `core.vision.training.train` for what it raises."""
    from core.vision.training import train as train_detector

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

        manifest = train_detector(data, out, options, show)
        for task in bar.tasks:  # training may end before its last epoch
            bar.update(task.id, completed=task.total)
    return manifest


def threshold_of(manifest: "Manifest") -> str:
    """The threshold of a new bundle with its meaning, for people."""
    calibration = manifest.threshold.calibration
    return f"{manifest.threshold.value:.6g}: {meaning(calibration.model_dump() if calibration else None)}"


def _report(manifest: "Manifest", version: "ModelVersion | None", as_json: bool, more: Mapping[str, str]) -> None:
    if as_json:
        print_json(
            version.model_dump(mode="json") if version else {**more, "manifest": manifest.model_dump(mode="json")}
        )
        return
    if version is not None:
        announce(version)
    if manifest.training is not None:
        trained = manifest.training
        results().print(
            f"Trained on {trained.parts['training']} pictures on {trained.device}; "
            f"the weights are those of epoch {trained.best_epoch} of {trained.epochs}."
        )
    results().print(f"Threshold {threshold_of(manifest)}.")
    print_metrics(manifest.metrics.model_dump() if manifest.metrics else None)
