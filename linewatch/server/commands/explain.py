"""`linewatch explain`: show why an image gets its score, as one PNG."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from linewatch.cli.commands.models import active_version
from linewatch.cli.failures import CommandFailed, WrongUse
from linewatch.cli.options import FOLDER_OR_FILE, client, device_option, system_options, version_option
from linewatch.cli.terminal import print_json

if TYPE_CHECKING:
    from core.vision.evaluation.diagnosis import Diagnosis

_MAX_PIXELS = 64_000_000


@dataclass(frozen=True)
class _Model:
    """A bundle's files with its display name and the thresholds to apply."""

    name: str
    version: int | None
    files: dict[str, bytes]
    threshold: float
    review_threshold: float | None


@click.command("explain")
@click.argument("file", type=FOLDER_OR_FILE, help="An image.")
@click.option("--recipe", "-r", help="The recipe of the version.")
@version_option
@click.option("--bundle", type=FOLDER_OR_FILE, help="A bundle's folder, instead of a version.")
@click.option("--out", type=FOLDER_OR_FILE, help="The PNG to write. [FILE's name, with .explained.png]")
@device_option
@system_options
def explain(
    file: Path,
    recipe: str | None,
    version: int | None,
    bundle: Path | None,
    out: Path | None,
    device: str,
    url: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Show why an image gets its score.

    Scores the image on this machine, as a worker does, with a version of the running system or with a bundle's folder.
    The PNG shows the detector's input, its reconstruction, the difference, and the heatmap with its scale.
    """
    if bundle is None and recipe is None:
        raise WrongUse("name the model with --recipe or --bundle")
    if bundle is not None and version is not None:
        raise WrongUse("--version and --bundle name two models: use only one of them")
    target = Path(f"{file.stem}.explained.png") if out is None else out
    data = file.read_bytes()
    if target.exists() and target.samefile(file):
        raise WrongUse(f"--out would overwrite {file}: name another file")
    model = _from_folder(bundle) if bundle is not None else _from_system(str(recipe), version, url, api_key)
    diagnosis = _diagnose(model, data, device)
    _save(diagnosis, f"{file.name} · {model.name}", target)
    if as_json:
        model_fields = {"recipe": recipe, "version": model.version}
        print_json({"file": str(file), **model_fields, **_fields(diagnosis), "png": str(target)})
        return
    from core.vision.evaluation.diagnosis import describe

    click.echo(f"{file}: {describe(diagnosis)}")
    click.echo(f"Explanation: {target}")


def _from_folder(folder: Path) -> _Model:
    from core.vision.bundle.folder import read_folder
    from core.vision.bundle.manifest import verify_bundle

    files = read_folder(folder)
    manifest = verify_bundle(files)
    return _Model(folder.name, None, files, manifest.threshold.value, manifest.review_threshold)


def _from_system(recipe: str, version: int | None, url: str, api_key: str | None) -> _Model:
    from core.vision.bundle.tar import unpack

    with client(url, api_key) as system, tempfile.TemporaryDirectory(prefix="linewatch-") as folder:
        number = version or active_version(system, recipe)
        threshold = system.model_version(recipe, number).threshold
        tar = system.download_bundle(recipe, number, Path(folder, "bundle.tar"))
        with tar.open("rb") as bundle:
            files = unpack(bundle, max_bytes=tar.stat().st_size)
    return _Model(f"{recipe}, version {number}", number, files, threshold.threshold, threshold.review_threshold)


def _diagnose(model: _Model, data: bytes, device: str) -> "Diagnosis":
    from core.vision.bundle.loading import load_detector
    from core.vision.bundle.manifest import verify_bundle
    from core.vision.detectors.device import resolve_device
    from core.vision.evaluation.diagnosis import diagnose

    try:
        resolved = resolve_device(device)
    except ValueError as error:
        raise CommandFailed(str(error)) from error
    return diagnose(
        load_detector(model.files, device=resolved, max_pixels=_MAX_PIXELS),
        data,
        threshold=model.threshold,
        review_threshold=model.review_threshold,
        inputs=verify_bundle(model.files).inputs,
    )


def _fields(diagnosis: "Diagnosis") -> dict[str, object]:
    return {
        "anomaly_score": diagnosis.score,
        "threshold": diagnosis.threshold,
        "review_threshold": diagnosis.review_threshold,
        "is_anomaly": diagnosis.is_anomaly,
        "verdict": diagnosis.verdict,
        "reasons": diagnosis.reasons,
    }


def _save(diagnosis: "Diagnosis", title: str, target: Path) -> None:
    from core.vision.evaluation.diagnosis import draw_sheet

    target.parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(diagnosis, title).save(target, "PNG")
