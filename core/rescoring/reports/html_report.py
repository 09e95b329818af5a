"""The report of a run as one HTML file to mail, with the images whose verdict would change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from core.html.charts import CountedHistogram, Mark, counted_histograms
from core.html.rendering import number, png
from core.html.rendering import render as render_page
from core.rescoring.reports.documents import HISTOGRAM_END, RescoreReport, ScoreComparison, ScoreDistribution
from core.rescoring.reports.results import RunResult
from core.vision.evaluation.heatmap import legend

IMAGES = 12
"""Images that are shown of each kind, at most."""
_STATIONS = 40  # stations that are shown, at most
_TITLES = {
    "ok_to_ng": "Were ok, would be ng",
    "ng_to_ok": "Were ng, would be ok",
    "highest": "The highest scores",
}
KINDS = tuple(_TITLES)
_FLIPS = ("ok_to_ng", "ng_to_ok")


@dataclass(frozen=True)
class ReportExample:
    """An image on the page: its result, and JPEGs of it as it is and with its heat before and after.

    Attributes:
        missing: why one of the three is not there, for people.
    """

    result: RunResult
    plain: bytes | None = None
    before: bytes | None = None
    after: bytes | None = None
    missing: str = "not available"

    @property
    def name(self) -> str:
        """What people call the part."""
        result = self.result
        return result.part_id or result.external_id or result.path or f"image {result.number}"

    @property
    def description(self) -> str:
        """Where the part comes from, who reviewed it, and what the input checks found."""
        result = self.result
        named = (("lot", result.lot_id), ("line", result.line_id), ("station", result.station_id))
        parts = [f"{name} {value}" for name, value in named if value is not None]
        if result.review is not None:
            parts.append(f"reviewed {result.review.verdict} by {result.review.reviewer}")
        return " · ".join([*parts, *result.reasons, f"no. {result.number}"])


Gallery = Mapping[str, Sequence[ReportExample]]
"""By kind, one of `KINDS`."""


@dataclass(frozen=True)
class ReportContent:
    """A report, the images that go with it, and lines for people about what was odd when it was made."""

    report: RescoreReport
    gallery: Gallery = field(default_factory=dict)
    notes: Sequence[str] = ()


def render(content: ReportContent) -> str:
    """The page. Names, stations and error details that others wrote are escaped."""
    report = content.report
    sides = _sides(report.scores)
    stations = report.by_station[:_STATIONS]
    if len(report.by_station) < 2 and not any(one.line_id or one.station_id for one in stations):
        stations = []
    counts = {one.flip: one.count for one in report.flips}
    return render_page(
        "rescore_report.html",
        title=f"{report.run.recipe}: what version {report.run.model.version} would change",
        report=report,
        source=source(report.run.source),
        flips=[{"name": flip.replace("_to_", " → "), "count": counts[flip]} for flip in _FLIPS if report.compared],
        verdicts={one: sum(row[one] for row in report.transitions.values()) for one in ("ng", "review", "ok")},
        failed=sum(row["failed"] for row in report.transitions.values()),
        warnings=[*_warnings(report), *content.notes],
        transitions=[
            (was, row) for was, row in report.transitions.items() if was not in ("none", "review") or any(row.values())
        ],
        chart=_chart(sides),
        sides=[(name, side) for name, _, side in sides],
        without_unit=sum(side.without_unit for _, _, side in sides),
        confusions={"before": _confusion(report.agreement.before), "after": _confusion(report.agreement.after)},
        gallery=[(heading, content.gallery[kind]) for kind, heading in _TITLES.items() if content.gallery.get(kind)],
        legend=png(legend(240, 14)),
        stations=stations,
        more_stations=len(report.by_station) > _STATIONS or report.by_station_left_out,
        origin=_origin(report),
    )


def source(of: Mapping[str, Any]) -> str:
    """Where the images of a run come from, in a few words."""
    if "folder" in of:
        return f"the folder {of['folder']}"
    if "manifest" in of:
        return f"the manifest {of['manifest']}"
    if "live" in of:
        return f"the line, a share of {of['live']['share']:.3g}"
    where = dict(of.get("where", {}))
    ids = where.pop("ids", None)
    selected = "all inspections" if ids is None else f"{len(ids)} selected inspection{'s' if len(ids) > 1 else ''}"
    asked = ", ".join(f"{name} {value}" for name, value in where.items())
    if not asked:
        return selected
    return f"the inspections with {asked}" if ids is None else f"{selected} with {asked}"


def _warnings(report: RescoreReport) -> list[str]:
    """What a reader has to know before the figures."""
    run, lines = report.run, []
    if run.status in ("queued", "running", "paused"):
        total = "" if run.counts["total"] is None else f" of {number(run.counts['total'])}"
        lines.append(
            f"The run is {run.status}. Only the first {number(report.images)}{total} images of the source have a "
            "result so far. The rest may differ."
        )
    elif run.status != "completed":
        lines.append(f"The run did not complete. It is {run.status}: {run.reason or 'a person ended it'}.")
    if report.images and not report.compared:
        lines.append("These images have no earlier results, so there is nothing to compare.")
    return lines


def _sides(scores: ScoreComparison) -> list[tuple[str, str, ScoreDistribution]]:
    """The distributions before and after, as far as there are any, with their names and colours."""
    sides = (("Before", "before", scores.before), ("After", "after", scores.after))
    return [(name, kind, side) for name, kind, side in sides if side]


def _chart(sides: Sequence[tuple[str, str, ScoreDistribution]]) -> Markup | None:
    strips = [
        CountedHistogram(name, kind, f"{number(sum(side.bins))} scores", side.bins)
        for name, kind, side in sides
        if any(side.bins)
    ]
    return counted_histograms(strips, Mark("threshold", 1), low=0, high=HISTOGRAM_END) if strips else None


def _confusion(table: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Reviews against verdicts; a verdict that never occurs is left out."""
    if "ok" not in table:
        return {"names": [], "rows": {}}
    names = [name for name in table["ok"] if name in ("ok", "ng") or any(row[name] for row in table.values())]
    return {"names": names, "rows": table}


def _origin(report: RescoreReport) -> dict[str, object]:
    run, timings = report.run, report.timings
    named: dict[str, object] = {
        "Run": run.id,
        "State": run.status,
        "Recipe": run.recipe,
        "Model": f"version {run.model.version}, SHA-256 {run.model.sha256}",
        "Thresholds": _limits(run.limits),
        "Compared with": ", ".join(
            f"version {version} ({number(count)} images)" for version, count in report.versions_before.items()
        )
        or "nothing",
        "Source": source(run.source),
        "Created by": run.created_by,
        "Created": f"{run.created_at:%Y-%m-%d %H:%M} UTC",
    }
    if timings.seconds is not None:
        rate = "" if timings.images_per_second is None else f", {timings.images_per_second:.1f} images a second"
        named["Duration"] = f"{_duration(timings.seconds)}{rate}"
    return named


def _limits(limits: Mapping[str, Any]) -> str:
    def said(one: Mapping[str, float | None]) -> str:
        review = "" if one["review_threshold"] is None else f", review from {one['review_threshold']:.6g}"
        return f"{one['threshold']:.6g}{review}"

    stations = [f"at {station} {said(one)}" for station, one in limits["stations"].items()]
    return "; ".join([said(limits["general"]), *stations])


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
