"""`make bench-detection`: how well each detector tells defective parts from good ones, on real images.

Sets are the ELPV solar cells and every folder in MVTec layout that is named. Each detector is trained as
`linewatch train` does it, with several seeds, and tested on images that nobody chose anything by. Trivial controls
stand beside every figure: a detector that does not beat them has shown nothing.
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

from benchmarks import pages, robustness, sets
from benchmarks.findings import Found, Row, Run
from benchmarks.robustness import Robustness
from core.vision.bundle.folder import read_folder
from core.vision.bundle.loading import load_detector
from core.vision.bundle.manifest import MANIFEST, Manifest, verify_bundle
from core.vision.detectors.autoencoder import MSE, Z_MAP
from core.vision.detectors.detector import Detector
from core.vision.evaluation.evaluation import scores_of
from core.vision.evaluation.metrics import Scores, auroc, controls
from core.vision.input.preprocessing import Preprocessing
from core.vision.train import TrainingOptions, train
from core.vision.training.dataset import ImageSet, read

MAX_PIXELS: Final = 64_000_000
RESULTS: Final = Path(__file__).parent / "results"
DETECTORS: Final = (
    ("feature-autoencoder", None),
    ("feature-gaussian", None),
    ("conv-autoencoder", Z_MAP),
    ("conv-autoencoder", MSE),
)
_RESAMPLES = 500
_TIMED = 48


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, help="folders in MVTec layout, beside the solar cells")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--detector", action="append", help="one of them only; may be repeated")
    parser.add_argument("--set", action="append", dest="only", help="one set only; may be repeated")
    parser.add_argument("--blocks", action="store_true", help="hold out whole runs of neighbouring solar cells")
    parser.add_argument("--no-robustness", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory(prefix="linewatch-bench-") as folder:
        for one in _sets(arguments.folders, Path(folder), blocks=arguments.blocks):
            if arguments.only and one.name not in arguments.only:
                continue
            wanted = [d for d in DETECTORS if not arguments.detector or named(*d) in arguments.detector]
            found.append(measure(one, wanted, arguments.seeds, Path(folder), robust=not arguments.no_robustness))
            print(pages.markdown(found[-1:]), flush=True)
            arguments.out.mkdir(parents=True, exist_ok=True)
            (arguments.out / "detection.md").write_text(pages.markdown(found))
            (arguments.out / "detection.html").write_text(pages.html(found))
            (arguments.out / "detection.json").write_text(_json(found))


def _sets(folders: Sequence[Path], work: Path, *, blocks: bool) -> Iterator[sets.Set]:
    for kind in ("mono", "poly"):
        yield sets.elpv(kind, work, blocks=blocks)
    for folder in folders:
        yield sets.of_folder(folder, work)


def named(architecture: str, score: str | None) -> str:
    """What a detector is called in the tables."""
    return f"{architecture}, {score}" if score else architecture


def measure(one: sets.Set, wanted: Sequence[tuple[str, str | None]], seeds: int, work: Path, *, robust: bool) -> Found:
    """Train and test every detector with every seed on one set."""
    runs: list[Run] = []
    robustly: dict[str, list[Robustness]] = {}
    for architecture, score in wanted:
        for seed in range(seeds):
            print(f"{one.name}: {named(architecture, score)}, seed {seed}", flush=True)
            bundle = work / f"{one.name}-{architecture}-{score}-{seed}"
            run, detector, manifest = _run(one, architecture, score, seed, bundle)
            runs.append(run)
            if robust and seed == 0:
                robustly[run.detector] = robustness.measure(
                    detector, manifest.inputs, run.threshold, one.good, one.defective
                )
    images = {
        "trained on or calibrated with": len(list((one.folder / "train" / "good").rglob("*.*"))),
        "good": len(one.good),
        "defective": len(one.defective),
    }
    rows = [_row(one.name, [run for run in runs if run.detector == named(*each)]) for each in wanted]
    return Found(one.name, images, rows, _controls(one), robustly, runs)


def _run(
    one: sets.Set, architecture: str, score: str | None, seed: int, bundle: Path
) -> tuple[Run, Detector, Manifest]:
    options = TrainingOptions(architecture=architecture, score_method=score, seed=seed)
    started = time.perf_counter()
    train(one.folder, bundle, options, lambda _: None)
    took = time.perf_counter() - started
    files = read_folder(bundle)
    manifest = verify_bundle(files)
    detector = load_detector(files, device="auto", max_pixels=MAX_PIXELS)
    calibration = manifest.threshold.calibration
    if calibration is None:
        raise RuntimeError("a training has always a calibration")
    good, defective = (_scores(detector, paths) for paths in (one.good, one.defective))
    development = None
    if one.development_good and one.development_defective:
        development = auroc(_scores(detector, one.development_good), _scores(detector, one.development_defective))
    run = Run(
        detector=named(architecture, score),
        seed=seed,
        good=good,
        defective=defective,
        development=development,
        threshold=manifest.threshold.value,
        promised=(calibration.expected_false_reject_rate, *calibration.confidence_interval),
        milliseconds=_milliseconds(detector, [*one.good, *one.defective]),
        training_seconds=took,
        bundle_bytes=sum(len(content) for content in files.values()) + len(files[MANIFEST]),
    )
    return run, detector, manifest


def _scores(detector: Detector, paths: Sequence[Path]) -> Scores:
    return scores_of(detector, ImageSet(paths, detector.preprocessing, max_pixels=MAX_PIXELS), lambda _: None)


def _milliseconds(detector: Detector, paths: Sequence[Path]) -> float:
    """To decode and score one image, on one core, in minibatches of 16; the best of three rounds."""
    data = [path.read_bytes() for path in paths[:_TIMED]]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = []
        for _ in range(3):
            started = time.perf_counter()
            for start in range(0, len(data), 16):
                detector.score([detector.prepare(one) for one in data[start : start + 16]])
            rounds.append((time.perf_counter() - started) / len(data) * 1000)
    finally:
        torch.set_num_threads(threads)
    return min(rounds)


def _row(name: str, runs: Sequence[Run]) -> Row:
    random = np.random.default_rng(0)
    resampled = []
    for _ in range(_RESAMPLES):
        good = random.integers(0, len(runs[0].good), len(runs[0].good))
        defective = random.integers(0, len(runs[0].defective), len(runs[0].defective))
        resampled.append(np.mean([auroc(run.good[good], run.defective[defective]) for run in runs]))
    low, high = np.percentile(resampled, [2.5, 97.5]).tolist()
    developments = [run.development for run in runs if run.development is not None]
    return Row(
        set=name,
        detector=runs[0].detector,
        seeds=len(runs),
        auroc=float(np.mean([auroc(run.good, run.defective) for run in runs])),
        interval=(low, high),
        development=float(np.mean(developments)) if developments else None,
        false_reject_rate=float(np.mean([(run.good >= run.threshold).mean() for run in runs])),
        promised=runs[0].promised,
        recall=float(np.mean([(run.defective >= run.threshold).mean() for run in runs])),
        milliseconds=min(run.milliseconds for run in runs),
        training_seconds=float(np.mean([run.training_seconds for run in runs])),
        bundle_bytes=runs[0].bundle_bytes,
    )


def _controls(one: sets.Set) -> dict[str, float]:
    """The AUROC of each trivial score on the same images, prepared as for the reference network."""
    preprocessing = Preprocessing(width=128, height=128, scaled_decode=True)
    known, good, defective = (
        read(paths, preprocessing, max_pixels=MAX_PIXELS, progress=lambda _: None)
        for paths in (sorted((one.folder / "train" / "good").rglob("*.*")), one.good, one.defective)
    )
    of_good, of_defective = (controls(some.thumbnails, some.deviations, known.thumbnails) for some in (good, defective))
    return {name: auroc(of_good[name], of_defective[name]) for name in of_good}


def _json(found: Sequence[Found]) -> str:
    def plain(value: object) -> object:
        return value.tolist() if isinstance(value, np.ndarray) else str(value)

    return json.dumps([asdict(one) for one in found], default=plain, indent=1) + "\n"


if __name__ == "__main__":
    main()
