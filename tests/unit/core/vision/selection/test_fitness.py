"""When a model version is not fit for use."""

import pytest

from core.vision.bundle.manifest import Metrics
from core.vision.selection.fitness import Obvious, judge


def metrics(recall: float, *, defective: int = 119) -> Metrics:
    return Metrics(
        good=40,
        defective=defective,
        auroc=0.7,
        auroc_interval=(0.6, 0.8),
        controls={},
        false_reject_rate=0.01,
        recall=recall,
    )


@pytest.mark.parametrize(("caught", "fit"), [(0, False), (19, False), (20, True), (40, True)])
def test_half_of_the_obvious_defects_must_be_caught(caught: int, fit: bool) -> None:
    fitness = judge(Obvious(caught, 40, 0.7), None)
    assert fitness.fit is fit
    assert bool(fitness.reasons) is bool(fitness.advice) is not fit


@pytest.mark.parametrize(
    ("recall", "defective", "fit"), [(1 / 119, 119, False), (0.1, 119, True), (0.0, 9, True), (0.0, 10, False)]
)
def test_real_defects_count_too(recall: float, defective: int, fit: bool) -> None:
    assert judge(Obvious(40, 40, 1.0), metrics(recall, defective=defective)).fit is fit


@pytest.mark.parametrize(("recall", "defective", "fit"), [(0.5, 10, True), (0.4, 119, False), (1.0, 9, False)])
def test_enough_real_defects_outweigh_synthetic_ones(recall: float, defective: int, fit: bool) -> None:
    assert judge(Obvious(0, 40, 0.5), metrics(recall, defective=defective)).fit is fit


def test_the_reasons_are_exact() -> None:
    assert judge(Obvious(3, 40, 0.6), metrics(1 / 119)).reasons == [
        "it catches only 3 of 40 large, strong synthetic spots and scratches",
        "it catches only 1 of the 119 defective parts in test/",
    ]


def test_the_advice_depends_on_the_cause() -> None:
    blind = " ".join(judge(Obvious(3, 40, 0.6), None).advice)
    for remedy in ("--pose upright", "--input-size", "light", "more good parts"):
        assert remedy in blind
    strict = " ".join(judge(Obvious(3, 40, 0.97), None).advice)
    for remedy in ("good parts that look worst", "--false-reject-rate", "more good parts"):
        assert remedy in strict
    assert "--pose" not in strict
