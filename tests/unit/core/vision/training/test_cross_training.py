"""Networks for each fold and one for all images; an interruption changes nothing."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from core.vision.detectors.architecture import WEIGHTS
from core.vision.detectors.autoencoder import AutoencoderDetector
from core.vision.input.record import Preprocessing
from core.vision.training.cross_fitted import CrossFitted
from core.vision.training.cross_training import FoldTraining, cross_train
from core.vision.training.fit_interface import Epoch, FitOptions
from core.vision.training.folds import Folds, make_folds
from tests.fixtures.prepared_images import CheckpointInMemory, ImagesInMemory

IMAGES, SIDE = 9, 16
FOLDS = make_folds(range(IMAGES), 3, seed=0)
OPTIONS = FitOptions(epochs=2)
EPOCHS = [(fold, number) for fold in (0, 1, 2, None) for number in (1, 2)]


def measured(folds: Folds, epochs: int) -> tuple[CrossFitted[list[int]], list[Epoch], list[list[int]]]:
    """Cross-train "networks" that are the list of their images; the loss of an image is its index times the epoch."""
    seen: list[Epoch] = []
    validated: list[list[int]] = []

    def train(task: FoldTraining) -> list[int]:
        current = 0

        def loss(images: Sequence[int]) -> float:
            validated.append(list(images))
            return float(np.mean(images)) * current

        validate = task.validation(loss)
        for number in range(1, epochs + 1):
            current = number
            task.on_epoch(Epoch(number, 0.0, validate(number)))
        return task.training

    return cross_train(folds, train, epochs, seen.append, None), seen, validated


def test_each_network_is_trained_without_its_fold_and_the_final_one_on_all_images() -> None:
    fitted, _, validated = measured(FOLDS, epochs=1)
    assert fitted.final == list(range(IMAGES))
    assert list(fitted.held_out) == [FOLDS.training(fold) for fold in range(3)]
    assert validated == [FOLDS.held_out(fold) for fold in range(3)]


def test_the_validation_loss_of_the_final_network_is_the_mean_of_the_folds_after_the_same_epoch() -> None:
    _, epochs, _ = measured(FOLDS, epochs=2)
    assert [(epoch.fold, epoch.number) for epoch in epochs] == EPOCHS
    for number in (1, 2):
        of_folds = [float(np.mean(FOLDS.held_out(fold))) * number for fold in range(3)]
        found = [epoch.validation_loss for epoch in epochs if epoch.number == number]
        assert found == pytest.approx([*of_folds, np.mean(of_folds)])


@pytest.fixture(scope="module")
def images() -> ImagesInMemory:
    return ImagesInMemory(np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8))


def fit(
    images: ImagesInMemory, on_epoch: Callable[[Epoch], None], checkpoint: CheckpointInMemory | None
) -> CrossFitted[AutoencoderDetector]:
    preprocessing = Preprocessing(width=SIDE, height=SIDE, scaled_decode=False)
    return AutoencoderDetector.cross_fit(
        images, FOLDS, preprocessing, OPTIONS, device="cpu", max_pixels=10**6, on_epoch=on_epoch, checkpoint=checkpoint
    )


def weights(fitted: CrossFitted[AutoencoderDetector]) -> list[bytes]:
    return [detector.save()[WEIGHTS] for detector in (fitted.final, *fitted.held_out)]


@pytest.fixture(scope="module")
def uninterrupted(images: ImagesInMemory) -> tuple[list[bytes], list[Epoch]]:
    epochs: list[Epoch] = []
    return weights(fit(images, epochs.append, None)), epochs


@pytest.mark.parametrize("interrupted_after", EPOCHS)
def test_an_interruption_after_any_epoch_of_any_fold_changes_no_weight(
    images: ImagesInMemory,
    uninterrupted: tuple[list[bytes], list[Epoch]],
    interrupted_after: tuple[int | None, int],
) -> None:
    checkpoint = CheckpointInMemory()

    def interrupt(epoch: Epoch) -> None:
        if (epoch.fold, epoch.number) == interrupted_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(images, interrupt, checkpoint)
    epochs: list[Epoch] = []
    resumed = fit(images, epochs.append, checkpoint)
    assert (weights(resumed), epochs) == uninterrupted


def test_no_weight_depends_on_the_images_of_the_fold(images: ImagesInMemory) -> None:
    before = weights(fit(images, lambda _: None, None))
    for fold in range(FOLDS.count):
        changed = images.images.copy()
        changed[FOLDS.held_out(fold)] = 255 - changed[FOLDS.held_out(fold)]
        after = weights(fit(ImagesInMemory(changed), lambda _: None, None))
        unchanged = [number for number in range(FOLDS.count) if after[number + 1] == before[number + 1]]
        assert unchanged == [fold]
        assert after[0] != before[0]  # the final network is trained on them
