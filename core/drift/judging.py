"""The rules that judge a day: none, watch or drift, with the reasons in words.

Each test of a day has an effect that it must reach, so that large numbers of parts do not make a small change a drift,
and a level that chance must not reach, so that few parts do not. Without drift, all tests together say `watch` on at
most one day in 100 by chance, and `drift` on one in 1000: each of the five gets a fifth (Bonferroni). That holds for
parts that are independent; parts of one lot are alike, which is why the effects matter more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from core.drift.distributions import Comparison, Histogram
from core.drift.documents import InputDrift, Light, NgRate, Quantiles, Rate, Rule, ScoreDrift
from core.drift.grids import GRIDS, INPUTS, Measure
from core.rescoring.reports.confidence_bound import upper_confidence_bound

MIN_PARTS = 50
_TESTS = 5  # the scores, the ng rate, and three measurements
WATCH_BY_CHANCE = 0.01 / _TESTS
DRIFT_BY_CHANCE = 0.001 / _TESTS
PSI_WATCH, PSI_DRIFT = 0.1, 0.25
OUTSIDE_WATCH, OUTSIDE_DRIFT = 0.01, 0.05
NG_FACTOR = 2.0

_LIGHTS: Final[tuple[Light, ...]] = ("none", "watch", "drift")

RULES: Final = [
    Rule(
        judges="day",
        rule=f"A day has the worst light of its scores, ng rate and inputs. Days with fewer than {MIN_PARTS} parts are "
        "not judged. Without drift, chance makes a day `watch` at most once in 100 days and `drift` once in 1000, if "
        "its parts are independent.",
        source="Linewatch; a fifth of these probabilities for each of the five tests (Bonferroni)",
    ),
    Rule(
        judges="scores",
        rule=f"watch from a PSI of {PSI_WATCH}, drift from {PSI_DRIFT}, over quantile bins of the reference; but only "
        "if PSI and KS are both above what chance reaches with this number of parts.",
        source="limits of the PSI: N. Siddiqi, Credit Risk Scorecards, Wiley 2006. PSI by chance: Yurdakul & Naranjo, "
        "Journal of Risk Model Validation 14(4), 2020. KS by chance: Smirnov, Annals of Mathematical Statistics 19, "
        "1948",
    ),
    Rule(
        judges="ng_rate",
        rule=f"watch if the whole 99.8 % interval of the ng rate is above {NG_FACTOR:g} times the highest rate, or "
        f"below the lowest rate divided by {NG_FACTOR:g}, that is expected by the interval of the expected false-"
        "reject rate or by that of the ng rate on the reference days. Never drift: the parts may have changed.",
        source="Linewatch; intervals: Clopper & Pearson, Biometrika 26, 1934",
    ),
    Rule(
        judges="inputs",
        rule=f"watch if surely more than {OUTSIDE_WATCH:.0%}, drift if more than {OUTSIDE_DRIFT:.0%}, of the images "
        "are outside the range of the training images: the lower end of the interval of that share is above the limit.",
        source="Linewatch; the ranges hold 99 % of the training images, widened by three robust standard deviations or "
        "more (`inputs` of the manifest)",
    ),
    Rule(
        judges="reviews",
        rule="Not judged: people choose what they review.",
        source="Linewatch",
    ),
]


@dataclass(frozen=True)
class Finding:
    """The outcome of one test; without a reason if it found nothing."""

    light: Light
    reason: str | None = None


NOTHING: Final = Finding("none")


def worst(findings: list[Finding]) -> tuple[Light, list[str]]:
    """Return the worst light, and the reasons of all findings, those of drift first."""
    ordered = sorted(findings, key=lambda finding: -_LIGHTS.index(finding.light))
    return max((finding.light for finding in findings), key=_LIGHTS.index, default="none"), [
        finding.reason for finding in ordered if finding.reason is not None
    ]


@lru_cache(20_000)
def interval(count: int, of: int, by_chance: float) -> tuple[float, float]:
    """Return the interval of a share by Clopper and Pearson, which misses the true share with at most this probability.

    See `core.rescoring.reports.confidence_bound.upper_confidence_bound`. (0, 1) for no parts.
    """
    confidence = 1 - by_chance / 2
    return 1 - upper_confidence_bound(of - count, of, confidence), upper_confidence_bound(count, of, confidence)


def rate(count: int, of: int) -> Rate:
    """Return a share with its interval."""
    return Rate(count=count, of=of, share=count / of if of else None, interval=interval(count, of, WATCH_BY_CHANCE))


def quantiles(histogram: Histogram, measure: Measure) -> Quantiles:
    """Return the quantiles of a histogram that is not empty."""
    grid = GRIDS[measure]
    shares = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
    return Quantiles(**{name: grid.middle(histogram.quantile(share)) for name, share in shares.items()})


def judge_scores(comparison: Comparison) -> tuple[ScoreDrift, Finding]:
    """Judge the scores of a day against the reference."""
    levels = {
        "watch": (PSI_WATCH, WATCH_BY_CHANCE),
        "drift": (PSI_DRIFT, DRIFT_BY_CHANCE),
    }
    light: Light = "none"
    for name in _LIGHTS[1:]:
        effect, by_chance = levels[name]
        least = max(effect, comparison.psi_by_chance(by_chance))
        if comparison.psi >= least and comparison.ks >= comparison.ks_by_chance(by_chance):
            light = name
    edge = GRIDS["score"].upper_edge
    document = ScoreDrift(
        psi=comparison.psi,
        psi_by_chance=comparison.psi_by_chance(WATCH_BY_CHANCE),
        ks=comparison.ks,
        ks_by_chance=comparison.ks_by_chance(WATCH_BY_CHANCE),
        edges=[edge(bin_) for bin_ in comparison.edges],
        shares=comparison.shares,
        reference_shares=comparison.reference_shares,
        reference_parts=comparison.reference_parts,
    )
    return document, NOTHING if light == "none" else Finding(light, _describe_scores(document))


def _describe_scores(scores: ScoreDrift) -> str:
    gained = max(range(len(scores.shares)), key=lambda index: scores.shares[index] - scores.reference_shares[index])
    where = _describe_bin(scores.edges, gained)
    return (
        f"The scores have moved: PSI {scores.psi:.2f} ({scores.psi_by_chance:.2f} by chance), KS {scores.ks:.2f} "
        f"({scores.ks_by_chance:.2f} by chance). {scores.shares[gained]:.1%} of the parts score {where}, of the "
        f"reference {scores.reference_shares[gained]:.1%}."
    )


def _describe_bin(edges: list[float], index: int) -> str:
    if index == 0:
        return f"up to {edges[0]:.4g}"
    if index == len(edges):
        return f"above {edges[-1]:.4g}"
    return f"between {edges[index - 1]:.4g} and {edges[index]:.4g}"


def judge_ng_rate(
    ng: int, parts: int, calibration: Mapping[str, Any] | None, reference: Rate | None
) -> tuple[NgRate, Finding]:
    """Judge the ng rate of a day against what is expected.

    Args:
        calibration: the record of the threshold's calibration; None if it was set by hand.
        reference: the ng rate on the reference days; None if there are none yet.
    """
    observed = rate(ng, parts)
    expected = tuple(calibration["confidence_interval"]) if calibration is not None else None
    ends = [each for each in (expected, reference.interval if reference else None) if each is not None]
    document = NgRate(
        **observed.model_dump(),
        expected_false_reject_rate=None if calibration is None else calibration["expected_false_reject_rate"],
        expected_interval=expected,
        reference_rate=reference,
        position=None,
    )
    if not ends:
        return document, NOTHING
    low, high = min(end for end, _ in ends), max(end for _, end in ends)
    text = f"{observed.share:.1%} of the parts are ng ({observed.interval[0]:.1%} to {observed.interval[1]:.1%})"
    if observed.interval[0] > NG_FACTOR * high:
        document.position = "above"
        reason = (
            f"{text}, more than {NG_FACTOR:g} times what is expected (up to {high:.1%}): more parts are defective, or "
            "good ones are rejected."
        )
        return document, Finding("watch", reason)
    if observed.interval[1] < low / NG_FACTOR:
        document.position = "below"
        return document, Finding("watch", f"{text}, less than half of what is expected ({low:.1%} or more).")
    document.position = "within"
    return document, NOTHING


_WORDS: Final[Mapping[Measure, tuple[str, str]]] = {
    "brightness": ("darker", "brighter"),
    "contrast": ("of less contrast", "of more contrast"),
    "sharpness": ("less sharp", "sharper"),
}


def judge_inputs(
    histograms: Mapping[Measure, Histogram], inputs: Mapping[str, Any]
) -> tuple[dict[str, InputDrift], list[Finding]]:
    """Judge the measurements of a day against the ranges of the training images.

    Args:
        inputs: the ranges as in the manifest; empty without any.
    """
    judged = {measure: _judge_input(measure, histograms.get(measure), _range(measure, inputs)) for measure in INPUTS}
    return {measure: document for measure, (document, _) in judged.items()}, [finding for _, finding in judged.values()]


def _range(measure: Measure, inputs: Mapping[str, Any]) -> tuple[float | None, float | None] | None:
    """Return the range of a measurement; None if the version does not record it. Only the lowest sharpness is known."""
    if inputs.get(measure) is None:
        return None
    if measure == "sharpness":
        return inputs[measure], None
    low, high = inputs[measure]
    return low, high


def _judge_input(
    measure: Measure, histogram: Histogram | None, accepted: tuple[float | None, float | None] | None
) -> tuple[InputDrift, Finding]:
    if histogram is None:
        return InputDrift(measured=0, quantiles=None, range=accepted, below=0, above=0, outside=None), NOTHING
    measured = histogram.total
    document = InputDrift(
        measured=measured,
        quantiles=quantiles(histogram, measure),
        range=accepted,
        below=0,
        above=0,
        outside=None,
    )
    if accepted is None:
        return document, NOTHING
    middles = [(GRIDS[measure].middle(bin_), count) for bin_, count in histogram.items()]
    low, high = accepted
    document.below = sum(count for middle, count in middles if low is not None and middle < low)
    document.above = sum(count for middle, count in middles if high is not None and middle > high)
    outside = document.below + document.above
    document.outside = rate(outside, measured)
    light: Light = "none"
    if interval(outside, measured, WATCH_BY_CHANCE)[0] > OUTSIDE_WATCH:
        light = "watch"
    if interval(outside, measured, DRIFT_BY_CHANCE)[0] > OUTSIDE_DRIFT:
        light = "drift"
    return document, NOTHING if light == "none" else Finding(light, _describe_input(measure, document))


def _describe_input(measure: Measure, document: InputDrift) -> str:
    assert document.range is not None  # noqa: S101 - it was compared
    below, above = _WORDS[measure]
    parts = [
        f"{count / document.measured:.1%} {word} than the training images ({measure} {side} {limit:.4g})"
        for count, word, side, limit in (
            (document.below, below, "below", document.range[0]),
            (document.above, above, "above", document.range[1]),
        )
        if count and limit is not None
    ]
    return f"Of {document.measured:,} images, {' and '.join(parts)}."
