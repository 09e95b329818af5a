"""An interrupted training resumes from its checkpoint and gives the same bundle."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.vision.train import Progress, TrainingOptions, train
from core.vision.training.checkpoint import ABANDONED_AFTER_SECONDS, CheckpointFile, fingerprint
from core.vision.training.fit_interface import Epoch

SMALL = TrainingOptions(
    architecture="conv-autoencoder", score_method="z-map", input_size=32, epochs=2, alignment="off", device="cpu"
)
KINDS = {
    "mse": replace(SMALL, score_method="mse"),
    "z-map": SMALL,
    "features": TrainingOptions(architecture="feature-autoencoder", input_size=32, epochs=1, device="cpu"),
}


@pytest.fixture(scope="module")
def good(part: Callable[..., bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty good parts without test images."""
    root = tmp_path_factory.mktemp("good")
    (root / "train" / "good").mkdir(parents=True)
    for seed in range(20):
        (root / "train" / "good" / f"{seed:03}.png").write_bytes(part(seed))
    return root


class Interruption:
    """Raises KeyboardInterrupt after an epoch of the training without a fold; None is that on all images."""

    def __init__(self, fold: int | None, epoch: int) -> None:
        self.point = (fold, epoch)

    def __call__(self, progress: Progress) -> None:
        if progress.epoch is not None and (progress.epoch.fold, progress.epoch.number) == self.point:
            raise KeyboardInterrupt


def interrupted(
    good: Path, tmp_path: Path, options: TrainingOptions, *, fold: int | None = 1, epoch: int | None = None
) -> Path:
    """Interrupt a training, by default after the last epoch of its second fold, and return its checkpoint."""
    interruption = Interruption(fold, epoch or options.epochs)
    with pytest.raises(KeyboardInterrupt):
        train(good, tmp_path / "never", options, interruption, checkpoints=tmp_path / "checkpoints")
    assert not (tmp_path / "never").exists()
    [checkpoint] = (tmp_path / "checkpoints").iterdir()
    return checkpoint


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_training_ends_with_the_same_bundle(good: Path, tmp_path: Path, kind: str) -> None:
    options = KINDS[kind]
    whole_reports: list[Progress] = []
    whole = train(good, tmp_path / "whole", options, whole_reports.append)
    for fold in (0, 2, None):
        interrupted(good, tmp_path, options, fold=fold, epoch=1)
    reports: list[Progress] = []
    resumed = train(good, tmp_path / "resumed", options, reports.append, checkpoints=tmp_path / "checkpoints")
    assert resumed == whole
    assert epochs_of(reports) == epochs_of(whole_reports)
    assert [(epoch.fold, epoch.number) for epoch in epochs_of(reports)] == [
        (fold, number) for fold in (0, 1, 2, None) for number in range(1, options.epochs + 1)
    ]
    assert sum("continues from the checkpoint" in progress.note for progress in reports if progress.note) == 1
    assert not list((tmp_path / "checkpoints").iterdir())


def epochs_of(reports: list[Progress]) -> list[Epoch]:
    return [progress.epoch for progress in reports if progress.epoch]


def test_only_missing_epochs_are_trained(good: Path, tmp_path: Path) -> None:
    checkpoint = interrupted(good, tmp_path, SMALL, fold=1, epoch=1)
    state = torch.load(checkpoint, weights_only=True)
    assert {name: len(part["curve"]) for name, part in state["state"].items()} == {"0": 2, "1": 1}
    state["state"]["0"]["curve"][1]["training_loss"] = 77.0
    state["state"]["1"]["curve"][0]["training_loss"] = 78.0
    torch.save(state, checkpoint)
    reports: list[Progress] = []
    train(good, tmp_path / "resumed", SMALL, reports.append, checkpoints=tmp_path / "checkpoints")
    losses = [epoch.training_loss for epoch in epochs_of(reports)]
    assert losses[1:3] == [77.0, 78.0]
    assert max(losses[3:]) < 1


def test_a_damaged_checkpoint_is_reported_and_training_restarts(good: Path, tmp_path: Path) -> None:
    checkpoint = interrupted(good, tmp_path, SMALL)
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    notes: list[str] = []
    resumed = train(
        good,
        tmp_path / "resumed",
        SMALL,
        lambda progress: notes.append(progress.note or ""),
        checkpoints=tmp_path / "checkpoints",
    )
    assert any("is damaged and not used: training starts afresh" in note for note in notes)
    assert resumed == train(good, tmp_path / "whole", SMALL, lambda _: None)


@pytest.mark.parametrize("kind", ["empty", "rubbish", "other", "foreign", "stateless"])
def test_an_unusable_checkpoint_is_ignored_and_reported(tmp_path: Path, kind: str) -> None:
    notes: list[str] = []
    checkpoint = CheckpointFile(tmp_path, "a" * 64, notes.append)
    match kind:
        case "empty":
            checkpoint.path.write_bytes(b"")
        case "rubbish":
            checkpoint.path.write_bytes(b"rubbish")
        case "other":
            torch.save([1, 2, 3], checkpoint.path)
        case "foreign":
            torch.save({"fingerprint": "b" * 64, "state": {}}, checkpoint.path)
        case _:
            torch.save({"fingerprint": "a" * 64, "state": 3}, checkpoint.path)
    assert checkpoint.read() is None
    assert len(notes) == 1
    assert "training starts afresh" in notes[0]


def test_no_code_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "sprung"),)

    notes: list[str] = []
    checkpoint = CheckpointFile(tmp_path, "a" * 64, notes.append)
    torch.save({"fingerprint": "a" * 64, "state": {"trap": Trap()}}, checkpoint.path)
    assert checkpoint.read() is None
    assert "damaged" in notes[0]
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_is_used_only_by_the_same_training_and_deleted_by_a_restart(good: Path, tmp_path: Path) -> None:
    interrupted(good, tmp_path, SMALL)
    notes: list[str | None] = []

    def record_note(progress: Progress) -> None:
        notes.append(progress.note)

    checkpoints = tmp_path / "checkpoints"
    train(good, tmp_path / "other", replace(SMALL, seed=1), record_note, checkpoints=checkpoints)
    assert len(list(checkpoints.iterdir())) == 1
    train(good, tmp_path / "afresh", SMALL, record_note, checkpoints=checkpoints, restart=True)
    assert not list(checkpoints.iterdir())
    assert not any(note and "checkpoint" in note for note in notes)


def test_checkpoints_are_written_atomically_and_deleted(tmp_path: Path) -> None:
    mine = CheckpointFile(tmp_path, fingerprint({"seed": 1}), lambda _: None)
    assert mine.read() is None
    mine.write({"weights": torch.arange(3.0), "epoch": 1})
    mine.write({"weights": torch.arange(4.0), "epoch": 2})
    content = mine.read()
    assert content is not None
    assert content["epoch"] == 2
    assert torch.equal(content["weights"], torch.arange(4.0))
    assert [path.name for path in tmp_path.iterdir()] == [mine.path.name]
    before = time.time() - ABANDONED_AFTER_SECONDS - 60
    os.utime(mine.path, (before, before))
    other = CheckpointFile(tmp_path, fingerprint({"seed": 2}), lambda _: None)
    assert not mine.path.exists()
    assert other.path != mine.path
