"""Train a detector on a folder of good parts: read, choose, fit, calibrate, evaluate, write the bundle, report."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.vision.bundle.detectability import Detectability
from core.vision.bundle.golden import golden_images
from core.vision.bundle.held_out_scores import HELD_OUT_SCORES, encode_held_out_scores
from core.vision.bundle.manifest import (
    TRAINING_CURVE,
    TRIALS,
    Manifest,
    Metrics,
    Threshold,
    Training,
    digest,
    encode_json,
)
from core.vision.bundle.writing import write_bundle
from core.vision.calibration.calibration import calibrate
from core.vision.detectors.detector import Detector
from core.vision.detectors.device import resolve_device
from core.vision.detectors.registry import detector_classes
from core.vision.evaluation.comparison import LearnedFromReviews
from core.vision.evaluation.evaluation import Evaluation, evaluate, score_dataset
from core.vision.evaluation.examples import choose_examples
from core.vision.evaluation.held_out import score_held_out
from core.vision.evaluation.metrics import Scores
from core.vision.evaluation.similar_images import choose_similar_images
from core.vision.evaluation.timing import time_detector
from core.vision.evaluation.training_report import ReportContent, TrialRow, render
from core.vision.input.input_checks import InputRanges, learn_input_ranges
from core.vision.progress import OnProgress, Progress
from core.vision.selection.detectability import HeldOutPart, Score, measure_detectability
from core.vision.selection.part_appearance import learn_appearance
from core.vision.selection.setup import Setup, choose_setup
from core.vision.selection.trial import Trial
from core.vision.training.cross_fitted import CrossFitted
from core.vision.training.dataset import ScannedImages, dataset_digest
from core.vision.training.fit_interface import Checkpoint, Epoch
from core.vision.training.folds import Folds
from core.vision.training_checkpoints import TrainingCheckpoints
from core.vision.training_data import TestImages, TrainingData, read_training_data
from core.vision.training_options import TrainingOptions

__all__ = ["Progress", "TrainingOptions", "train"]

_DETECTABILITY_IMAGES = 48


@dataclass(frozen=True)
class _TrainedDetector:
    """A trained detector, its training curve, the images that it was trained on, and their scores when held out."""

    detector: Detector
    folds: int
    curve: list[Epoch]
    good: ScannedImages
    held_out: NDArray[np.float64]
    threshold: Threshold
    trials: Sequence[Trial]
    evaluation: Evaluation | None
    detectability: Detectability
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
    compare: Callable[[Path], LearnedFromReviews] | None = None,
) -> Manifest:
    """Train on a folder in MVTec layout and write a bundle.

    Args:
        folder: contains `train/good/*` and, to measure detection, `test/<type>/*`.
        out: the folder of the bundle; must not exist.
        progress: called often, in this thread.
        report: the file for the report (`core.vision.evaluation.training_report`); it is overwritten.
        checkpoints: a folder for the state of an interrupted training, from which the same training continues.
        restart: whether to discard that state.
        compare: called with the folder of the bundle once it is written; what it returns is part of the report.

    Returns:
        The manifest of the bundle that was written.

    Raises:
        InvalidDataset: the folder has another layout, has too few images, or more than a tenth are unreadable.
        SampleTooSmall: too few good parts for the false-reject rate.
        FileExistsError: `out` exists.
        InvalidOptions: the options do not fit these images.
        InvalidGroups: an image's part or lot cannot be determined; see `core.vision.training.group_by`.
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
    kept = TrainingCheckpoints(checkpoints, restart, data, options, device, on_progress)
    setup = choose_setup(data, options, device, on_progress, kept.open(None))
    checkpoint = kept.open(setup)
    data = data.prepared(setup.preprocessing, options, on_progress)
    trained = _train_detector(data, setup, device, on_progress, checkpoint)
    on_progress(Progress("writing", 0, 1))
    manifest = _write_bundle(out, data, trained, setup.options, device)
    learned = compare(out) if compare is not None else None
    if report is not None:
        content = replace(_report_content(data, trained, manifest, notes), learned=learned)
        report.write_text(render(content), encoding="utf-8")
    kept.remove()
    on_progress(Progress("writing", 1, 1))
    return manifest


