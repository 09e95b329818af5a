"""From a folder of good parts to a bundle: read, split, fit, calibrate, evaluate, write, report."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.vision.artefact import golden_pictures, libraries, write_bundle
from core.vision.autoencoder import AutoencoderDetector
from core.vision.bundle import (
    CURVE,
    Manifest,
    Threshold,
    Training,
    digest,
    json_file,
)
from core.vision.calibration import SampleTooSmall, calibrate, needed
from core.vision.checkpoint import FolderCheckpoint, fingerprint
from core.vision.dataset import (
    MEMORY_BYTES,
    Folder,
    InvalidFolder,
    Reading,
    Split,
    read,
    read_layout,
    set_digest,
    split,
    typical_size,
)
from core.vision.detector import (
    Checkpoint,
    Detector,
    Epoch,
    FitOptions,
    architectures,
    default_architecture,
    resolve_device,
)
from core.vision.evaluation import Evaluation, evaluate, scores_of
from core.vision.exhibits import gallery
from core.vision.inputs import InputRanges, ranges
from core.vision.preprocessing import Preprocessing
from core.vision.report import Account, render

_UNREADABLE_SHARE = 0.1
_TEST_MEMORY_BYTES = MEMORY_BYTES // 4


@dataclass(frozen=True)
class TrainingOptions(FitOptions):
    """What `train` is asked to do.

    Attributes:
        architecture: a name of `core.vision.detector.architectures`; by default see `default_architecture` there.
        input_size: sides of the prepared picture, pixels; None for what the detector chooses for these pictures.
        scaled_decode: see `Preprocessing`.
        false_reject_rate: the share of good parts that the threshold may reject.
        review_rate: the share that may be rejected or reviewed; None for no review.
        group_by: which pictures are of one part or lot, see `core.vision.grouping`; None for what looks alike.
        validation_share, calibration_share: of the good pictures; calibration takes at least as many as its rate needs.
        device: `auto`, `cpu` or `cuda`.
        max_pixels: the largest picture that is read.
    """

    architecture: str = field(default_factory=default_architecture)
    input_size: int | None = None
    scaled_decode: bool = True
    false_reject_rate: float = 0.05
    review_rate: float | None = None
    group_by: str | None = None
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
        if self.review_rate is not None and not self.false_reject_rate < self.review_rate < 1:
            raise ValueError(
                f"the review rate must lie between the false-reject rate, {self.false_reject_rate:g}, and 1, "
                f"not {self.review_rate:g}: it is the share of good parts that may be rejected or reviewed"
            )
        if not 0 < self.validation_share + self.calibration_share < 1:
            raise ValueError("the shares of validation and calibration must leave something to train on")
        if self.backbone_weights is not None and self.architecture == AutoencoderDetector.name:
            raise ValueError(f"{self.architecture} has no backbone: the backbone weights must be left out")

    def recorded(self) -> dict[str, bool | int | float | str]:
        """What a manifest keeps: all but the device and what is None, and of a file only its name."""
        given = {name: value for name, value in asdict(self).items() if name != "device" and value is not None}
        return {name: value.name if isinstance(value, Path) else value for name, value in given.items()}


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


Tell = Callable[[Progress], None]


@dataclass(frozen=True)
class _Material:
    """What is trained from: the folder, what was read of it, and who sees which picture."""

    root: Path
    layout: Folder
    good: Reading
    parts: Split
    preprocessing: Preprocessing


@dataclass(frozen=True)
class _Lesson:
    """What came out of training: the detector, its course, and its scores."""

    detector: Detector
    curve: list[Epoch]
    held_out: NDArray[np.float64]
    threshold: Threshold
    evaluation: Evaluation | None
    inputs: InputRanges


def train(
    folder: Path,
    out: Path,
    options: TrainingOptions,
    progress: Tell,
    *,
    report: Path | None = None,
    checkpoints: Path | None = None,
    restart: bool = False,
) -> Manifest:
    """Train on a folder in MVTec layout and write a bundle.

    Args:
        folder: holds `train/good/*` and, where detection is to be measured, `test/<type>/*`.
        out: the bundle's folder; must not exist.
        progress: is called often, in this thread.
        report: where the page about it is written, in place of an older one; see `core.vision.report`.
        checkpoints: a folder where an interrupted training leaves its state, and the same one finds it again.
        restart: whether that state is to be forgotten.

    Returns:
        The manifest of the bundle that was written.

    Raises:
        InvalidFolder: the folder is not what it should be, too small, or more than a tenth of it is unreadable.
        SampleTooSmall: too few good parts for the false-reject rate.
        FileExistsError: `out` exists.
        ValueError: there is no such device, or the detector's scores are not finite.
        OSError: a file cannot be read or written.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already, and a bundle never changes: name another folder")
    device = resolve_device(options.device)
    notes: list[str] = []

    def tell(now: Progress) -> None:
        if now.note is not None:
            notes.append(now.note)
        progress(now)

    material = _material(folder, options, tell)
    checkpoint = _checkpoint(checkpoints, material, options, device, tell) if checkpoints is not None else None
    if checkpoint is not None and restart:
        checkpoint.remove()
    lesson = _lesson(material, options, device, tell, checkpoint)
    tell(Progress("writing", 0, 1))
    manifest = _written(out, material, lesson, options, device)
    if report is not None:
        report.write_text(render(_account(material, lesson, manifest, notes)), encoding="utf-8")
    if checkpoint is not None:
        checkpoint.remove()
    tell(Progress("writing", 1, 1))
    return manifest


