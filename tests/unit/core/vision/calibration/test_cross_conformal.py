"""The promise of a threshold from cross-fitted models, whose final one is fitted on every good part."""

import numpy as np
import pytest
import torch

from core.vision.calibration.calibration import calibrate
from core.vision.detectors.combined import Maximum
from core.vision.detectors.feature_gaussian import FeatureGaussian
from core.vision.detectors.feature_model import FeatureModel
from core.vision.detectors.memory_bank import MemoryBank
from core.vision.training.folds import make_folds
from tests.fixtures.feature_layers import cross_fit, good_layers, held_out_scores, of_images, scores

PARTS, FOLDS, RATE = 32, 8, 0.1
TRAININGS, FRESH = 24, 200


@pytest.mark.parametrize("model", [FeatureGaussian, MemoryBank, Maximum], ids=lambda model: model.name)
def test_fresh_good_parts_are_rejected_about_as_often_as_stated(model: type[FeatureModel]) -> None:
    shares, above = [], 0
    for training in range(TRAININGS):
        layers = good_layers(PARTS, training)
        folds = make_folds(range(PARTS), FOLDS, training)
        fitted = cross_fit(model, layers, folds)
        calibration = calibrate(held_out_scores(fitted, layers, folds).numpy(), RATE)
        fresh = scores(fitted.final, good_layers(FRESH, 1000 + training))
        shares.append(float((fresh.numpy() >= calibration.threshold).mean()))
        above += shares[-1] > calibration.confidence_interval[1]
    # The mean of 24 shares that follow the calibration's Beta distribution has a standard deviation of 1 %. The final
    # model knows more parts than those of the folds, so it rejects a little less.
    expected = calibration.expected_false_reject_rate
    assert expected / 2 < np.mean(shares) < expected + 0.02
    assert above / TRAININGS < 0.1


@pytest.mark.parametrize("model", [FeatureGaussian, MemoryBank, Maximum], ids=lambda model: model.name)
def test_a_threshold_from_the_final_model_s_own_parts_would_be_too_low(model: type[FeatureModel]) -> None:
    """Why the scores come from the folds: the final model knows its parts."""
    layers = good_layers(PARTS, 1)
    folds = make_folds(range(PARTS), FOLDS, 1)
    fitted = cross_fit(model, layers, folds)
    own = calibrate(scores(fitted.final, layers).numpy(), RATE)
    held_out = calibrate(held_out_scores(fitted, layers, folds).numpy(), RATE)
    fresh = scores(fitted.final, good_layers(FRESH, 1001)).numpy()
    assert (fresh >= own.threshold).mean() > 2 * RATE
    assert own.threshold < held_out.threshold


@pytest.mark.parametrize("model", [FeatureGaussian, MemoryBank, Maximum], ids=lambda model: model.name)
def test_shots_of_an_odd_part_are_scored_by_models_that_saw_none_of_them(model: type[FeatureModel]) -> None:
    """The second shot of a part would make the first one look normal."""
    layers = [torch.cat([layer, layer[:1] + 2, layer[:1] + 2.01]) for layer in good_layers(PARTS, 2)]
    odd = [PARTS, PARTS + 1]
    one_group, apart = [*range(PARTS), PARTS, PARTS], range(PARTS + 2)
    held_out = {}
    for name, groups in {"one group": one_group, "apart": apart}.items():
        folds = make_folds(groups, FOLDS, 2)
        assert (folds.labels[PARTS] == folds.labels[PARTS + 1]) == (name == "one group")
        fitted = cross_fit(model, layers, folds)
        held_out[name] = held_out_scores(fitted, layers, folds)[odd]
        final = scores(fitted.final, of_images(layers, odd))
        assert float(final.max()) < 0.8 * float(held_out["one group"].min())
    assert float(held_out["apart"].max()) < 0.8 * float(held_out["one group"].min())
