"""From a folder of good parts to a bundle: read, split, fit, calibrate, evaluate, write, report."""

from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.vision.bundle.golden import golden_images
from core.vision.bundle.manifest import TRAINING_CURVE, Manifest, Threshold, Training, digest, encode_json
from core.vision.bundle.writing import library_versions, write_bundle
from core.vision.calibration.calibration import calibrate
from core.vision.detectors.detector import Detector
from core.vision.detectors.device import resolve_device
from core.vision.detectors.registry import detector_classes
from core.vision.evaluation.evaluation import Evaluation, evaluate, score_dataset
from core.vision.evaluation.examples import choose_examples
from core.vision.evaluation.training_report import ReportContent, render
from core.vision.input.input_checks import InputRanges, learn_input_ranges
from core.vision.progress import Progress, Tell
from core.vision.training.checkpoint import CheckpointFile, fingerprint
from core.vision.training.dataset import (
    MAX_CACHE_BYTES,
    dataset_digest,
)
from core.vision.training.fit_interface import Checkpoint, Epoch
from core.vision.training_data import TrainingData, read_images, read_training_data
from core.vision.training_options import TrainingOptions

__all__ = ["Progress", "TrainingOptions", "train"]

_MAX_TEST_CACHE_BYTES = MAX_CACHE_BYTES // 4


@dataclass(frozen=True)
class _TrainedDetector:
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
        report: where the report is written (`core.vision.evaluation.training_report`); replaces an older one.
        checkpoints: a folder where an interrupted training leaves its state, and the same one finds it again.
        restart: whether that state is to be forgotten.

    Returns:
        The manifest of the bundle that was written.

    Raises:
        InvalidDataset: the folder is not what it should be, too small, or more than a tenth of it is unreadable.
        SampleTooSmall: too few good parts for the false-reject rate.
        FileExistsError: `out` exists.
        InvalidOptions: the options make no sense for these images.
        InvalidGroups: an image's part or lot cannot be determined; see `core.vision.training.grouping`.
        ScoreNotFinite: the detector's scores are no numbers.
        ValueError: there is no such device; all of the above but FileExistsError are one too.
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

    material = read_training_data(folder, options, tell)
    checkpoint = _checkpoint(checkpoints, material, options, device, tell) if checkpoints is not None else None
    if checkpoint is not None and restart:
        checkpoint.remove()
    lesson = _train_detector(material, options, device, tell, checkpoint)
    tell(Progress("writing", 0, 1))
    manifest = _write_bundle(out, material, lesson, options, device)
    if report is not None:
        report.write_text(render(_report_content(material, lesson, manifest, notes)), encoding="utf-8")
    if checkpoint is not None:
        checkpoint.remove()
    tell(Progress("writing", 1, 1))
    return manifest


def _checkpoint(
    folder: Path, material: TrainingData, options: TrainingOptions, device: str, tell: Tell
) -> CheckpointFile:
    """Where this very training left off: of these images and options, on this kind of machine."""
    weights = options.backbone_weights
    key = fingerprint(
        {
            "images": dataset_digest(material.root, material.good.paths, material.good.digests),
            "parts": asdict(material.parts),
            "preprocessing": material.preprocessing.digest,
            "options": options.recorded(),
            "backbone": sha256(weights.read_bytes()).hexdigest() if weights is not None else None,
            "device": device,
            "libraries": library_versions(),
        }
    )
    return CheckpointFile(folder, key, lambda note: tell(Progress("training", 0, options.epochs, note=note)))


def _train_detector(
    material: TrainingData, options: TrainingOptions, device: str, tell: Tell, checkpoint: Checkpoint | None
) -> _TrainedDetector:
    """Fit, calibrate and evaluate."""
    good, parts = material.good, material.parts
    detector, curve = _fit(material, options, device, tell, checkpoint)
    count = len(parts.calibration)
    held_out = score_dataset(
        detector, good.images.subset(parts.calibration), lambda done: tell(Progress("calibrating", done, count))
    )
    calibration = calibrate(
        held_out,
        options.false_reject_rate,
        review_rate=options.review_rate,
        groups=[material.grouping.groups[index] for index in parts.calibration],
    )
    return _TrainedDetector(
        detector=detector,
        curve=curve,
        held_out=held_out,
        threshold=Threshold(value=calibration.threshold, calibration=calibration),
        evaluation=_evaluation(material, detector, calibration.threshold, options, tell),
        inputs=learn_input_ranges([good.facts[index] for index in parts.training]),
    )


