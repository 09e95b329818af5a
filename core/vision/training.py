"""From a folder of good parts to a bundle: read, split, fit, calibrate, evaluate, write."""

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from core.pictures import read_header
from core.vision.bundle import (
    CURVE,
    MANIFEST,
    Calibration,
    Golden,
    Manifest,
    Metrics,
    Threshold,
    Training,
    checksums,
    json_file,
    write_folder,
)
from core.vision.calibration import SampleTooSmall, needed
from core.vision.dataset import (
    Folder,
    InvalidFolder,
    Loaded,
    PictureSet,
    Split,
    content_digests,
    load_pictures,
    read_layout,
    set_digest,
    split,
)
from core.vision.detector import GOLDEN_TOLERANCE, Detector, Epoch, FitOptions, architectures, resolve_device
from core.vision.metrics import auroc, auroc_interval, control_scores
from core.vision.preprocessing import Preprocessing

GOLDEN_PICTURES: Final = 3
_UNREADABLE_SHARE = 0.1


@dataclass(frozen=True)
class TrainingOptions(FitOptions):
    """What `train` is asked to do.

    Attributes:
        architecture: a name of `core.vision.detector.architectures`.
        input_size: both sides of the prepared picture, pixels.
        scaled_decode: see `Preprocessing`.
        false_reject_rate: the share of good parts that the threshold may reject.
        validation_share, calibration_share: of the good pictures; calibration takes at least as many as its rate needs.
        device: `auto`, `cpu` or `cuda`.
        max_pixels: the largest picture that is read.
    """

    architecture: str = "conv-autoencoder"
    input_size: int = 128
    scaled_decode: bool = True
    false_reject_rate: float = 0.05
    validation_share: float = 0.1
    calibration_share: float = 0.25
    device: str = "auto"
    max_pixels: int = 64_000_000

    def __post_init__(self) -> None:
        if self.architecture not in architectures():
            raise ValueError(f"the architecture must be one of {', '.join(architectures())}, not {self.architecture!r}")
        if self.epochs < 1 or self.patience < 1 or self.batch_size < 1:
            raise ValueError("epochs, patience and the batch size must be at least 1")
        if not 0 < self.false_reject_rate < 1:
            raise ValueError(f"the false-reject rate must lie between 0 and 1, not {self.false_reject_rate:g}")
        if not 0 < self.validation_share + self.calibration_share < 1:
            raise ValueError("the shares of validation and calibration must leave something to train on")


@dataclass(frozen=True)
class Progress:
    """Where `train` is.

    Attributes:
        stage: what is going on.
        done, total: of the stage, in pictures or epochs.
        epoch: the one that has just ended, while training.
        note: a line for people, such as how many pictures could not be read.
    """

    stage: Literal["reading", "training", "calibrating", "evaluating", "writing"]
    done: int
    total: int
    epoch: Epoch | None = None
    note: str | None = None


