"""`linewatch calibrate`: a new threshold from pictures of good parts, without training."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from linewatch.cli.failures import CommandFailed, WrongUse
from linewatch.cli.models import active_version, threshold_text
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
from linewatch.cli.pictures import pictures_in
from linewatch.cli.terminal import print_json, progress, remark, results

if TYPE_CHECKING:
    from core.vision.bundle import Calibration, Manifest

_MINIBATCH = 16
_DEFAULT_RATE = 0.05


def calibrate(
    recipe: Recipe,
    data: Data,
    false_reject_rate: FalseRejectRate = None,
    version: Version = None,
    station: Annotated[str | None, typer.Option("--station", help="The one station that the threshold is for.")] = None,
    device: Device = "auto",
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Set a threshold from pictures of good parts.

    It rejects the wished share of them. The pictures, DATA/train/good/* or DATA/*, must be of good parts that the
    version was not trained on.
    """
    rate = _DEFAULT_RATE if false_reject_rate is None else false_reject_rate
    if not 0 < rate < 1:
        raise WrongUse(f"--false-reject-rate must lie between 0 and 1, not {rate:g}")
    root, pictures = _good_parts(data)
    with client(url, api_key) as system:
        number = version or active_version(system, recipe)
        with tempfile.TemporaryDirectory(prefix="linewatch-") as folder:
            tar = system.download_bundle(recipe, number, Path(folder, "bundle.tar"))
            calibration = _calibrated(tar, root, pictures, rate, device)
        made = system.set_threshold(
            recipe, number, calibration.threshold, station_id=station, calibration=calibration.model_dump(mode="json")
        )
    if as_json:
        print_json({"recipe": recipe, "version": number, **made.model_dump(mode="json")})
        return
    results().print(f"Version {number} of recipe {recipe} has a new threshold.", markup=False)
    results().print(f"Threshold {threshold_text(made)}.", markup=False)


def _good_parts(data: Path) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, as in training, and the pictures of good parts in it."""
    from core.vision.dataset import InvalidFolder, read_layout

    if (data / "train" / "good").is_dir():
        return data, read_layout(data).good
    if not data.is_dir():
        raise InvalidFolder(f"{data} is not a folder: name one that holds pictures of good parts")
    found = pictures_in(data)
    if not found:
        raise InvalidFolder(f"{data} holds no pictures: put pictures of good parts there, or into train/good/")
    return data, found


def _calibrated(tar: Path, root: Path, pictures: list[Path], rate: float, device: str) -> "Calibration":
    """Score good parts with the bundle and choose the threshold; see `core.vision.calibration.calibrate`."""
    import numpy as np

    from core.vision.bundle import manifest_of, unpack
    from core.vision.calibration import calibrate as choose
    from core.vision.dataset import load_pictures
    from core.vision.detector import load
    from core.vision.training import TrainingOptions

    with tar.open("rb") as file:
        files = unpack(file, max_bytes=tar.stat().st_size)
    _warn_of_known(manifest_of(files), root, pictures)
    try:
        detector = load(files, device=device, max_pixels=TrainingOptions.max_pixels)
    except ValueError as error:
        raise CommandFailed(str(error)) from error
    with progress() as bar:
        reading = bar.add_task("reading", total=len(pictures))
        loaded = load_pictures(
            pictures,
            detector.preprocessing,
            max_pixels=detector.max_pixels,
            progress=lambda done: bar.update(reading, completed=done),
        )
        for path, reason in loaded.unreadable:
            remark(f"{path} cannot be read and is left out: {reason}")
        scores: list[float] = []
        for start in bar.track(range(0, len(loaded.paths), _MINIBATCH), description="scoring"):
            scores.extend(detector.score(list(loaded.pictures[start : start + _MINIBATCH])).scores.tolist())
    if not np.isfinite(scores).all():
        raise CommandFailed("a score of a good part is not finite: this version cannot be calibrated, train another")
    return choose(scores, rate)


def _warn_of_known(manifest: "Manifest", root: Path, pictures: list[Path]) -> None:
    from core.vision.dataset import content_digests, set_digest

    if manifest.training is None:
        return
    if set_digest(root, pictures, content_digests(pictures)) == manifest.training.training_set_digest:
        remark(
            "These are the pictures that this version was trained on. It knows them, so the threshold will be too low "
            "and reject more than it promises: calibrate with good parts that it has not seen."
        )