def _fit(
    material: TrainingData, options: TrainingOptions, device: str, tell: Tell, checkpoint: Checkpoint | None
) -> tuple[Detector, list[Epoch]]:
    curve: list[Epoch] = []

    def on_epoch(epoch: Epoch) -> None:
        curve.append(epoch)
        tell(Progress("training", epoch.number, options.epochs, epoch=epoch))

    tell(Progress("training", 0, options.epochs))
    detector = detector_classes()[options.architecture].fit(
        material.good.images.subset(material.parts.training),
        material.good.images.subset(material.parts.validation),
        material.preprocessing,
        options,
        device=device,
        max_pixels=options.max_pixels,
        on_epoch=on_epoch,
        checkpoint=checkpoint,
    )
    return detector, curve


def _evaluation(
    material: TrainingData, detector: Detector, threshold: float, options: TrainingOptions, tell: Tell
) -> Evaluation | None:
    """Detection on `test/`; None where it lacks good or defective images."""
    layout = material.layout
    if not layout.test_good or not layout.test_defective:
        return None
    good, defective = (
        read_images(
            paths, material.preprocessing, options, tell, stage="evaluating", max_cache_bytes=_MAX_TEST_CACHE_BYTES
        )
        for paths in (layout.test_good, layout.test_defective)
    )
    known = set(material.good.digests)
    total = len(good.paths) + len(defective.paths)
    if twice := sum(one in known for one in (*good.digests, *defective.digests)):
        note = f"{twice} of the {total} test images are in train/good too: the figures on test/ flatter"
        tell(Progress("evaluating", 0, total, note=note))
    evaluation = evaluate(
        detector,
        material.root,
        good,
        defective,
        material.good.thumbnails[material.parts.training],
        threshold,
        lambda done: tell(Progress("evaluating", done, total)),
    )
    for note in evaluation.notes:
        tell(Progress("evaluating", total, total, note=note))
    return evaluation


def _write_bundle(
    out: Path, material: TrainingData, lesson: _TrainedDetector, options: TrainingOptions, device: str
) -> Manifest:
    """Write the bundle."""
    good, parts = material.good, material.parts
    calibration = lesson.threshold.calibration
    return write_bundle(
        lesson.detector,
        out,
        golden=golden_images(
            [good.paths[index] for index in parts.validation + parts.calibration], max_pixels=options.max_pixels
        ),
        extra_files={TRAINING_CURVE: encode_json([asdict(epoch) for epoch in lesson.curve])},
        threshold=lesson.threshold,
        training=Training(
            training_set_digest=dataset_digest(material.root, good.paths, good.digests),
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
            groups=material.grouping.count,
            near_duplicates=material.grouping.near_duplicates,
        ),
        review_threshold=calibration.review.threshold if calibration and calibration.review else None,
        metrics=lesson.evaluation.metrics if lesson.evaluation else None,
        inputs=lesson.inputs,
    )


def _report_content(
    material: TrainingData, lesson: _TrainedDetector, manifest: Manifest, notes: list[str]
) -> ReportContent:
    """What the report is made of."""
    root, good, tested = material.root, material.good, lesson.evaluation
    good_paths = [good.paths[index] for index in material.parts.calibration]
    good_scores = lesson.held_out
    if tested is not None:
        good_paths, good_scores = good_paths + tested.good, np.concatenate([good_scores, tested.good_scores])
    return ReportContent(
        folder=root.resolve().name,
        manifest=manifest,
        sha256=digest(manifest.to_json()),
        curve=lesson.curve,
        held_out=lesson.held_out,
        tested=tested,
        gallery=choose_examples(lesson.detector, root, good_paths, good_scores, tested, manifest.threshold.value),
        unreadable=[(path.relative_to(root).as_posix(), reason) for path, reason in good.unreadable],
        notes=notes,
    )
