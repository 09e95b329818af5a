"""`--architecture auto`: what is tried, what is chosen, and what the bundle and the report say about it."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.vision.bundle.folder import read_folder
from core.vision.bundle.golden import check_golden
from core.vision.bundle.loading import load_detector
from core.vision.bundle.manifest import TRIALS, Manifest
from core.vision.detectors.pooling import POOLINGS
from core.vision.progress import Progress
from core.vision.selection.exploration import Exploration, Task
from core.vision.selection.setup import Setup, choose_setup
from core.vision.selection.trial import EQUAL, Trial
from core.vision.train import train
from core.vision.training.checkpoint import CheckpointFile
from core.vision.training_data import read_training_data
from core.vision.training_options import InvalidOptions, TrainingOptions
from tests.fixtures.html_pages import Page

HURRIED = TrainingOptions(
    architecture="auto",
    input_size=32,
    epochs=1,
    device="cpu",
    pose="as-is",
    alignment="off",
    budget_seconds=1e-3,
    max_ms=10_000.0,
)
"""In so little time, only the fits and the poolings of one input size are tried."""
ALWAYS_TRIED = {"feature-gaussian", "memory-bank", "combined-maximum", "combined-mean"}


@pytest.fixture(scope="module", autouse=True)
def _few_synthetic_defects() -> Iterator[None]:
    """Draw a quarter of the usual synthetic defects, to be quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.vision.selection.setup._DEFECTS_PER_KIND", 6)
        yield


@pytest.fixture
def _no_autoencoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no time for autoencoders, which take most of it."""
    monkeypatch.setattr("core.vision.selection.setup._AUTOENCODER_SHARE", -1.0)


@pytest.fixture(scope="module")
def parts(part: Callable[..., bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 good parts of 64 × 64 pixels to train on, and test images."""
    root = tmp_path_factory.mktemp("auto")
    for kind, seeds in {"train/good": range(24), "test/good": range(24, 30), "test/scratch": range(30, 36)}.items():
        (root / kind).mkdir(parents=True)
        for seed in seeds:
            (root / kind / f"{seed:03}.png").write_bytes(part(seed, side=64, defective=kind == "test/scratch"))
    return root