def _train_detector(
    data: TrainingData,
    setup: Setup,
    device: str,
    on_progress: OnProgress,
    checkpoint: Checkpoint | None,
) -> _TrainedDetector:
    """Fit, calibrate and evaluate a detector."""
    options, good = setup.options, data.good
    detector_class = detector_classes()[options.architecture]
    folds = data.folds(detector_class.folds(), options.seed)
    fitted, curve = _fit(setup, good, folds, device, on_progress, checkpoint)
    count = len(good.paths)
    held_out = score_held_out(
        fitted, folds, good.images, lambda done: on_progress(Progress("calibrating", done, count))
    )
    tested = data.read_test(setup.preprocessing, options, on_progress, stage="evaluating")
    calibration = calibrate(
        held_out,
        data.rate,
        review_rate=options.review_rate,
        groups=data.grouping.groups,
        cross_fitted=True,
        defective=_choosing_scores(fitted.final, tested, options, on_progress),
    )
    evaluation = _evaluation(data, good, fitted.final, tested, calibration.threshold, on_progress)
    metrics = evaluation.metrics if evaluation is not None else None
    return _TrainedDetector(
        detector=fitted.final,
        folds=folds.count,
        curve=curve,
        good=good,
        held_out=held_out,
        threshold=Threshold(value=calibration.threshold, calibration=calibration),
        trials=setup.trials,
        evaluation=evaluation,
        detectability=_detectability(data, setup, fitted, folds, good, calibration.threshold, metrics, on_progress),
        inputs=learn_input_ranges(good.facts),
    )


def _fit(
    setup: Setup,
    good: ScannedImages,
    folds: Folds,
    device: str,
    on_progress: OnProgress,
    checkpoint: Checkpoint | None,
) -> tuple[CrossFitted[Detector], list[Epoch]]:
    options = setup.options
    total = options.epochs * (folds.count + 1)
    epochs: list[Epoch] = []

    def on_epoch(epoch: Epoch) -> None:
        epochs.append(epoch)
        on_progress(Progress("training", len(epochs), total, epoch=epoch))

    on_progress(Progress("training", 0, total))
    fitted = detector_classes()[options.architecture].cross_fit(
        good.images,
        folds,
        setup.preprocessing,
        options,
        device=device,
        max_pixels=options.max_pixels,
        on_epoch=on_epoch,
        checkpoint=checkpoint,
    )
    return fitted, [epoch for epoch in epochs if epoch.fold is None]


def _detectability(
    data: TrainingData,
    setup: Setup,
    fitted: CrossFitted[Detector],
    folds: Folds,
    good: ScannedImages,
    threshold: float,
    metrics: Metrics | None,
    on_progress: OnProgress,
) -> Detectability:
    """Measure what the detector finds, with good parts of all folds, each scored by the detector that never saw it."""
    count = min(len(good.paths), _DETECTABILITY_IMAGES)
    chosen = np.random.default_rng(setup.options.seed).permutation(len(good.paths))[:count].tolist()
    images = [image for minibatch in good.images.minibatches(count, chosen) for image in minibatch]
    parts = [
        HeldOutPart(image, _scores_of(fitted.held_out[folds.labels[index]]))
        for index, image in zip(chosen, images, strict=True)
    ]
    return measure_detectability(
        parts,
        learn_appearance(images),
        threshold,
        setup.preprocessing.covered(data.typical_size),
        metrics=metrics,
        seed=setup.options.seed,
        progress=lambda done, total: on_progress(Progress("detectability", done, total)),
    )


def _scores_of(detector: Detector) -> Score:
    return lambda images: detector.score(images).scores