def _material(folder: Path, options: TrainingOptions, tell: Tell) -> _Material:
    """Read all good pictures and decide who sees which."""
    layout = read_layout(folder)
    count = len(layout.good)
    for note in layout.notes:
        tell(Progress("reading", 0, count, note=note))
    typical = typical_size(layout.good, max_pixels=options.max_pixels)
    width, height = architectures()[options.architecture].input_size(typical, options.input_size)
    preprocessing = Preprocessing(width=width, height=height, scaled_decode=options.scaled_decode)
    good = _read(layout.good, preprocessing, options, tell, stage="reading", memory_bytes=MEMORY_BYTES)
    least = needed(options.false_reject_rate)
    if len(good.paths) < least + 2:
        raise SampleTooSmall(
            f"{len(good.paths)} good parts are too few for a false-reject rate of {options.false_reject_rate:g}: "
            f"{least} are held out to calibrate it, so at least {least + 2} are needed; some hundred are better"
        )
    if np.ptp(good.thumbnails, axis=0).max() == 0 and np.ptp(good.deviations) == 0:
        raise InvalidFolder(f"all {len(good.paths)} pictures of good parts are the same: add pictures of other parts")
    for note in _size_notes(good.sizes, preprocessing):
        tell(Progress("reading", count, count, note=note))
    parts = split(
        good.digests,
        seed=options.seed,
        validation=options.validation_share,
        calibration=options.calibration_share,
        least_calibration=least,
    )
    return _Material(folder, layout, good, parts, preprocessing)


def _size_notes(sizes: list[tuple[int, int]], preprocessing: Preprocessing) -> list[str]:
    different = sorted(set(sizes))
    if len(different) == 1:
        return []
    (width, height), (other_width, other_height) = different[0], different[-1]
    note = (
        f"the pictures have {len(different)} different sizes, from {width} × {height} to {other_width} × "
        f"{other_height}: each is resized to {preprocessing.width} × {preprocessing.height}, whatever its shape"
    )
    return [note]


def _read(
    paths: list[Path],
    preprocessing: Preprocessing,
    options: TrainingOptions,
    tell: Tell,
    *,
    stage: Literal["reading", "evaluating"],
    memory_bytes: int,
) -> Reading:
    """Read pictures; a few unreadable ones are left out and noted, many are refused."""

    def on_picture(done: int) -> None:
        tell(Progress(stage, done, len(paths)))

    found = read(paths, preprocessing, max_pixels=options.max_pixels, progress=on_picture, memory_bytes=memory_bytes)
    if found.unreadable:
        path, reason = found.unreadable[0]
        note = f"{len(found.unreadable)} of {len(paths)} pictures cannot be read, the first is {path}: {reason}"
        if len(found.unreadable) > _UNREADABLE_SHARE * len(paths):
            raise InvalidFolder(f"{note}; repair or remove them")
        tell(Progress(stage, len(paths), len(paths), note=f"{note}; they are left out"))
    return found


def _checkpoint(
    folder: Path, material: _Material, options: TrainingOptions, device: str, tell: Tell
) -> FolderCheckpoint:
    """Where this very training left off: of these pictures and options, on this kind of machine."""
    weights = options.backbone_weights
    key = fingerprint(
        {
            "pictures": set_digest(material.root, material.good.paths, material.good.digests),
            "parts": asdict(material.parts),
            "preprocessing": material.preprocessing.digest,
            "options": options.recorded(),
            "backbone": sha256(weights.read_bytes()).hexdigest() if weights is not None else None,
            "device": device,
            "libraries": libraries(),
        }
    )
    return FolderCheckpoint(folder, key, lambda note: tell(Progress("training", 0, options.epochs, note=note)))