@pytest.fixture(scope="module")
def untested(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same good parts without test images."""
    root = tmp_path_factory.mktemp("untested")
    (root / "train").symlink_to(parts / "train")
    return root


def chosen(folder: Path, options: TrainingOptions) -> tuple[Setup, list[str]]:
    """Return the choice for a folder, and its notes."""
    notes: list[str] = []

    def on_progress(progress: Progress) -> None:
        if progress.stage == "choosing":
            assert 0 <= progress.done <= progress.total
            notes.extend([progress.note] if progress.note else [])

    data = read_training_data(folder, options, on_progress)
    return choose_setup(data, options, "cpu", on_progress), notes


@pytest.fixture(scope="module")
def trained(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest, list[str]]:
    """The bundle's folder, with its report beside it, its manifest, and the notes of the training."""
    out = tmp_path_factory.mktemp("bundles") / "auto"
    notes: list[str] = []
    manifest = train(
        parts,
        out,
        replace(HURRIED, choose_by="test"),
        lambda progress: notes.extend([progress.note] if progress.note else []),
        report=out.with_suffix(".html"),
    )
    return out, manifest, notes


def test_the_bundle_is_of_the_chosen_detector_and_lists_what_was_tried(
    trained: tuple[Path, Manifest, list[str]],
) -> None:
    out, manifest, notes = trained
    files = read_folder(out)
    check_golden(load_detector(files, device="cpu", max_pixels=10**6), files)
    tried: list[dict[str, Any]] = json.loads(files[TRIALS])
    assert {(trial["architecture"], trial["pooling"]) for trial in tried} == {
        (architecture, pooling) for architecture in ALWAYS_TRIED for pooling in POOLINGS
    }
    first = tried[0]
    assert f"of {len(tried)} candidates, {first['description']} was chosen" in notes
    assert manifest.architecture.name == first["architecture"]
    assert manifest.architecture.settings["pooling"] == first["pooling"]
    assert manifest.preprocessing.model_dump(mode="json").items() >= first["preprocessing"].items()
    for trial in tried:
        assert 0 <= trial["caught"] <= 1
        assert trial["milliseconds"] > 0
        assert max(trial["auroc"], trial["partial_auroc"], trial["test_auroc"]) <= 1


def test_the_bundle_says_that_it_was_chosen_by_the_images_in_test(trained: tuple[Path, Manifest, list[str]]) -> None:
    out, manifest, _ = trained
    assert manifest.training is not None
    options = manifest.training.options
    assert (options["choose_by"], options["architecture"]) == ("test", manifest.architecture.name)
    tried = json.loads(read_folder(out)[TRIALS])
    assert tried[0]["test_auroc"] > max(trial["test_auroc"] for trial in tried) - EQUAL
    calibration, metrics = manifest.threshold.calibration, manifest.metrics
    assert calibration is not None
    assert metrics is not None
    assert calibration.defective == metrics.defective


def test_the_report_has_a_table_of_what_was_tried(trained: tuple[Path, Manifest, list[str]]) -> None:
    out, _, _ = trained
    text = out.with_suffix(".html").read_text()
    Page(text)
    assert "<h2>What was tried</h2>" in text
    assert "The first row was chosen by the images in test/" in text
    assert "AUROC, test/" in text
    for number, trial in enumerate(json.loads(read_folder(out)[TRIALS])):
        row = f'<td>{trial["description"]}</td><td class="n">{trial["partial_auroc"]:.3f}</td>'
        assert row in text
        assert (f'<tr class="own">{row}' in text) == (number == 0)


def test_good_parts_alone_suffice_to_choose_by(untested: Path) -> None:
    setup, notes = chosen(untested, HURRIED)
    assert setup.options.architecture in ALWAYS_TRIED
    assert setup.options.pooling in POOLINGS
    assert (setup.preprocessing.width, setup.preprocessing.height) == (32, 32)
    assert {trial.test_auroc for trial in setup.trials} == {None}
    assert (
        0.5 < max(trial.auroc for trial in setup.trials) < 1
    )  # synthetic defects are hard enough to tell detectors apart
    best = max(trial.partial_auroc for trial in setup.trials)
    assert setup.trials[0].partial_auroc > best - EQUAL
    assert notes[-1].startswith("of 16 candidates, ")


def test_choosing_by_test_images_needs_some(untested: Path) -> None:
    with pytest.raises(InvalidOptions, match="add test/good and test/<type>, or choose by synthetic"):
        chosen(untested, replace(HURRIED, choose_by="test"))


def test_the_same_seed_tries_the_same_with_the_same_results(untested: Path) -> None:
    def results(options: TrainingOptions) -> list[tuple[str, float, float]]:
        trials = chosen(untested, options)[0].trials
        return sorted((trial.candidate.description, trial.auroc, trial.caught) for trial in trials)

    assert results(HURRIED) == results(HURRIED)
    assert results(HURRIED) != results(replace(HURRIED, seed=1))


def test_with_time_a_stronger_backbone_and_autoencoders_are_tried_too(untested: Path) -> None:
    setup, _ = chosen(untested, replace(HURRIED, budget_seconds=3600.0))
    tried = {
        (trial.candidate.architecture, trial.candidate.backbone, trial.candidate.any_position) for trial in setup.trials
    }
    lite0, lite2 = "efficientnet-lite0", "efficientnet-lite2"
    assert tried == {
        *((architecture, backbone, False) for architecture in ALWAYS_TRIED for backbone in (lite0, lite2)),
        *(("feature-autoencoder", lite0, any_position) for any_position in (False, True)),
    }


@pytest.mark.usefixtures("_no_autoencoders")
def test_what_the_options_fix_is_not_chosen(untested: Path) -> None:
    options = replace(HURRIED, budget_seconds=3600.0, backbone="efficientnet-lite0", pooling=0.1)
    setup, _ = chosen(untested, options)
    assert {trial.candidate.backbone for trial in setup.trials} == {"efficientnet-lite0"}
    assert {trial.candidate.pooling for trial in setup.trials} == {0.1}
    assert (setup.options.input_size, setup.options.pooling) == (32, 0.1)
    fixed = replace(options, architecture="memory-bank")
    setup, notes = chosen(untested, fixed)
    assert (setup.options, setup.trials, notes) == (fixed, (), [])


@pytest.fixture
def _small_sides(_no_autoencoders: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small input sizes in place of 256, 384 and 512; the images have 64 pixels."""
    monkeypatch.setattr("core.vision.selection.setup.SIDES", (32, 48, 64, 128))


def sides_of(trials: Sequence[Trial]) -> set[int]:
    return {trial.candidate.side for trial in trials}


@pytest.mark.usefixtures("_small_sides")
def test_sizes_that_the_images_do_not_fill_are_not_tried(untested: Path) -> None:
    options = replace(HURRIED, input_size=None, budget_seconds=3600.0, backbone="efficientnet-lite0", pooling=0.0)
    setup, notes = chosen(untested, options)
    assert sides_of(setup.trials) == {32, 48, 64}
    assert len(notes) == 1  # only the choice
    assert setup.options.input_size == setup.trials[0].candidate.side


@pytest.mark.usefixtures("_small_sides")
def test_what_the_budget_leaves_no_time_for_is_noted(untested: Path) -> None:
    setup, notes = chosen(untested, replace(HURRIED, input_size=None))
    assert sides_of(setup.trials) == {32}
    assert notes[:-1] == [f"there was no time left to try {side} pixels: allow more with --budget" for side in (48, 64)]


@pytest.mark.usefixtures("_small_sides")
def test_sizes_that_take_too_long_for_an_image_are_noted_and_the_fastest_detector_is_chosen(untested: Path) -> None:
    setup, notes = chosen(untested, replace(HURRIED, input_size=None, budget_seconds=3600.0, max_ms=1e-3))
    assert sides_of(setup.trials) == {32}
    for side, note in zip((48, 64), notes[:-1], strict=True):
        assert note.startswith(f"{side} pixels were not tried, because one image takes ")
    assert setup.trials[0].milliseconds == min(trial.milliseconds for trial in setup.trials)


class Interruption(Exception):  # noqa: N818 - not a fault
    """Ends a choice early."""


@pytest.mark.usefixtures("_small_sides")
def test_an_interrupted_choice_repeats_no_trial_and_counts_the_time_that_they_took(
    untested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(HURRIED, input_size=None, budget_seconds=3600.0, backbone="efficientnet-lite0", pooling=0.0)

    def notes(_: Progress) -> None:
        pass

    def interrupt(progress: Progress) -> None:
        if progress.stage == "choosing" and progress.done == 2:
            raise Interruption

    data = read_training_data(untested, options, notes)
    with pytest.raises(Interruption):
        choose_setup(data, options, "cpu", interrupt, CheckpointFile(tmp_path, "choice", print))
    explored: list[int] = []

    class Watched(Exploration):
        def __init__(self, task: Task, *, max_pixels: int) -> None:
            explored.append(task.side)
            super().__init__(task, max_pixels=max_pixels)

    monkeypatch.setattr("core.vision.selection.setup.Exploration", Watched)
    continued = choose_setup(data, options, "cpu", notes, CheckpointFile(tmp_path, "choice", print))
    assert explored == [64]
    explored.clear()
    afresh = choose_setup(data, options, "cpu", notes)
    assert explored == [32, 48, 64]

    def results(setup: Setup) -> set[tuple[str, float]]:
        return {(trial.candidate.description, round(trial.auroc, 6)) for trial in setup.trials}

    assert results(continued) == results(afresh)
    hurried = replace(options, budget_seconds=1e-3)  # spent by the finished trials
    kept = choose_setup(data, hurried, "cpu", notes, CheckpointFile(tmp_path, "choice", print))
    assert sides_of(kept.trials) == {32}
