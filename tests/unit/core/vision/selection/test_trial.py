"""The choice among trials: the best AUROC within the time, and the fastest of equally good ones."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.vision.input.record import Preprocessing
from core.vision.selection.trial import EQUAL, Candidate, Trial, by_quality, choose

rates = st.floats(0, 1)
milliseconds = st.floats(0.1, 100)


def trial(auroc: float, ms: float, test_auroc: float | None = None, *, side: int = 256) -> Trial:
    preprocessing = Preprocessing(width=side, height=side, scaled_decode=True)
    candidate = Candidate("memory-bank", "efficientnet-lite0", side, preprocessing, 0.005)
    return Trial(candidate, auroc, auroc, 0.5, test_auroc, ms)


trials = st.lists(st.builds(trial, rates, milliseconds, rates), min_size=1, max_size=12)


@given(tried=trials, by_test=st.booleans(), max_ms=milliseconds)
def test_no_other_trial_in_time_is_clearly_better_or_equally_good_and_faster(
    tried: list[Trial], by_test: bool, max_ms: float
) -> None:
    chosen = choose(tried, by_test=by_test, max_ms=max_ms)
    in_time = [each for each in tried if each.milliseconds <= max_ms]
    if not in_time:
        assert chosen.milliseconds == min(each.milliseconds for each in tried)
        return
    assert chosen in in_time
    best = max(each.quality(by_test=by_test) for each in in_time)
    assert chosen.quality(by_test=by_test) > best - EQUAL
    for other in in_time:
        if other.milliseconds < chosen.milliseconds:
            assert other.quality(by_test=by_test) <= best - EQUAL


def test_the_fastest_of_equally_good_trials_is_chosen() -> None:
    slow_and_best, fast, faster_but_worse = trial(0.950, 30), trial(0.947, 12), trial(0.944, 5)
    assert choose([slow_and_best, fast, faster_but_worse], by_test=False, max_ms=40) is fast
    assert choose([slow_and_best, fast, faster_but_worse], by_test=False, max_ms=10) is faster_but_worse


def test_images_in_test_decide_only_if_they_are_asked_to() -> None:
    by_synthetic, by_real = trial(0.9, 10, 0.6), trial(0.7, 10, 0.8)
    assert choose([by_synthetic, by_real], by_test=False, max_ms=40) is by_synthetic
    assert choose([by_synthetic, by_real], by_test=True, max_ms=40) is by_real


@given(tried=trials, by_test=st.booleans(), max_ms=milliseconds)
def test_people_see_the_chosen_trial_first_and_then_the_best(tried: list[Trial], by_test: bool, max_ms: float) -> None:
    ordered = by_quality(tried, by_test=by_test, max_ms=max_ms)
    assert ordered[0] is choose(tried, by_test=by_test, max_ms=max_ms)
    assert sorted(map(id, ordered)) == sorted(map(id, tried))
    qualities = [each.quality(by_test=by_test) for each in ordered[1:]]
    assert qualities == sorted(qualities, reverse=True)


def test_a_trial_is_described_for_people_and_as_json() -> None:
    tried = trial(0.9, 12.5, side=384)
    assert tried.candidate.description == "memory-bank, 384 px, as-is, top-0.5-percent"
    document = json.loads(json.dumps(tried.document(), allow_nan=False))
    assert document["description"] == tried.candidate.description
    assert (document["architecture"], document["pooling"]) == ("memory-bank", 0.005)
    assert document["preprocessing"]["width"] == 384
    assert (document["auroc"], document["caught"], document["test_auroc"]) == (0.9, 0.5, None)
    assert document["milliseconds"] == 12.5


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"backbone": "efficientnet-lite2"}, "memory-bank, efficientnet-lite2, 256 px, as-is, top-0.5-percent"),
        (
            {"architecture": "feature-autoencoder", "any_position": True, "pooling": 0.0},
            "feature-autoencoder, any position, 256 px, as-is, maximum",
        ),
    ],
)
def test_the_description_names_what_is_unusual(changes: dict[str, object], expected: str) -> None:
    preprocessing = Preprocessing(width=256, height=256, scaled_decode=True)
    usual: dict[str, object] = {
        "architecture": "memory-bank",
        "backbone": "efficientnet-lite0",
        "side": 256,
        "preprocessing": preprocessing,
        "pooling": 0.005,
    }
    assert Candidate(**{**usual, **changes}).description == expected  # type: ignore[arg-type]
