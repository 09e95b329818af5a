"""`make bench-detection`: how well each detector separates defective parts from good parts, on real images.

The sets are the ELPV solar cells and each folder in MVTec layout that you pass. Each detector is trained as
`linewatch train` trains it, with several seeds, and tested on images that were not used to choose the detector or its
settings. Each result comes with trivial controls: a detector that does not beat them proves nothing.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
import torch

from benchmarks import pages, sets
from benchmarks.detection_results import DetectorRun, ResultRow, SetResults
from benchmarks.robustness import Robustness, measure_robustness
from core.vision.bundle.folder import read_folder
from core.vision.bundle.loading import load_detector
from core.vision.bundle.manifest import Manifest, verify_bundle
from core.vision.detectors.autoencoder import MSE, Z_MAP
from core.vision.detectors.detector import Detector
from core.vision.evaluation.evaluation import score_dataset
from core.vision.evaluation.metrics import Scores, auroc, controls
from core.vision.input.record import Preprocessing
from core.vision.train import TrainingOptions, train
from core.vision.training.dataset import ImageDataset, read

MAX_PIXELS: Final = 64_000_000
RESULTS: Final = Path(__file__).parent / "results"
DETECTORS: Final = (
    ("feature-autoencoder", None),
    ("feature-gaussian", None),
    ("memory-bank", None),
    ("combined-maximum", None),
    ("combined-mean", None),
    ("conv-autoencoder", Z_MAP),
    ("conv-autoencoder", MSE),
)
_BOOTSTRAP_SAMPLES = 500
_TIMED_IMAGES = 48

DetectorChoice = tuple[str, str | None]
"""An architecture and its score method; None for the default method."""


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, help="folders in MVTec layout, in addition to the solar cells")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--detector", action="append", help="only this detector; may be repeated")
    parser.add_argument("--set", action="append", dest="only", help="only this set; may be repeated")
    parser.add_argument("--blocks", action="store_true", help="hold out whole blocks of neighbouring solar cells")
    parser.add_argument("--no-robustness", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    results: list[SetResults] = []
    detectors = arguments.detector
    chosen = [choice for choice in DETECTORS if not detectors or detector_label(*choice) in detectors]
    with tempfile.TemporaryDirectory(prefix="linewatch-bench-") as folder:
        for image_set in _sets(arguments.folders, Path(folder), blocks=arguments.blocks):
            if arguments.only and image_set.name not in arguments.only:
                continue
            robust = not arguments.no_robustness
            results.append(measure(image_set, chosen, arguments.seeds, Path(folder), robust=robust))
            print(pages.render_markdown(results[-1:]), flush=True)
            arguments.out.mkdir(parents=True, exist_ok=True)
            (arguments.out / "detection.md").write_text(pages.render_markdown(results))
            (arguments.out / "detection.html").write_text(pages.render_html(results))
            (arguments.out / "detection.json").write_text(_json(results))


def _sets(folders: Sequence[Path], work: Path, *, blocks: bool) -> Iterator[sets.ImageSet]:
    for kind in ("mono", "poly"):
        yield sets.prepare_cells(kind, work, blocks=blocks)
    for folder in folders:
        yield sets.prepare_folder(folder, work)


def detector_label(architecture: str, score: str | None) -> str:
    """Return the name of a detector in the tables."""
    return f"{architecture}, {score}" if score else architecture


def measure(
    image_set: sets.ImageSet, chosen: Sequence[DetectorChoice], seeds: int, work: Path, *, robust: bool
) -> SetResults:
    """Train and test every chosen detector with every seed on one set."""
    runs: list[DetectorRun] = []
    robustness: dict[str, list[Robustness]] = {}
    for architecture, score in chosen:
        for seed in range(seeds):
            print(f"{image_set.name}: {detector_label(architecture, score)}, seed {seed}", flush=True)
            bundle = work / f"{image_set.name}-{architecture}-{score}-{seed}"
            run, detector, manifest = _train_and_test(image_set, architecture, score, seed, bundle)
            runs.append(run)
            if robust and seed == 0:
                robustness[run.detector] = _robustness(image_set, detector, manifest)
                if manifest.preprocessing.alignment is not None:
                    options = TrainingOptions(architecture=architecture, score_method=score, alignment="off")
                    plain, plain_manifest = _train(image_set, options, Path(f"{bundle}-not-aligned"))
                    label = f"{run.detector}, not aligned"
                    robustness[label] = _robustness(image_set, plain, plain_manifest)
    images = {
        "trained on or calibrated with": len(list((image_set.folder / "train" / "good").rglob("*.*"))),
        "good": len(image_set.good),
        "defective": len(image_set.defective),
    }
    labels = [detector_label(*choice) for choice in chosen]
    rows = [_row(image_set.name, [run for run in runs if run.detector == label]) for label in labels]
    return SetResults(image_set.name, images, rows, _controls(image_set), robustness, runs)


def _robustness(image_set: sets.ImageSet, detector: Detector, manifest: Manifest) -> list[Robustness]:
    threshold = manifest.threshold.value
    return measure_robustness(detector, manifest.inputs, threshold, image_set.good, image_set.defective)


def _train(image_set: sets.ImageSet, options: TrainingOptions, bundle: Path) -> tuple[Detector, Manifest]:
    """Train as `linewatch train` does, and load the bundle."""
    train(image_set.folder, bundle, options, lambda _: None)
    files = read_folder(bundle)
    return load_detector(files, device="auto", max_pixels=MAX_PIXELS), verify_bundle(files)


def _train_and_test(
    image_set: sets.ImageSet, architecture: str, score: str | None, seed: int, bundle: Path
) -> tuple[DetectorRun, Detector, Manifest]:
    options = TrainingOptions(architecture=architecture, score_method=score, seed=seed)
    started = time.perf_counter()
    detector, manifest = _train(image_set, options, bundle)
    training_seconds = time.perf_counter() - started
    calibration = manifest.threshold.calibration
    if calibration is None:
        raise RuntimeError("a trained version must have a calibration")
    good, defective = (_scores(detector, paths) for paths in (image_set.good, image_set.defective))
    development = None
    if image_set.development_good and image_set.development_defective:
        development = auroc(
            _scores(detector, image_set.development_good), _scores(detector, image_set.development_defective)
        )
    run = DetectorRun(
        detector=detector_label(architecture, score),
        seed=seed,
        good=good,
        defective=defective,
        development=development,
        threshold=manifest.threshold.value,
        expected_false_rejects=(calibration.expected_false_reject_rate, *calibration.confidence_interval),
        milliseconds=_milliseconds(detector, [*image_set.good, *image_set.defective]),
        training_seconds=training_seconds,
        bundle_bytes=sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()),
    )
    return run, detector, manifest


def _scores(detector: Detector, paths: Sequence[Path]) -> Scores:
    return score_dataset(detector, ImageDataset(paths, detector.preprocessing, max_pixels=MAX_PIXELS), lambda _: None)


def _milliseconds(detector: Detector, paths: Sequence[Path]) -> float:
    """Return the time to decode and score one image on one core, in minibatches of 16; the best of three rounds."""
    data = [path.read_bytes() for path in paths[:_TIMED_IMAGES]]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = []
        for _ in range(3):
            started = time.perf_counter()
            for start in range(0, len(data), 16):
                detector.score([detector.prepare(image) for image in data[start : start + 16]])
            rounds.append((time.perf_counter() - started) / len(data) * 1000)
    finally:
        torch.set_num_threads(threads)
    return min(rounds)


def _row(name: str, runs: Sequence[DetectorRun]) -> ResultRow:
    random = np.random.default_rng(0)
    resampled = []
    for _ in range(_BOOTSTRAP_SAMPLES):
        good = random.integers(0, len(runs[0].good), len(runs[0].good))
        defective = random.integers(0, len(runs[0].defective), len(runs[0].defective))
        resampled.append(np.mean([auroc(run.good[good], run.defective[defective]) for run in runs]))
    low, high = np.percentile(resampled, [2.5, 97.5]).tolist()
    developments = [run.development for run in runs if run.development is not None]
    return ResultRow(
        set=name,
        detector=runs[0].detector,
        seeds=len(runs),
        auroc=float(np.mean([auroc(run.good, run.defective) for run in runs])),
        interval=(low, high),
        development=float(np.mean(developments)) if developments else None,
        false_reject_rate=float(np.mean([(run.good >= run.threshold).mean() for run in runs])),
        expected_false_rejects=runs[0].expected_false_rejects,
        recall=float(np.mean([(run.defective >= run.threshold).mean() for run in runs])),
        milliseconds=min(run.milliseconds for run in runs),
        training_seconds=float(np.mean([run.training_seconds for run in runs])),
        bundle_bytes=runs[0].bundle_bytes,
    )


def _controls(image_set: sets.ImageSet) -> dict[str, float]:
    """Return the AUROC of each trivial score on the same images, prepared as for the reference network."""
    preprocessing = Preprocessing(width=128, height=128, scaled_decode=True)
    training, good, defective = (
        read(paths, preprocessing, max_pixels=MAX_PIXELS, progress=lambda _: None)
        for paths in (sorted((image_set.folder / "train" / "good").rglob("*.*")), image_set.good, image_set.defective)
    )
    of_good, of_defective = (
        controls(images.thumbnails, images.deviations, training.thumbnails) for images in (good, defective)
    )
    return {name: auroc(of_good[name], of_defective[name]) for name in of_good}


def _json(results: Sequence[SetResults]) -> str:
    def to_plain(value: object) -> object:
        return value.tolist() if isinstance(value, np.ndarray) else str(value)

    return json.dumps([asdict(result) for result in results], default=to_plain, indent=1) + "\n"


if __name__ == "__main__":
    main()
