"""The program that trains, `python -m worker.training_runs.program REQUEST.json`: a child process of the worker.

It computes with a low priority, so that it takes the time that the line leaves, and it is the first to end if memory
runs out. It knows neither the database nor Redis. It writes its progress and its outcome to standard output, one JSON
object a line, and ends when its standard input does, because then its worker has ended.
"""

import contextlib
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from core.vision.bundle.manifest import Manifest
from core.vision.detectors.device import is_out_of_memory, resolve_device
from core.vision.detectors.registry import default_architecture
from core.vision.evaluation.comparison import Comparison, LearnedFromReviews
from core.vision.reviewed_parts.comparison import NewVersion, PastInspection, Prepared, compare
from core.vision.train import Progress, train
from core.vision.training.dataset import in_parallel
from core.vision.training_options import TrainingOptions
from worker.training_runs.data_folder import DataFolder, make_data_folder
from worker.training_runs.files import BUNDLE, CHECKPOINTS, REPORT
from worker.training_runs.run_image import RunImage

log = logging.getLogger(__name__)

REPORT_SECONDS = 0.2
"""Progress is written at most this often, except for new stages, notes and epochs."""

_OPTION = re.compile(r"--([a-z]+(?:-[a-z]+)*)")
_OPTIONS = {"budget": "budget_seconds"}

Send = Callable[[Mapping[str, Any]], None]


class _Reporter:
    """Sends the progress of the training."""

    def __init__(self, send: Send, *folders: Path) -> None:
        """`folders` are left out of notes."""
        self._send = send
        self._folders = folders
        self._stage = ""
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        self.report(
            progress.stage,
            progress.done,
            progress.total,
            note=None if progress.note is None else for_people(progress.note, *self._folders),
            epoch=None if progress.epoch is None else asdict(progress.epoch),
        )

    def report(self, stage: str, done: int, total: int, **more: Any) -> None:
        """Send one line, unless the last one is recent and this one says little more."""
        further = {name: value for name, value in more.items() if value is not None}
        now = time.monotonic()
        if stage == self._stage and not further and now < self._next and done < total:
            return
        self._stage, self._next = stage, now + REPORT_SECONDS
        self._send({"stage": stage, "done": done, "total": total, **further})


def for_people(text: str, *folders: Path) -> str:
    """Return one line without the paths of folders, inner ones first, and with options named as in the request."""
    for folder in folders:
        text = text.replace(f"{folder}/", "").replace(str(folder), folder.name)
    return _OPTION.sub(lambda match: _OPTIONS.get(match[1], match[1].replace("-", "_")), " ".join(text.split()))


def run_training(request: Mapping[str, Any], send: Send) -> dict[str, Any]:
    """Train as requested, and return the outcome: `completed` with the result, or `failed` with the reason.

    Args:
        request: `recipe`, `images`, `options`, `device`, `max_pixels`, `past` (inspections to compare with), `folder`
            (of the run) and `attempt` (the folder of this attempt).
    """
    root = Path(request["attempt"], "data", request["recipe"])
    folders = (root, Path(request["folder"]))
    try:
        return {"completed": _train(request, root, _Reporter(send, *folders))}
    except (ValueError, OSError) as error:
        reason = str(error)
    except Exception as error:  # a bug, or too little memory
        log.exception("the training failed")
        reason = f"{type(error).__name__}: {error}; see the log of the training worker"
        if is_out_of_memory(error):
            reason = f"there is too little memory for this training: {error}"
    return {"failed": for_people(reason, *folders)}


def _train(request: Mapping[str, Any], root: Path, report: _Reporter) -> dict[str, Any]:
    chosen = dict(request["options"])
    seed = chosen.get("seed", TrainingOptions.seed)
    images = [RunImage(**image) for image in request["images"]]
    folder = make_data_folder(
        images, root, group_by=chosen.pop("group_by", None), seed=seed, progress=partial(report.report, "grouping")
    )
    for note in folder.notes:
        report.report("reading", 0, len(images), note=note)
    if folder.can_judge:
        chosen.setdefault("choose_by", "test")
    chosen.setdefault("architecture", default_architecture(chosen.get("backbone")))
    device = resolve_device(request["device"])
    options = TrainingOptions(device=device, max_pixels=request["max_pixels"], group_by=folder.group_by, **chosen)
    comparisons: list[Comparison] = []
    manifest = train(
        root,
        Path(request["attempt"], BUNDLE),
        options,
        report,
        report=Path(request["attempt"], REPORT),
        checkpoints=Path(request["folder"], CHECKPOINTS),
        compare=partial(_compare, request, folder, device, report, comparisons),
    )
    return _result(manifest, comparisons[0] if comparisons else None)


def _compare(
    request: Mapping[str, Any],
    folder: DataFolder,
    device: str,
    report: _Reporter,
    comparisons: list[Comparison],
    bundle: Path,
) -> LearnedFromReviews:
    """Compare the new bundle with past inspections if there are any."""
    past = request["past"]
    if past:
        version = NewVersion(bundle, device=device)
        progress = partial(report.report, "comparing", total=len(past))
        comparisons.append(compare(_prepared(past, version), version, trained_on=folder.trained_on, progress=progress))
    return LearnedFromReviews(folder.notes, comparisons[0] if comparisons else None)


def _prepared(past: list[dict[str, Any]], version: NewVersion) -> Iterator[Prepared]:
    def prepare(one: dict[str, Any]) -> Prepared:
        inspection = PastInspection(one["id"], one["sha256"], one["verdict"], one["reviewed"])
        try:
            return inspection, version.prepare(Path(one["path"]).read_bytes())
        except OSError:
            return inspection, None

    yield from in_parallel(prepare, past)


def _result(manifest: Manifest, comparison: Comparison | None) -> dict[str, Any]:
    """The fields of `core.training_runs.documents.TrainingResult` that the training knows."""
    found = manifest.detectability
    return {
        "architecture": manifest.architecture.name,
        "threshold": manifest.threshold.value,
        "statement": found.statement if found else [],
        "fit_for_use": found.fit_for_use if found else None,
        "reasons": found.reasons if found else [],
        "advice": found.advice if found else [],
        "comparison": comparison.to_document() if comparison else None,
    }


def _yield_to_the_line(niceness: int) -> None:
    """Take the computing time that other processes leave, and be the first to end if memory runs out."""
    os.nice(niceness)
    for setting, value in (("autogroup", niceness), ("oom_score_adj", 1000)):
        # Linux may group processes by session, and then compares the priorities of groups. Not every system has these.
        with contextlib.suppress(OSError):
            Path("/proc/self", setting).write_text(str(value))


def _end_with_parent() -> None:
    """End this process as soon as standard input does."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def main() -> None:
    """Train, with what others print sent to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    request = json.loads(Path(sys.argv[1]).read_bytes())
    _yield_to_the_line(request["niceness"])
    _end_with_parent()

    def send(line: Mapping[str, Any]) -> None:
        print(json.dumps(line), file=answers, flush=True)

    send(run_training(request, send))


if __name__ == "__main__":
    main()
