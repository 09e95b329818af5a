"""The Beta distribution is that of scipy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from core import beta_distribution

parameters = st.floats(0.5, 20_000)


@given(st.floats(0, 1), parameters, parameters)
def test_the_cdf_is_that_of_scipy(x: float, a: float, b: float) -> None:
    assert beta_distribution.cdf(x, a, b) == pytest.approx(stats.beta.cdf(x, a, b), rel=1e-7, abs=1e-9)


@given(st.sampled_from([0.005, 0.025, 0.5, 0.95, 0.975]), parameters, parameters)
def test_quantiles_are_those_of_scipy(probability: float, a: float, b: float) -> None:
    assert beta_distribution.quantile(probability, a, b) == pytest.approx(stats.beta.ppf(probability, a, b), rel=1e-6)


def test_values_outside_the_range_are_certain() -> None:
    assert [beta_distribution.cdf(x, 2.0, 3.0) for x in (-1, 0, 1, 2)] == [0, 0, 1, 1]
