"""Train a detector on a folder of good parts: read, split, fit, calibrate, evaluate, write the bundle, report."""

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
from core.vision.progress import OnProgress, Progress
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
    """A trained detector, its training curve, and its scores."""

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
    progress: OnProgress,
    *,
    report: Path | None = None,
    checkpoints: Path | None = None,
    restart: bool = False,
) -> Manifest:
    """Train on a folder in MVTec layout and write a bundle.

    Args:
        folder: contains `train/good/*` and, to measure detection, `test/<type>/*`.
        out: the folder of the bundle; must not exist.
        progress: called often, in this thread.
        report: the file for the report (`core.vision.evaluation.training_report`); it is overwritten.
        checkpoints: a folder for the state of an interrupted training, from which the same training continues.
        restart: whether to discard that state.

    Returns:
        The manifest of the bundle that was written.

    Raises:
        InvalidDataset: the folder has another layout, has too few images, or more than a tenth are unreadable.
        SampleTooSmall: too few good parts for the false-reject rate.
        FileExistsError: `out` exists.
        InvalidOptions: the options do not fit these images.
        InvalidGroups: an image's part or lot cannot be determined; see `core.vision.training.grouping`.
        ScoreNotFinite: a score of the detector is not a finite number.
        ValueError: the device does not exist. All of the above except FileExistsError are ValueErrors, too.
        OSError: a file cannot be read or written.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already, and a bundle is never overwritten: choose another folder")
    device = resolve_device(options.device)
    notes: list[str] = []

    def on_progress(update: Progress) -> None:
        if update.note is not None:
            notes.append(update.note)
        progress(update)

    data = read_training_data(folder, options, on_progress)
    checkpoint = _checkpoint(checkpoints, data, options, device, on_progress) if checkpoints is not None else None
    if checkpoint is not None and restart:
        checkpoint.remove()
    trained = _train_detector(data, options, device, on_progress, checkpoint)
    on_progress(Progress("writing", 0, 1))
    manifest = _write_bundle(out, data, trained, options, device)
    if report is not None:
        report.write_text(render(_report_content(data, trained, manifest, notes)), encoding="utf-8")
    if checkpoint is not None:
        checkpoint.remove()
    on_progress(Progress("writing", 1, 1))
    return manifest


def _checkpoint(
    folder: Path, data: TrainingData, options: TrainingOptions, device: str, on_progress: OnProgress
) -> CheckpointFile:
    """Return the checkpoint of this training: the same images and options, on the same kind of device."""
    weights = options.backbone_weights
    key = fingerprint(
        {
            "images": dataset_digest(data.root, data.good.paths, data.good.digests),
            "parts": asdict(data.parts),
            "preprocessing": data.preprocessing.digest,
            "options": options.recorded(),
            "backbone": sha256(weights.read_bytes()).hexdigest() if weights is not None else None,
            "device": device,
            "libraries": library_versions(),
        }
    )
    return CheckpointFile(folder, key, lambda note: on_progress(Progress("training", 0, options.epochs, note=note)))


def _train_detector(
    data: TrainingData,
    options: TrainingOptions,
    device: str,
    on_progress: OnProgress,
    checkpoint: Checkpoint | None,
) -> _TrainedDetector:
    """Fit, calibrate and evaluate a detector."""
    good, parts = data.good, data.parts
    detector, curve = _fit(data, options, device, on_progress, checkpoint)
    count = len(parts.calibration)
    held_out = score_dataset(
        detector, good.images.subset(parts.calibration), lambda done: on_progress(Progress("calibrating", done, count))
    )
    calibration = calibrate(
        held_out,
        options.false_reject_rate,
        review_rate=options.review_rate,
        groups=[data.grouping.groups[index] for index in parts.calibration],
    )
    return _TrainedDetector(
        detector=detector,
        curve=curve,
        held_out=held_out,
        threshold=Threshold(value=calibration.threshold, calibration=calibration),
        evaluation=_evaluation(data, detector, calibration.threshold, options, on_progress),
        inputs=learn_input_ranges([good.facts[index] for index in parts.training]),
    )


def _fit(
    data: TrainingData,
    options: TrainingOptions,
    device: str,
    on_progress: OnProgress,
    checkpoint: Checkpoint | None,
) -> tuple[Detector, list[Epoch]]:
    curve: list[Epoch] = []

    def on_epoch(epoch: Epoch) -> None:
        curve.append(epoch)
        on_progress(Progress("training", epoch.number, options.epochs, epoch=epoch))

    on_progress(Progress("training", 0, options.epochs))
    detector = detector_classes()[options.architecture].fit(
        data.good.images.subset(data.parts.training),
        data.good.images.subset(data.parts.validation),
        data.preprocessing,
        options,
        device=device,
        max_pixels=options.max_pixels,
        on_epoch=on_epoch,
        checkpoint=checkpoint,
    )
    return detector, curve


def _evaluation(
    data: TrainingData, detector: Detector, threshold: float, options: TrainingOptions, on_progress: OnProgress
) -> Evaluation | None:
    """Measure detection on `test/`. Returns None if it has no good or no defective images."""
    layout = data.layout
    if not layout.test_good or not layout.test_defective:
        return None
    good, defective = (
        read_images(
            paths,
            data.preprocessing,
            options,
            on_progress,
            stage="evaluating",
            max_cache_bytes=_MAX_TEST_CACHE_BYTES,
        )
        for paths in (layout.test_good, layout.test_defective)
    )
    training_digests = set(data.good.digests)
    total = len(good.paths) + len(defective.paths)
    if shared := sum(digest in training_digests for digest in (*good.digests, *defective.digests)):
        note = f"{shared} of the {total} test images are also in train/good, so the figures on test/ are too good"
        on_progress(Progress("evaluating", 0, total, note=note))
    evaluation = evaluate(
        detector,
        data.root,
        good,
        defective,
        data.good.thumbnails[data.parts.training],
        threshold,
        lambda done: on_progress(Progress("evaluating", done, total)),
    )
    for note in evaluation.notes:
        on_progress(Progress("evaluating", total, total, note=note))
    return evaluation


def _write_bundle(
    out: Path, data: TrainingData, trained: _TrainedDetector, options: TrainingOptions, device: str
) -> Manifest:
    good, parts = data.good, data.parts
    calibration = trained.threshold.calibration
    return write_bundle(
        trained.detector,
        out,
        golden=golden_images(
            [good.paths[index] for index in parts.validation + parts.calibration], max_pixels=options.max_pixels
        ),
        extra_files={TRAINING_CURVE: encode_json([asdict(epoch) for epoch in trained.curve])},
        threshold=trained.threshold,
        training=Training(
            training_set_digest=dataset_digest(data.root, good.paths, good.digests),
            parts={
                "training": len(parts.training),
                "validation": len(parts.validation),
                "calibration": len(parts.calibration),
            },
            unreadable=len(good.unreadable),
            options=options.recorded(),
            epochs=len(trained.curve),
            best_epoch=min(trained.curve, key=lambda epoch: epoch.validation_loss).number,
            device=device,
            groups=data.grouping.count,
            near_duplicates=data.grouping.near_duplicates,
        ),
        review_threshold=calibration.review.threshold if calibration and calibration.review else None,
        metrics=trained.evaluation.metrics if trained.evaluation else None,
        inputs=trained.inputs,
    )


def _report_content(
    data: TrainingData, trained: _TrainedDetector, manifest: Manifest, notes: list[str]
) -> ReportContent:
    """Collect the content of the report."""
    root, good, evaluation = data.root, data.good, trained.evaluation
    good_paths = [good.paths[index] for index in data.parts.calibration]
    good_scores = trained.held_out
    if evaluation is not None:
        good_paths, good_scores = good_paths + evaluation.good, np.concatenate([good_scores, evaluation.good_scores])
    return ReportContent(
        folder=root.resolve().name,
        manifest=manifest,
        sha256=digest(manifest.to_json()),
        curve=trained.curve,
        held_out=trained.held_out,
        tested=evaluation,
        gallery=choose_examples(trained.detector, root, good_paths, good_scores, evaluation, manifest.threshold.value),
        unreadable=[(path.relative_to(root).as_posix(), reason) for path, reason in good.unreadable],
        notes=notes,
    )
