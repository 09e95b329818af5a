"""`make bench-choices`: what `--architecture auto` chooses on each set, and how far that is from the best choice.

The sets are the ELPV solar cells as they are and in any pose, and each folder in MVTec layout that you pass. The
detector is chosen by synthetic defects on good parts alone. The reported images are `test/` of the folder that is
trained on, so every candidate is measured on them, too; that measurement chooses nothing.
The reports, in `results/choices/`, contain images of the sets and are not for the repository.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks import sets
from core.vision.bundle.manifest import Manifest
from core.vision.calibration.calibration import check_expected_rate
from core.vision.progress import Progress
from core.vision.train import TrainingOptions, train
from core.vision.training.dataset import read_mvtec_folder

RESULTS: Final = Path(__file__).parent / "results"
_HEAD: Final = (
    "| candidate | partial AUROC, synthetic | AUROC, reported images | ms per image |\n| --- | ---: | ---: | ---: |\n"
)


@dataclass(frozen=True)
class Choice:
    """What was chosen on one set, and what it reaches.

    Attributes:
        good, defective: number of reported images.
        trials: every candidate, see `core.vision.selection.trial.Trial.document`.
        chosen: the description of the chosen candidate.
        auroc, auroc_interval, recall, false_reject_rate: on the reported images.
        promised: the expected false-reject rate, and the low and high end of its 95 % interval.
        promise: whether the rejected good images agree with that, in words.
        statement: what it can find.
        fit_for_use: whether it is.
        seconds: of the whole training.
    """

    set: str
    training: int
    good: int
    defective: int
    trials: list[dict[str, Any]]
    chosen: str
    auroc: float
    auroc_interval: tuple[float, float]
    recall: float
    false_reject_rate: float
    promised: tuple[float, float, float]
    promise: str
    statement: list[str]
    fit_for_use: bool
    seconds: float


def main() -> None:
    """Train on each set, print and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choices", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, help="folders in MVTec layout, in addition to the solar cells")
    parser.add_argument("--set", action="append", dest="only", help="only this set; may be repeated")
    parser.add_argument("--max-ms", type=float, default=TrainingOptions.max_ms)
    parser.add_argument("--budget-seconds", type=float, default=TrainingOptions.budget_seconds)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    options = TrainingOptions(architecture="auto", max_ms=arguments.max_ms, budget_seconds=arguments.budget_seconds)
    arguments.out.mkdir(parents=True, exist_ok=True)
    choices: list[Choice] = []
    with tempfile.TemporaryDirectory(prefix="linewatch-bench-") as work:
        for name, folder, group_by in _folders(arguments.folders, Path(work)):
            if arguments.only and name not in arguments.only:
                continue
            reports = arguments.out / "choices"
            reports.mkdir(exist_ok=True)
            grouped = replace(options, group_by=group_by)
            choices.append(measure(name, folder, grouped, Path(work, f"{name}-bundle"), reports / f"{name}.html"))
            print(markdown(choices[-1]), flush=True)
            (arguments.out / "choices.md").write_text("\n".join(map(markdown, choices)), encoding="utf-8")
            (arguments.out / "choices.json").write_text(json.dumps([asdict(each) for each in choices], indent=1) + "\n")


def _folders(folders: Sequence[Path], work: Path) -> Iterator[tuple[str, Path, str | None]]:
    """Yield the name of each set, a folder with its training and its reported images, and how to group by lots."""
    for kind in ("mono", "poly"):
        for prepare in (sets.prepare_cells, sets.prepare_cells_in_any_pose):
            image_set = prepare(kind, work)
            _link(image_set.good, image_set.folder / "test" / "good")
            _link(image_set.defective, image_set.folder / "test" / "defective")
            yield image_set.name, image_set.folder, image_set.group_by
    for folder in folders:
        yield folder.name, folder, None


def _link(images: Sequence[Path], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for image in images:
        (folder / image.name).symlink_to(image.resolve())


def measure(name: str, folder: Path, options: TrainingOptions, bundle: Path, report: Path) -> Choice:
    """Train on one set with `auto`, and collect the results."""

    def on_progress(update: Progress) -> None:
        if update.note:
            print(f"{name}: {update.note}", flush=True)

    started = time.monotonic()
    manifest = train(folder, bundle, options, on_progress, report=report)
    seconds = time.monotonic() - started
    trials = json.loads((bundle / "trials.json").read_text())
    return _choice(name, len(read_mvtec_folder(folder).good), manifest, trials, seconds)


def _choice(name: str, training: int, manifest: Manifest, trials: list[dict[str, Any]], seconds: float) -> Choice:
    metrics, calibration, found = manifest.metrics, manifest.threshold.calibration, manifest.detectability
    if metrics is None or calibration is None or found is None:
        raise RuntimeError(f"{name} needs images in test/good and test/<type>")
    rejected = round(metrics.false_reject_rate * metrics.good)
    return Choice(
        set=name,
        training=training,
        good=metrics.good,
        defective=metrics.defective,
        trials=trials,
        chosen=trials[0]["description"],
        auroc=metrics.auroc,
        auroc_interval=metrics.auroc_interval,
        recall=metrics.recall,
        false_reject_rate=metrics.false_reject_rate,
        promised=(calibration.expected_false_reject_rate, *calibration.confidence_interval),
        promise=check_expected_rate(calibration, rejected, metrics.good).summary,
        statement=found.statement,
        fit_for_use=found.fit_for_use,
        seconds=seconds,
    )


def markdown(choice: Choice) -> str:
    """Render the results on one set as Markdown."""
    best = max(choice.trials, key=lambda trial: trial["test_auroc"])
    chosen = choice.trials[0]
    rate, low, high = choice.promised
    rows = "".join(
        f"| {trial['description']} | {trial['partial_auroc']:.3f} | {trial['test_auroc']:.3f} "
        f"| {trial['milliseconds']:.1f} |\n"
        for trial in sorted(choice.trials, key=lambda trial: -trial["test_auroc"])
    )
    counts = f"{choice.training} good parts trained on; reported on {choice.good} good and {choice.defective} defective"
    return (
        f"## {choice.set}\n\n{counts}. Chosen: **{choice.chosen}**, after {choice.seconds:.0f} s in all.\n\n"
        f"AUROC {choice.auroc:.3f} ({choice.auroc_interval[0]:.3f} to {choice.auroc_interval[1]:.3f}), "
        f"{choice.recall:.1%} caught, {choice.false_reject_rate:.1%} of good parts rejected; promised {rate:.1%} "
        f"({low:.1%} to {high:.1%}); {choice.promise}. "
        f"The best candidate on these images is {best['description']} with {best['test_auroc']:.3f}, the chosen "
        f"one has {chosen['test_auroc']:.3f}: "
        f"{chosen['test_auroc'] - best['test_auroc']:+.3f}.\n\n{' '.join(choice.statement)}\n\n{_HEAD}{rows}"
    )


if __name__ == "__main__":
    main()
