"""The report of a run as a page: one file of HTML that a person can mail, with the images that would change."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from core.rescoring.reports.documents import HISTOGRAM_END, Place, RescoreReport, ReviewedImages, Scores
from core.rescoring.reports.results import Scored
from core.vision.evaluation.charts import Counted, Mark, counted_histograms
from core.vision.evaluation.page import card, facts, heat_scale, image, notes, page

IMAGES = 12
"""Images that are shown of each kind, at most."""
_PLACES = 40
_TITLES = {
    "ok_to_ng": "Were ok, would be ng",
    "ng_to_ok": "Were ng, would be ok",
    "highest": "The highest scores",
}
KINDS = tuple(_TITLES)


@dataclass(frozen=True)
class ReportExample:
    """An image on the page: its result, and JPEGs of it as it is and with its heat before and after.

    Attributes:
        missing: why one of the three is not there, for people.
    """

    result: Scored
    plain: bytes | None = None
    before: bytes | None = None
    after: bytes | None = None
    missing: str = "not available"


Gallery = Mapping[str, Sequence[ReportExample]]
"""By kind, one of `KINDS`."""


@dataclass(frozen=True)
class ReportContent:
    """A report, the images that go with it, and lines for people about what was odd when it was made."""

    report: RescoreReport
    gallery: Gallery = field(default_factory=dict)
    notes: Sequence[str] = ()


def render(account: ReportContent) -> str:
    """The page. Whatever others wrote, names and places of parts and details of failures, is text on it."""
    report = account.report
    sections = [
        _head(report),
        _cards(report),
        notes([*_warnings(report), *account.notes]),
        _transitions(report),
        _scores(report),
        _agreement(report.agreement),
        _gallery(account.gallery),
        _places(report),
        _failures(report),
        _origin(report),
    ]
    return page(f"{report.run.recipe}: what version {report.run.model.version} would change", sections)


def _head(report: RescoreReport) -> str:
    run = report.run
    against = ", ".join(str(version) for version in report.versions_before)
    compared = f"against version {against}" if against else "against nothing that was recorded"
    return (
        f"<h1>{escape(run.recipe)}: what version {run.model.version} would change</h1>"
        f'<p class="quiet">{compared} · {_number(report.pictures)} images of {escape(source(run.source))} · '
        f"{report.made_at:%Y-%m-%d %H:%M} UTC</p>"
    )


def source(of: Mapping[str, Any]) -> str:
    """Where the images of a run come from, in a few words."""
    if "folder" in of:
        return f"the folder {of['folder']}"
    if "manifest" in of:
        return f"the manifest {of['manifest']}"
    if "live" in of:
        return f"the line, a share of {of['live']['share']:.3g}"
    asked = ", ".join(f"{name} {value}" for name, value in of.get("where", {}).items())
    return f"the inspections with {asked}" if asked else "all inspections"


def _cards(report: RescoreReport) -> str:
    counts = {one.flip: one for one in report.flips}
    cards = []
    if report.compared:
        for flip in ("ok_to_ng", "ng_to_ok"):
            one = counts[flip]
            more = f"{_share(one.count, report.compared)} of {_number(report.compared)} compared"
            cards.append(card(_number(one.count), _arrow(flip), more))
        cards.append(
            card(
                _share(report.compared - report.changed, report.compared),
                "keep their verdict",
                f"{_number(report.changed)} change it, review included",
            )
        )
    else:
        for verdict in ("ng", "review", "ok"):
            number = sum(row[verdict] for row in report.transitions.values())
            cards.append(card(_number(number), verdict, f"{_share(number, report.pictures)} of the images"))
    failed = sum(row["failed"] for row in report.transitions.values())
    cards.append(card(_number(failed), "could not be scored", f"{_share(failed, report.pictures)} of the images"))
    return f'<div class="cards">{"".join(cards)}</div>'


def _warnings(report: RescoreReport) -> list[str]:
    """What a reader has to know before the figures."""
    run, lines = report.run, []
    if run.status in ("queued", "running", "paused"):
        total = "" if run.counts["total"] is None else f" of {_number(run.counts['total'])}"
        lines.append(
            f"The run is {run.status}: {_number(report.pictures)}{total} images have a result so far, those that the "
            "source has first. They need not be like the rest."
        )
    elif run.status != "completed":
        lines.append(f"The run was not completed, it is {run.status}: {run.reason or 'a person ended it'}.")
    if report.pictures and not report.compared:
        lines.append("Nothing was recorded of these images before, so nothing can be said of what would change.")
    return lines


def _transitions(report: RescoreReport) -> str:
    columns = ("ok", "ng", "review", "failed")
    head = "".join(f'<th class="n">{name}</th>' for name in columns)
    rows = []
    for was, row in report.transitions.items():
        if was in ("none", "review") and not any(row.values()):
            continue
        cells = "".join(f'<td class="n{_kind(was, now, row[now])}">{_number(row[now])}</td>' for now in columns)
        name = "nothing recorded" if was == "none" else f"{was} before"
        rows.append(f'<tr><th>{name}</th>{cells}<td class="n">{_number(sum(row.values()))}</td></tr>')
    return (
        "<h2>From the recorded verdict to the new one</h2>"
        f'<div class="wide"><table class="matrix"><tr><th></th>{head}<th class="n">together</th></tr>'
        f"{''.join(rows)}</table></div>"
    )


def _kind(was: str, now: str, number: int) -> str:
    if was == now:
        return " same"
    return " flip" if number and {was, now} == {"ok", "ng"} else ""


def _scores(report: RescoreReport) -> str:
    scores = report.scores
    sides = (("Before", "before", scores.before), ("After", "after", scores.after))
    strips = [Counted(name, kind, _scored(side), side.bins) for name, kind, side in sides if side and any(side.bins)]
    if not strips:
        return ""
    chart = counted_histograms(strips, Mark("threshold", 1), low=0, high=HISTOGRAM_END)
    rows = "".join(
        f"<tr><td>{name}</td>{_cells(map(_unit, (side.p05, side.median, side.p95)))}</tr>"
        for name, _, side in sides
        if side
    )
    lines = []
    if (shift := scores.shift) is not None:
        together = "" if shift.correlation is None else f", their correlation {shift.correlation:.3f}"
        lines.append(
            f"Of the {_number(shift.count)} images with both scores, the median moved by {shift.median:+.3f} "
            f"thresholds; the distance of the two distributions is {shift.distance:.3f} (Kolmogorov-Smirnov, 0 to "
            f"1){together}."
        )
    if (odd := sum(side.without_unit for _, _, side in sides if side)) > 0:
        lines.append(f"{_number(odd)} scores have a threshold that is not above 0 and are not among these.")
    said = "".join(f"<p>{line}</p>" for line in lines)
    return (
        "<h2>Scores in units of their thresholds</h2>"
        '<p class="quiet">From 1 on a part is ng. Only so can scores of two versions be compared.</p>'
        f'<div class="wide">{chart}</div><table><tr><th></th><th class="n">5 %</th><th class="n">median</th>'
        f'<th class="n">95 %</th></tr>{rows}</table>{said}'
    )


def _scored(side: Scores) -> str:
    return f"{_number(sum(side.bins))} scores"


def _agreement(agreed: ReviewedImages) -> str:
    if not agreed.reviewed:
        return ""
    tables = "".join(
        f"<div><h3>{title}</h3>{_confusion(table)}</div>"
        for title, table in (("Before", agreed.before), ("After", agreed.after))
    )
    ok, ng = (sum(agreed.after[said].values()) for said in ("ok", "ng"))
    return (
        "<h2>Against people's reviews</h2>"
        f"<p>{_number(agreed.reviewed)} of these images have been reviewed, {_number(ok)} ok and {_number(ng)} ng. "
        f"<b>{_number(agreed.new_false_rejects)}</b> reviewed ok would newly be rejected, "
        f"{_number(agreed.false_rejects_gone)} no longer. <b>{_number(agreed.new_misses)}</b> reviewed ng would newly "
        f"pass, {_number(agreed.misses_gone)} no longer.</p>"
        '<p class="quiet">People review what the machine rejects more often than what it passes, so these shares are '
        "not those of all parts.</p>"
        f'<div class="columns">{tables}</div>'
    )


def _confusion(table: Mapping[str, Mapping[str, int]]) -> str:
    names = [name for name in table["ok"] if name in ("ok", "ng") or any(row[name] for row in table.values())]
    head = "".join(f'<th class="n">{name}</th>' for name in names)
    rows = "".join(
        f"<tr><th>reviewed {said}</th>"
        + "".join(f'<td class="n{" same" if said == name else ""}">{_number(row[name])}</td>' for name in names)
        + "</tr>"
        for said, row in table.items()
    )
    return f'<div class="wide"><table class="matrix"><tr><th></th>{head}</tr>{rows}</table></div>'


def _gallery(gallery: Gallery) -> str:
    shown = "".join(
        f'<h3>{title}</h3><div class="triples">{"".join(_figure(one) for one in gallery[kind])}</div>'
        for kind, title in _TITLES.items()
        if gallery.get(kind)
    )
    if not shown:
        return ""
    return (
        "<h2>Images</h2>"
        '<p class="quiet">As it is, with its heat before, with its heat after; those whose score moved the furthest '
        f"come first. Below them the score and its threshold. Heat is in units of the threshold: {heat_scale()}. The "
        f"line is drawn at 1.</p>{shown}"
    )


def _figure(one: ReportExample) -> str:
    result = one.result
    now = _caption("after", result.verdict, result.anomaly_score, result.threshold)
    cells = [_cell(one.plain, "the part", one.missing, "as it is"), _cell(one.after, "heat after", one.missing, now)]
    if result.before_verdict is not None:
        was = _caption("before", result.before_verdict, result.before_score, result.before_threshold)
        cells.insert(1, _cell(one.before, "heat before", one.missing, was))
    return (
        f"<figure><div>{''.join(cells)}</div><figcaption>{escape(_name(result))}"
        f"<span>{escape(_whereabouts(result))}</span></figcaption></figure>"
    )


def _cell(content: bytes | None, what: str, missing: str, caption: str) -> str:
    drawn = f'<span class="none">{escape(missing)}</span>' if content is None else image(content, "jpeg", what)
    return f"<span>{drawn}<small>{caption}</small></span>"


def _caption(when: str, verdict: str | None, score: float | None, threshold: float | None) -> str:
    """HTML: the verdict, and the score that it comes from with its threshold."""
    figures = "" if score is None or threshold is None else f"<br>{score:.4g} of {threshold:.4g}"
    return f"{when}: <b>{verdict}</b>{figures}"


def _name(result: Scored) -> str:
    return result.part_id or result.external_id or result.path or f"image {result.number}"


def _whereabouts(result: Scored) -> str:
    named = (("lot", result.lot_id), ("line", result.line_id), ("station", result.station_id))
    parts = [f"{name} {value}" for name, value in named if value is not None]
    if result.review is not None:
        parts.append(f"reviewed {result.review.verdict} by {result.review.reviewer}")
    return " · ".join([*parts, *result.reasons, f"no. {result.number}"])


def _places(report: RescoreReport) -> str:
    places = report.places[:_PLACES]
    if len(report.places) < 2 and not any(one.line_id or one.station_id for one in places):
        return ""
    rows = "".join(_place(one) for one in places)
    more = len(report.places) > _PLACES or report.places_left_out
    rest = f'<p class="quiet">The {_PLACES} with the most images; there are more.</p>' if more else ""
    names = ("images", "failed", "ng before", "ng after", "ok → ng", "ng → ok", "mean before", "mean after")
    head = "".join(f'<th class="n">{name}</th>' for name in names)
    return (
        "<h2>By line and station</h2>"
        f'<div class="wide"><table class="dense"><tr><th>Line</th><th>Station</th>{head}</tr>{rows}</table></div>{rest}'
        '<p class="quiet">Means of the scores, in units of the threshold; one beyond 3 counts as 3.</p>'
    )


def _place(one: Place) -> str:
    counts = (one.pictures, one.failed, one.ng_before, one.ng_after, one.ok_to_ng, one.ng_to_ok)
    cells = [*(_number(count) for count in counts), _unit(one.mean_before), _unit(one.mean_after)]
    names = "".join(f"<td>{escape(name) if name is not None else '–'}</td>" for name in (one.line_id, one.station_id))
    return f"<tr>{names}{_cells(cells)}</tr>"


def _failures(report: RescoreReport) -> str:
    if not report.failures:
        return ""
    rows = "".join(
        f'<tr><td><code>{escape(one.code)}</code></td><td class="n">{_number(one.count)}</td><td>'
        f"{escape(str(one.example.path or one.example.inspection_id or f'no. {one.example.number}'))}: "
        f"{escape(one.example.detail or '–')}</td></tr>"
        for one in report.failures
    )
    return (
        '<h2>Could not be scored</h2><div class="wide"><table><tr><th>Code</th><th class="n">Images</th>'
        f"<th>The first of them</th></tr>{rows}</table></div>"
    )


def _origin(report: RescoreReport) -> str:
    run, timings = report.run, report.timings
    named: dict[str, object] = {
        "Run": run.id,
        "State": run.status,
        "Recipe": run.recipe,
        "Model": f"version {run.model.version}, SHA-256 {run.model.sha256}",
        "Thresholds": _limits(run.limits),
        "Compared with": ", ".join(
            f"version {version} ({_number(number)} images)" for version, number in report.versions_before.items()
        )
        or "nothing",
        "Source": source(run.source),
        "Asked for by": run.created_by,
        "Made": f"{run.created_at:%Y-%m-%d %H:%M} UTC",
    }
    if timings.seconds is not None:
        rate = "" if timings.pictures_per_second is None else f", {timings.pictures_per_second:.1f} images a second"
        named["Took"] = f"{_duration(timings.seconds)}{rate}"
    return f"<h2>Where it comes from</h2>{facts(named)}"


def _limits(limits: Mapping[str, Any]) -> str:
    def said(one: Mapping[str, float | None]) -> str:
        review = "" if one["review_threshold"] is None else f", review from {one['review_threshold']:.6g}"
        return f"{one['threshold']:.6g}{review}"

    stations = [f"at {station} {said(one)}" for station, one in limits["stations"].items()]
    return "; ".join([said(limits["general"]), *stations])


def _cells(figures: Iterable[str]) -> str:
    return "".join(f'<td class="n">{figure}</td>' for figure in figures)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _arrow(flip: str) -> str:
    return flip.replace("_to_", " → ")


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _share(number: int, of: int) -> str:
    return f"{number / of:.2%}" if of else "–"


def _unit(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
