"""The upper bound of a share is the exact Clopper-Pearson bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from core.rescoring.reports.confidence_bound import upper_confidence_bound


@given(st.integers(1, 2_000_000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_the_bound_is_the_clopper_pearson_bound(sample: tuple[int, int]) -> None:
    count, of = sample
    expected = 1.0 if count == of else stats.beta.ppf(0.95, count + 1, of - count)
    assert upper_confidence_bound(count, of) == pytest.approx(expected, rel=1e-7)


def test_good_parts_without_a_reject_needed_to_show_half_a_percent() -> None:
    assert upper_confidence_bound(0, 597) > 0.005 > upper_confidence_bound(0, 598)


def test_an_empty_sample_has_no_bound() -> None:
    assert upper_confidence_bound(0, 0) == 1