def _choosing_scores(
    detector: Detector, tested: TestImages | None, options: TrainingOptions, on_progress: OnProgress
) -> Scores | None:
    """Return the scores of the defective images in `test/` if they choose the threshold, too."""
    if options.choose_by != "test" or tested is None:
        return None
    _, defective = tested
    count = len(defective.paths)
    return score_dataset(detector, defective.images, lambda done: on_progress(Progress("calibrating", done, count)))


def _evaluation(
    data: TrainingData,
    known: ScannedImages,
    detector: Detector,
    tested: TestImages | None,
    threshold: float,
    on_progress: OnProgress,
) -> Evaluation | None:
    """Measure detection on `test/`. Returns None if it has no good or no defective images."""
    if tested is None:
        return None
    good, defective = tested
    training_digests = set(known.digests)
    total = len(good.paths) + len(defective.paths)
    if shared := sum(digest in training_digests for digest in (*good.digests, *defective.digests)):
        note = f"{shared} of the {total} test images are also in train/good, so the figures on test/ are too good"
        on_progress(Progress("evaluating", 0, total, note=note))
    evaluation = evaluate(
        detector,
        data.root,
        good,
        defective,
        known.thumbnails,
        threshold,
        lambda done: on_progress(Progress("evaluating", done, total)),
    )
    for note in evaluation.notes:
        on_progress(Progress("evaluating", total, total, note=note))
    return evaluation


def _write_bundle(
    out: Path, data: TrainingData, trained: _TrainedDetector, options: TrainingOptions, device: str
) -> Manifest:
    good = trained.good
    calibration = trained.threshold.calibration
    return write_bundle(
        trained.detector,
        out,
        golden=golden_images(good.paths, max_pixels=options.max_pixels),
        extra_files={
            TRAINING_CURVE: encode_json([asdict(epoch) for epoch in trained.curve]),
            HELD_OUT_SCORES: encode_held_out_scores(trained.held_out.tolist()),
            **({TRIALS: encode_json([trial.document() for trial in trained.trials])} if trained.trials else {}),
        },
        threshold=trained.threshold,
        training=Training(
            training_set_digest=dataset_digest(data.root, good.paths, good.digests),
            parts={"training": len(good.paths), "calibration": len(good.paths)},
            folds=trained.folds,
            unreadable=len(good.unreadable),
            options=options.recorded(),
            epochs=len(trained.curve),
            best_epoch=len(trained.curve) or None,
            device=device,
            groups=data.grouping.count,
            near_duplicates=data.grouping.near_duplicates,
        ),
        review_threshold=calibration.review.threshold if calibration and calibration.review else None,
        metrics=trained.evaluation.metrics if trained.evaluation else None,
        inputs=trained.inputs,
        detectability=trained.detectability,
    )


def _describe_time(trained: _TrainedDetector) -> str:
    milliseconds = time_detector(trained.detector, trained.good.images)
    return (
        f"{milliseconds:.1f} ms to decode and score, on {'one core' if trained.detector.device == 'cpu' else 'the GPU'}"
    )


def _report_content(
    data: TrainingData,
    trained: _TrainedDetector,
    manifest: Manifest,
    notes: list[str],
) -> ReportContent:
    """Collect the content of the report."""
    root, good, evaluation = data.root, trained.good, trained.evaluation
    return ReportContent(
        folder=root.resolve().name,
        manifest=manifest,
        sha256=digest(manifest.to_json()),
        curve=trained.curve,
        held_out=trained.held_out,
        tested=evaluation,
        gallery=choose_examples(
            trained.detector, root, good.paths, trained.held_out, evaluation, manifest.threshold.value
        ),
        facts={**trained.detector.facts, "Time for one image": _describe_time(trained)},
        unreadable=[(path.relative_to(root).as_posix(), reason) for path, reason in good.unreadable],
        notes=notes,
        trials=[
            TrialRow(each.candidate.description, each.partial_auroc, each.caught, each.test_auroc, each.milliseconds)
            for each in trained.trials
        ],
        similar=choose_similar_images(root, data.good.paths, data.grouping, max_pixels=trained.detector.max_pixels)
        if data.grouping.near_duplicates
        else None,
    )
