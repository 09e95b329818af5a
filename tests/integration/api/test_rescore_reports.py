"""What a run has found: its pages, its files and the figures of its report, against what plain Python counts."""

import csv
import io
import json
from collections import Counter
from typing import Any
from uuid import UUID, uuid4

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, text

from core.rescoring import runs
from core.rescoring.reports import exports, report, results
from core.rescoring.reports.documents import BINS, HISTOGRAM_END, RescoreReport
from core.rescoring.reports.results import RunResult
from core.rescoring.requests import RunRequest
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import RECIPE
from tests.fixtures.random_results import add_random_reviews, random_result_rows, write
from tests.fixtures.rescore_runs import make_versions

VERDICTS = ("ok", "ng", "review")


def make_run(engine: Engine, **source: Any) -> UUID:
    request = RunRequest.model_validate(
        {"recipe": RECIPE, "model_version": 2, "source": source or {"where": {}}, "max_failure_rate": 1}
    )
    with engine.begin() as connection:
        return runs.create(connection, request, actor="test").id


@pytest.fixture
def run_id(engine: Engine) -> UUID:
    """A run without results."""
    make_versions(engine)
    return make_run(engine)


def unit(score: float | None, threshold: float | None) -> float | None:
    """A score in thresholds, where that can be said."""
    if score is None or threshold is None or not 1e-100 <= threshold <= 1e100:
        return None
    return score / threshold if score == 0 or 1e-100 <= abs(score) <= 1e100 else None


def binned(values: list[float]) -> list[int]:
    counts = [0] * BINS
    for value in values:
        counts[int(min(max(value * (BINS / HISTOGRAM_END), 0), BINS - 1))] += 1
    return counts


def test_the_figures_are_those_that_plain_python_counts(engine: Engine, run_id: UUID) -> None:
    rows = random_result_rows(3000)
    write(engine, run_id, rows)
    write(engine, make_run(engine), random_result_rows(50, seed=1))  # another run's results are its own
    said = add_random_reviews(engine, rows)
    found = report.build_report(engine, run_id)

    moves = Counter((row["before_verdict"] or "none", row["verdict"] or "failed") for row in rows)
    assert {(was, now): n for was, line in found.transitions.items() for now, n in line.items() if n} == moves
    assert found.versions_before == {1: sum(row["before_verdict"] is not None for row in rows)}
    compared = [row for row in rows if row["before_verdict"] and row["verdict"]]
    flips = Counter(f"{row['before_verdict']}_to_{row['verdict']}" for row in compared)
    assert (found.pictures, found.compared) == (3000, len(compared))
    assert {one.flip: one.count for one in found.flips} == {
        kind: count for kind, count in flips.items() if len(set(kind.split("_to_"))) == 2
    }
    assert found.changed == sum(one.count for one in found.flips)
    assert all(one.share == one.count / len(compared) for one in found.flips)
    assert Counter({one.code: one.count for one in found.failures}) == Counter(
        row["error_code"] for row in rows if row["error_code"]
    )
    for one in found.failures:
        first = next(row for row in rows if row["error_code"] == one.code)
        assert (one.example.number, one.example.detail) == (first["number"], first["error_detail"])
    check_scores(found, rows)
    check_places(found, rows)
    check_agreement(found, rows, said)


def check_scores(found: RescoreReport, rows: list[dict[str, Any]]) -> None:
    before = [unit(row["before_score"], row["before_threshold"]) for row in rows]
    after = [unit(row["anomaly_score"], row["threshold"]) for row in rows]
    for side, values, name in (
        (found.scores.before, before, "before_score"),
        (found.scores.after, after, "anomaly_score"),
    ):
        known = [value for value in values if value is not None]
        assert side is not None
        assert side.bins == binned(known)
        assert side.count == sum(row[name] is not None for row in rows)
        assert side.without_unit == side.count - len(known) > 0
        assert [side.p05, side.median, side.p95] == pytest.approx(np.quantile(known, [0.05, 0.5, 0.95]).tolist())
    pairs = np.array(
        [(was, now) for was, now in zip(before, after, strict=True) if was is not None and now is not None]
    )
    shift = found.scores.shift
    assert shift is not None
    assert shift.count == len(pairs)
    assert shift.median == pytest.approx(float(np.median(pairs[:, 1] - pairs[:, 0])))
    assert shift.correlation == pytest.approx(float(np.corrcoef(np.clip(pairs, -1e6, 1e6).T)[0, 1]), abs=1e-9)
    low, high = (np.cumsum(binned(list(pairs[:, side]))) / len(pairs) for side in (0, 1))
    assert shift.distance == pytest.approx(float(np.abs(low - high).max()))