def _lesson(
    material: _Material, options: TrainingOptions, device: str, tell: Tell, checkpoint: Checkpoint | None
) -> _Lesson:
    """Fit, calibrate and evaluate."""
    good, parts = material.good, material.parts
    detector, curve = _fit(material, options, device, tell, checkpoint)
    count = len(parts.calibration)
    held_out = scores_of(
        detector, good.pictures.subset(parts.calibration), lambda done: tell(Progress("calibrating", done, count))
    )
    calibration = calibrate(held_out, options.false_reject_rate)
    return _Lesson(
        detector=detector,
        curve=curve,
        held_out=held_out,
        threshold=Threshold(value=calibration.threshold, calibration=calibration),
        evaluation=_evaluation(material, detector, calibration.threshold, options, tell),
        inputs=ranges([good.facts[index] for index in parts.training]),
    )


def _fit(
    material: _Material, options: TrainingOptions, device: str, tell: Tell, checkpoint: Checkpoint | None
) -> tuple[Detector, list[Epoch]]:
    curve: list[Epoch] = []

    def on_epoch(epoch: Epoch) -> None:
        curve.append(epoch)
        tell(Progress("training", epoch.number, options.epochs, epoch=epoch))

    tell(Progress("training", 0, options.epochs))
    detector = architectures()[options.architecture].fit(
        material.good.pictures.subset(material.parts.training),
        material.good.pictures.subset(material.parts.validation),
        material.preprocessing,
        options,
        device=device,
        max_pixels=options.max_pixels,
        on_epoch=on_epoch,
        checkpoint=checkpoint,
    )
    return detector, curve


def _evaluation(
    material: _Material, detector: Detector, threshold: float, options: TrainingOptions, tell: Tell
) -> Evaluation | None:
    """Detection on `test/`; None where it lacks good or defective pictures."""
    layout = material.layout
    if not layout.test_good or not layout.test_defective:
        return None
    good, defective = (
        _read(paths, material.preprocessing, options, tell, stage="evaluating", memory_bytes=_TEST_MEMORY_BYTES)
        for paths in (layout.test_good, layout.test_defective)
    )
    known = set(material.good.digests)
    total = len(good.paths) + len(defective.paths)
    if twice := sum(one in known for one in (*good.digests, *defective.digests)):
        note = f"{twice} of the {total} test pictures are in train/good too: the figures on test/ flatter"
        tell(Progress("evaluating", 0, total, note=note))
    return evaluate(
        detector,
        material.root,
        good,
        defective,
        material.good.thumbnails[material.parts.training],
        threshold,
        lambda done: tell(Progress("evaluating", done, total)),
    )


def _written(out: Path, material: _Material, lesson: _Lesson, options: TrainingOptions, device: str) -> Manifest:
    """Write the bundle."""
    good, parts = material.good, material.parts
    return write_bundle(
        lesson.detector,
        out,
        golden=golden_pictures(
            [good.paths[index] for index in parts.validation + parts.calibration], max_pixels=options.max_pixels
        ),
        others={CURVE: json_file([asdict(epoch) for epoch in lesson.curve])},
        threshold=lesson.threshold,
        training=Training(
            training_set_digest=set_digest(material.root, good.paths, good.digests),
            parts={
                "training": len(parts.training),
                "validation": len(parts.validation),
                "calibration": len(parts.calibration),
            },
            unreadable=len(good.unreadable),
            options=options.recorded(),
            epochs=len(lesson.curve),
            best_epoch=min(lesson.curve, key=lambda epoch: epoch.validation_loss).number,
            device=device,
        ),
        metrics=lesson.evaluation.metrics if lesson.evaluation else None,
        inputs=lesson.inputs,
    )


def _account(material: _Material, lesson: _Lesson, manifest: Manifest, notes: list[str]) -> Account:
    """What the report is made of."""
    root, good, tested = material.root, material.good, lesson.evaluation
    good_paths = [good.paths[index] for index in material.parts.calibration]
    good_scores = lesson.held_out
    if tested is not None:
        good_paths, good_scores = good_paths + tested.good, np.concatenate([good_scores, tested.good_scores])
    return Account(
        folder=root.resolve().name,
        manifest=manifest,
        sha256=digest(manifest.encoded()),
        curve=lesson.curve,
        held_out=lesson.held_out,
        tested=tested,
        gallery=gallery(lesson.detector, root, good_paths, good_scores, tested, manifest.threshold.value),
        unreadable=[(path.relative_to(root).as_posix(), reason) for path, reason in good.unreadable],
        notes=notes,
    )
