"""Train on this machine with progress bars."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from linewatch.cli.terminal import advance_to, progress_bar, remark

if TYPE_CHECKING:
    from tqdm import tqdm

    from core.vision.bundle.manifest import Manifest
    from core.vision.evaluation.comparison import LearnedFromReviews
    from core.vision.train import Progress, TrainingOptions


@dataclass(frozen=True)
class SideFiles:
    """The files that a training writes besides its bundle.

    Attributes:
        report: the path of the HTML report, or None for no report.
        checkpoints: the folder for the state of an interrupted training, or None to keep no state.
        restart: whether to discard that state.
        compare: called with the folder of the bundle; what it returns is part of the report.
    """

    report: Path | None = None
    checkpoints: Path | None = None
    restart: bool = False
    compare: "Callable[[Path], LearnedFromReviews] | None" = None


def train_with_progress(
    data: Path, out: Path, options: "TrainingOptions", side_files: SideFiles | None = None
) -> "Manifest":
    """Train with progress bars and write the bundle to `out`. Raises what `core.vision.train.train` raises."""
    from core.vision.train import train as train_detector

    side_files = side_files or SideFiles()
    with ExitStack() as open_bars:
        bars: dict[str, tqdm[NoReturn]] = {}

        def show(progress: "Progress") -> None:
            if progress.note:
                remark(progress.note)
            if progress.stage not in bars:
                bars[progress.stage] = open_bars.enter_context(progress_bar(progress.stage))
            bar = bars[progress.stage]
            bar.total = progress.total
            loss = f", loss {progress.epoch.validation_loss:.5f}" if progress.epoch else ""
            unit = " (epochs)" if progress.stage == "training" else ""
            bar.set_description_str(progress.stage + unit + loss, refresh=False)
            advance_to(bar, progress.done)

        try:
            manifest = train_detector(
                data,
                out,
                options,
                show,
                report=side_files.report,
                checkpoints=side_files.checkpoints,
                restart=side_files.restart,
                compare=side_files.compare,
            )
        except KeyboardInterrupt:
            if side_files.checkpoints is not None and "training" in bars:
                remark("The same command continues after the last complete epoch; with --restart it starts again.")
            raise
        for bar in bars.values():  # training may end before its last epoch
            bar.update((bar.total or 0) - bar.n)
    return manifest