def check_places(found: RescoreReport, rows: list[dict[str, Any]]) -> None:
    assert not found.places_left_out
    assert len(found.places) == 9
    for place in found.places:
        own = [row for row in rows if (row["line_id"], row["station_id"]) == (place.line_id, place.station_id)]
        moves = Counter((row["before_verdict"], row["verdict"]) for row in own)
        assert place.pictures == len(own)
        assert place.failed == sum(row["error_code"] is not None for row in own)
        assert place.compared == sum(moves[was, now] for was in VERDICTS for now in VERDICTS)
        assert (place.ok_to_ng, place.ng_to_ok) == (moves["ok", "ng"], moves["ng", "ok"])
        assert place.ng_before == sum(row["before_verdict"] == "ng" for row in own)
        assert place.review_after == sum(row["verdict"] == "review" for row in own)
        known = [one for row in own if (one := unit(row["anomaly_score"], row["threshold"])) is not None]
        assert place.mean_after == pytest.approx(float(np.clip(known, 0, HISTOGRAM_END).mean()))


def check_agreement(found: RescoreReport, rows: list[dict[str, Any]], said: dict[int, str]) -> None:
    cells = Counter(
        (said[row["number"]], row["before_verdict"] or "none", row["verdict"] or "failed")
        for row in rows
        if row["number"] in said
    )
    agreed = found.agreement
    assert agreed.reviewed == len(said)
    for name, place in (("before", 1), ("after", 2)):
        counted: Counter[tuple[str, str]] = Counter()
        for cell, number in cells.items():
            counted[cell[0], cell[place]] += number
        table = getattr(agreed, name)
        assert {(one, now): n for one, line in table.items() for now, n in line.items() if n} == counted
    assert agreed.new_misses == sum(
        n for (one, was, now), n in cells.items() if (one, now) == ("ng", "ok") != (one, was)
    )


def test_a_run_without_results_has_a_report(engine: Engine, run_id: UUID) -> None:
    found = report.build_report(engine, run_id)
    assert (found.pictures, found.compared, found.changed) == (0, 0, 0)
    assert [(one.flip, one.share) for one in found.flips] == [("ok_to_ng", None), ("ng_to_ok", None)]
    assert (found.scores.before, found.scores.after, found.scores.shift) == (None, None, None)
    assert (found.places, found.failures, found.agreement.reviewed) == ([], [], 0)


def test_images_that_nobody_has_inspected_have_nothing_before(engine: Engine, run_id: UUID) -> None:
    before = {"inspection_id", "image_day", *(f"before_{name}" for name in ("model_version_id", "score", "threshold"))}
    rows = [
        {**row, **dict.fromkeys(before), "before_verdict": None, "path": "a.png"} for row in random_result_rows(100)
    ]
    write(engine, run_id, rows)
    found = report.build_report(engine, run_id)
    assert (found.pictures, found.compared) == (100, 0)
    assert (found.scores.before, found.scores.shift, found.versions_before) == (None, None, {})
    assert found.scores.after is not None


def test_a_report_says_the_same_until_something_changes(engine: Engine, run_id: UUID) -> None:
    rows = random_result_rows(100)
    write(engine, run_id, rows)
    first = report.build_report(engine, run_id).digest
    with engine.begin() as connection:
        connection.execute(text("UPDATE rescore_runs SET rate = 7, rated_at = clock_timestamp()"))
    assert report.build_report(engine, run_id).digest == first
    add_random_reviews(engine, rows)
    assert report.build_report(engine, run_id).digest != first


def listed(http: httpx.Client, path: str, **query: Any) -> list[dict[str, Any]]:
    """All items of a listing, page by page."""
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = http.get(path, params={**query, "limit": 7} | ({"cursor": cursor} if cursor else {}))
        assert page.status_code == 200, page.text
        assert len(page.json()["items"]) <= 7
        items += page.json()["items"]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            return items