def train(folder: Path, out: Path, options: TrainingOptions, progress: Callable[[Progress], None]) -> Manifest:
    """Train on a folder in MVTec layout and write a bundle.

    Args:
        folder: holds `train/good/*` and, where detection is to be measured, `test/<type>/*`.
        out: the bundle's folder; must not exist.
        progress: is called often, in this thread.

    Returns:
        The manifest of the bundle that was written.

    Raises:
        InvalidFolder: the folder is not what it should be, too small, or more than a tenth of it is unreadable.
        SampleTooSmall: too few good parts for the false-reject rate.
        FileExistsError: `out` exists.
        ValueError: there is no such device.
        OSError: a file cannot be read or written.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already, and a bundle never changes: name another folder")
    device = resolve_device(options.device)
    preprocessing = Preprocessing(
        width=options.input_size, height=options.input_size, scaled_decode=options.scaled_decode
    )
    layout = read_layout(folder)
    good = _read(layout.good, preprocessing, options, progress, stage="reading")
    digests = content_digests(good.paths)
    parts = _split(digests, options)
    detector, curve = _fit(good.pictures, parts, preprocessing, options, device, progress)
    progress(Progress("calibrating", 0, len(parts.calibration)))
    calibration = detector.calibrate(list(good.pictures[parts.calibration]), options.false_reject_rate)
    metrics = _evaluate(detector, layout, good.pictures[parts.training], calibration, options, progress)
    progress(Progress("writing", 0, 1))
    training = _record(folder, good, digests, parts, curve, options, device)
    held_out = [good.paths[index] for index in parts.validation + parts.calibration]
    golden = _golden_pictures(held_out, options)
    threshold = Threshold(value=calibration.threshold, calibration=calibration)
    curve_file = {CURVE: json_file([asdict(epoch) for epoch in curve])}
    manifest = write_bundle(
        detector, out, golden=golden, others=curve_file, threshold=threshold, training=training, metrics=metrics
    )
    progress(Progress("writing", 1, 1))
    return manifest


def _record(
    folder: Path,
    good: Loaded,
    digests: list[str],
    parts: Split,
    curve: list[Epoch],
    options: TrainingOptions,
    device: str,
) -> Training:
    return Training(
        training_set_digest=set_digest(folder, good.paths, digests),
        parts={
            "training": len(parts.training),
            "validation": len(parts.validation),
            "calibration": len(parts.calibration),
        },
        unreadable=len(good.unreadable),
        options={name: value for name, value in asdict(options).items() if name != "device"},
        epochs=len(curve),
        best_epoch=min(curve, key=lambda epoch: epoch.validation_loss).number,
        device=device,
    )


def write_bundle(
    detector: Detector,
    out: Path,
    *,
    golden: dict[str, bytes],
    others: dict[str, bytes],
    threshold: Threshold,
    training: Training | None,
    metrics: Metrics | None,
) -> Manifest:
    """Write a detector as a bundle.

    The golden scores come from the saved weights, loaded anew on the CPU, so that they also prove the way through the
    files, and that every machine compares itself with the same reference.

    Args:
        golden: encoded pictures, by their names in the bundle.
        others: more files, by name.

    Raises:
        FileExistsError: `out` exists.
    """
    files = {**detector.save(), **golden, **others}
    reference = type(detector).load(
        files, detector.architecture, detector.preprocessing, device="cpu", max_pixels=detector.max_pixels
    )
    scores = reference.score([reference.prepare(content) for content in golden.values()]).scores.tolist()
    manifest = Manifest(
        architecture=detector.architecture,
        preprocessing=detector.preprocessing,
        score_method=detector.score_method,
        threshold=threshold,
        training=training,
        metrics=metrics,
        libraries=_libraries(),
        golden=[Golden(file=name, score=score) for name, score in zip(golden, scores, strict=True)],
        golden_tolerance=dict(GOLDEN_TOLERANCE),
        files=checksums(files),
    )
    write_folder(out, {**files, MANIFEST: manifest.encoded()})
    return manifest


def _read(
    paths: list[Path],
    preprocessing: Preprocessing,
    options: TrainingOptions,
    progress: Callable[[Progress], None],
    *,
    stage: Literal["reading", "evaluating"],
) -> Loaded:
    """Read and prepare pictures; a few unreadable ones are left out and noted, many are refused."""

    def on_picture(done: int) -> None:
        progress(Progress(stage, done, len(paths)))

    loaded = load_pictures(paths, preprocessing, max_pixels=options.max_pixels, progress=on_picture)
    if loaded.unreadable:
        path, reason = loaded.unreadable[0]
        note = f"{len(loaded.unreadable)} of {len(paths)} pictures cannot be read, the first is {path}: {reason}"
        if len(loaded.unreadable) > _UNREADABLE_SHARE * len(paths):
            raise InvalidFolder(f"{note}; repair or remove them")
        progress(Progress(stage, len(paths), len(paths), note=f"{note}; they are left out"))
    return loaded


def _split(digests: list[str], options: TrainingOptions) -> Split:
    least = needed(options.false_reject_rate)
    if len(digests) < least + 2:
        raise SampleTooSmall(
            f"{len(digests)} good parts are too few for a false-reject rate of {options.false_reject_rate:g}: "
            f"{least} are held out to calibrate it, so at least {least + 2} are needed; some hundred are better"
        )
    return split(
        digests,
        seed=options.seed,
        validation=options.validation_share,
        calibration=options.calibration_share,
        least_calibration=least,
    )


def _fit(
    pictures: NDArray[np.uint8],
    parts: Split,
    preprocessing: Preprocessing,
    options: TrainingOptions,
    device: str,
    progress: Callable[[Progress], None],
) -> tuple[Detector, list[Epoch]]:
    curve: list[Epoch] = []

    def on_epoch(epoch: Epoch) -> None:
        curve.append(epoch)
        progress(Progress("training", epoch.number, options.epochs, epoch=epoch))

    progress(Progress("training", 0, options.epochs))
    detector = architectures()[options.architecture].fit(
        PictureSet(pictures[parts.training]),
        PictureSet(pictures[parts.validation]),
        preprocessing,
        options,
        device=device,
        max_pixels=options.max_pixels,
        on_epoch=on_epoch,
    )
    return detector, curve


def _evaluate(
    detector: Detector,
    layout: Folder,
    training: NDArray[np.uint8],
    calibration: Calibration,
    options: TrainingOptions,
    progress: Callable[[Progress], None],
) -> Metrics | None:
    """Detection on `test/`; None where it lacks good or defective pictures."""
    if not layout.test_good or not layout.test_defective:
        return None
    good, defective = (
        list(_read(paths, detector.preprocessing, options, progress, stage="evaluating").pictures)
        for paths in (layout.test_good, layout.test_defective)
    )
    good_scores, defective_scores = detector.score(good).scores, detector.score(defective).scores
    good_controls, defective_controls = (control_scores(pictures, list(training)) for pictures in (good, defective))
    return Metrics(
        good=len(good),
        defective=len(defective),
        auroc=auroc(good_scores, defective_scores),
        auroc_interval=auroc_interval(good_scores, defective_scores),
        controls={name: auroc(good_controls[name], defective_controls[name]) for name in good_controls},
        false_reject_rate=float((good_scores >= calibration.threshold).mean()),
        recall=float((defective_scores >= calibration.threshold).mean()),
    )


def _golden_pictures(held_out: list[Path], options: TrainingOptions) -> dict[str, bytes]:
    """The smallest of the held-out files, by their names in the bundle."""
    smallest = sorted(held_out, key=lambda path: (path.stat().st_size, path.as_posix()))[:GOLDEN_PICTURES]
    golden = {}
    for number, path in enumerate(smallest):
        with path.open("rb") as file:
            kind = read_header(file, max_pixels=options.max_pixels).media_type.removeprefix("image/")
        golden[f"golden/{number}.{kind}"] = path.read_bytes()
    return golden


def _libraries() -> dict[str, str]:
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("linewatch", "numpy", "pillow", "torch")
    }
