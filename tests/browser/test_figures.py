"""Figures of the page: digits that keep different values apart, and one form for each kind of figure."""

from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.shown_figures import shown_apart, shown_number, shown_percent, shown_ratio

THRESHOLD = 0.01928
SCORES = [
    0.0,
    0.0154,
    0.01523,
    0.0192,
    0.01921,
    0.0192796,
    0.01928 - 1e-9,
    0.01928,
    0.0192804,
    0.0193,
    0.0271,
    1.5,
    40.0,
]


@pytest.fixture
def formats(page: Page) -> Page:
    page.goto("/system")
    return page


def shown(page: Page, function: str, *arguments: Any) -> Any:
    """What a function of `format.js` returns on the page."""
    script = "([name, values]) => import('/static/app/format.js').then((format) => format[name](...values))"
    return page.evaluate(script, [function, list(arguments)])


def test_no_figure_is_rounded_across_the_threshold(formats: Page) -> None:
    for score in SCORES:
        texts = shown(formats, "apart", score, THRESHOLD)
        assert texts == shown_apart(score, THRESHOLD)
        ratio = shown(formats, "ratio", score, THRESHOLD)
        assert ratio == shown_ratio(score, THRESHOLD)
        if score == THRESHOLD:
            assert (texts[0], ratio) == (texts[1], "1.00 ×")
        else:
            assert float(ratio.strip("<> ×").replace(",", "")) != 1 or ratio[0] == "<>"[score > THRESHOLD]
    assert shown(formats, "apart", 0.0192796, THRESHOLD) == ["0.0192796", "0.01928"]
    assert shown(formats, "apart", None, THRESHOLD) == ["–", "0.01928"]
    assert [shown(formats, "ratio", score, 1) for score in (0.8, 0.79, 0.995, 0.996, 1.004, 1.35)] == [
        "0.80 ×",
        "0.79 ×",
        "0.995 ×",
        "0.996 ×",
        "1.004 ×",
        "1.35 ×",
    ]
    assert shown(formats, "ratio", 1 - 1e-12, 1) == "< 1 ×"
    assert shown(formats, "ratio", 1 + 1e-12, 1) == "> 1 ×"
    assert shown(formats, "ratio", 1, 0) == "–"


def test_numbers_and_shares_are_short(formats: Page) -> None:
    for value in (0.0, 0.01928, 0.015235, 1.5, 12.3456, 1234.5, 98765.4):
        assert shown(formats, "number", value) == shown_number(value)
    for share in (0.0, 0.0015, 0.0512, 0.145, 1.0):
        assert shown(formats, "percent", share) == shown_percent(share)


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [
        ("numberIn", 0.0176, 0.0177),
        ("numberIn", 0, 2),
        ("numberIn", 0, 300),
        ("percentIn", 0, 0.002),
        ("percentIn", 0, 1),
    ],
)
def test_the_marks_of_an_axis_differ(formats: Page, function: str, low: float, high: float) -> None:
    marks = [low + quarter * (high - low) / 4 for quarter in range(5)]
    texts = [shown(formats, function, mark, high - low) for mark in marks]
    assert len(set(texts)) == 5
    scale = 100 if function == "percentIn" else 1
    assert [float(text.rstrip("%")) / scale for text in texts] == pytest.approx(marks)


def test_a_period_begins_at_midnight_also_after_the_clocks_changed(formats: Page) -> None:
    formats.clock.set_fixed_time("2026-10-28T09:00:00+01:00")  # three days after the end of summer time
    assert shown(formats, "startOfDay", 0) == "2026-10-27T23:00:00.000Z"
    assert shown(formats, "startOfDay", 6) == "2026-10-21T22:00:00.000Z"