def test_results_over_http(settings: Settings, engine: Engine, run_id: UUID) -> None:
    rows = random_result_rows(120)
    write(engine, run_id, rows)
    said = add_random_reviews(engine, rows)
    path = f"/v1/rescore-runs/{run_id}"
    with running_api(settings) as http:
        found = listed(http, f"{path}/results")
        assert [one["number"] for one in found] == list(range(1, 121))
        for one, row in zip(found, rows, strict=True):
            assert one["reviewed_verdict"] == said.get(row["number"])
            assert (one["error"] or {}).get("code") == row["error_code"]
            if row["before_verdict"] is None:
                assert one["before"] is None
            else:
                assert one["before"] == {
                    "anomaly_score": row["before_score"],
                    "threshold": row["before_threshold"],
                    "verdict": row["before_verdict"],
                    "model_version": 1,
                }
            same = ("path", "part_id", "lot_id", "anomaly_score", "threshold", "verdict", "reasons", "metadata")
            assert {name: one[name] for name in same} == {name: row[name] for name in same}
        for name in ("verdict", "before_verdict", "line_id", "station_id", "error_code"):
            value = next(row[name] for row in rows if row[name])
            narrowed = [one["number"] for one in listed(http, f"{path}/results", **{name: value})]
            assert narrowed == [row["number"] for row in rows if row[name] == value]
        check_flips(http, f"{path}/flips", rows)
        for wrong in ("x", "-1", "9" * 30, "²"):
            assert http.get(f"{path}/results", params={"cursor": wrong}).json()["code"] == "invalid_cursor"
        assert http.get(f"{path}/flips", params={"was": "ok"}).json()["code"] == "invalid_field"
        for what in ("results", "flips", "report", "export"):
            assert http.get(f"/v1/rescore-runs/{uuid4()}/{what}").status_code == 404
        failed = next(row["number"] for row in rows if row["error_code"])
        in_archive = next(row["number"] for row in rows if row["verdict"] and row["image_day"] is None)
        for number, status, code in (
            (failed, 409, "invalid_transition"),
            (in_archive, 409, "invalid_transition"),
            (121, 404, "not_found"),
        ):
            refused = http.get(f"{path}/results/{number}/heatmap")
            assert (refused.status_code, refused.json()["code"]) == (status, code)
        told = http.get(f"{path}/report")
        assert told.status_code == 200, told.text
        assert told.json()["transitions"] == report.build_report(engine, run_id).transitions


def check_flips(http: httpx.Client, path: str, rows: list[dict[str, Any]]) -> None:
    flips = [row for row in rows if row["before_verdict"] and row["verdict"] not in (None, row["before_verdict"])]
    for was in (None, *VERDICTS):
        for now in (None, *VERDICTS):
            asked = {key: value for key, value in (("from", was), ("to", now)) if value}
            wanted = [
                (row["number"], f"{row['before_verdict']}_to_{row['verdict']}")
                for row in flips
                if was in (None, row["before_verdict"]) and now in (None, row["verdict"])
            ]
            assert [(one["number"], one["flip"]) for one in listed(http, path, **asked)] == wanted


def test_exports_hold_what_was_found(settings: Settings, engine: Engine, run_id: UUID) -> None:
    rows = random_result_rows(2500)  # more than a page
    write(engine, run_id, rows)
    add_random_reviews(engine, rows)
    with running_api(settings) as http:
        for flips in (False, True):
            stored = [one for page in results.pages(engine, run_id, flips=flips, size=999) for one in page]
            path = f"/v1/rescore-runs/{run_id}/export"
            answer = http.get(path, params={"format": "parquet", "flips": flips})
            assert answer.headers["content-type"] == "application/vnd.apache.parquet"
            assert f"rescore-{run_id}" in answer.headers["content-disposition"]
            table = pq.read_table(io.BytesIO(answer.content)).to_pylist()
            assert table == [flat(one) for one in stored]
            lines = list(csv.reader(io.StringIO(http.get(path, params={"flips": flips}).text, newline="")))
            assert lines[0] == [column.name for column in exports.COLUMNS]
            column = lines[0].index("anomaly_score")
            assert [line[column] and float(line[column]) for line in lines[1:]] == [
                "" if one.anomaly_score is None else one.anomaly_score for one in stored
            ]
        assert len(stored) == report.build_report(engine, run_id).changed < 2500


def flat(one: RunResult) -> dict[str, Any]:
    """What a row must say of a result."""
    own = {column.name: getattr(one, column.name) for column in exports.COLUMNS if hasattr(one, column.name)}
    newest = one.review
    return own | {
        "inspection_id": one.inspection_id and str(one.inspection_id),
        "image_sha256": one.image_sha256 and one.image_sha256.hex(),
        "reviewed_verdict": newest and newest.verdict,
        "reviewer": newest and newest.reviewer,
        "review_reason": newest and newest.reason,
        "reviewed_at": newest and newest.created_at,
        "metadata": None if one.metadata is None else json.dumps(one.metadata, ensure_ascii=False),
    }


def test_the_flips_that_moved_furthest_come_first(engine: Engine, run_id: UUID) -> None:
    rows = random_result_rows(400)
    write(engine, run_id, rows)
    with engine.begin() as connection:
        found = results.largest_moves(connection, run_id, "ok", "ng", limit=5)
        top = results.highest_scores(connection, run_id, limit=5)

    def moved(row: dict[str, Any]) -> float:
        was, now = unit(row["before_score"], row["before_threshold"]), unit(row["anomaly_score"], row["threshold"])
        return -1 if was is None or now is None else abs(now - was)

    flips = [row for row in rows if (row["before_verdict"], row["verdict"]) == ("ok", "ng")]
    assert [one.number for one in found] == [
        row["number"] for row in sorted(flips, key=lambda row: (-moved(row), row["number"]))[:5]
    ]
    scores = [unit(row["anomaly_score"], row["threshold"]) for row in rows]
    assert [unit(one.anomaly_score, one.threshold) for one in top] == sorted(filter(None, scores), reverse=True)[:5]
