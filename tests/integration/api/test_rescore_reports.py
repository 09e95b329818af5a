"""Results of a run: listings, exports and the report, compared with figures computed in Python."""

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
from tests.fixtures.random_results import add_random_reviews, random_result_rows, write_results
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
    """Return the score divided by the threshold, or None if that is undefined."""
    if score is None or threshold is None or not 1e-100 <= threshold <= 1e100:
        return None
    return score / threshold if score == 0 or 1e-100 <= abs(score) <= 1e100 else None


def binned(values: list[float]) -> list[int]:
    counts = [0] * BINS
    for value in values:
        counts[int(min(max(value * (BINS / HISTOGRAM_END), 0), BINS - 1))] += 1
    return counts


def test_the_figures_equal_those_computed_in_python(engine: Engine, run_id: UUID) -> None:
    rows = random_result_rows(3000)
    write_results(engine, run_id, rows)
    write_results(engine, make_run(engine), random_result_rows(50, seed=1))  # results of another run must not count
    review_verdicts = add_random_reviews(engine, rows)
    built = report.build_report(engine, run_id)

    moves = Counter((row["before_verdict"] or "none", row["verdict"] or "failed") for row in rows)
    assert {(was, now): n for was, line in built.transitions.items() for now, n in line.items() if n} == moves
    assert built.versions_before == {1: sum(row["before_verdict"] is not None for row in rows)}
    compared = [row for row in rows if row["before_verdict"] and row["verdict"]]
    flips = Counter(f"{row['before_verdict']}_to_{row['verdict']}" for row in compared)
    assert (built.images, built.compared) == (3000, len(compared))
    assert {flip.flip: flip.count for flip in built.flips} == {
        kind: count for kind, count in flips.items() if len(set(kind.split("_to_"))) == 2
    }
    assert built.changed == sum(flip.count for flip in built.flips)
    assert all(flip.share == flip.count / len(compared) for flip in built.flips)
    assert Counter({failure.code: failure.count for failure in built.failures}) == Counter(
        row["error_code"] for row in rows if row["error_code"]
    )
    for failure in built.failures:
        first = next(row for row in rows if row["error_code"] == failure.code)
        assert (failure.example.number, failure.example.detail) == (first["number"], first["error_detail"])
    check_scores(built, rows)
    check_stations(built, rows)
    check_agreement(built, rows, review_verdicts)


def check_scores(built: RescoreReport, rows: list[dict[str, Any]]) -> None:
    before = [unit(row["before_score"], row["before_threshold"]) for row in rows]
    after = [unit(row["anomaly_score"], row["threshold"]) for row in rows]
    for side, values, name in (
        (built.scores.before, before, "before_score"),
        (built.scores.after, after, "anomaly_score"),
    ):
        known_values = [value for value in values if value is not None]
        assert side is not None
        assert side.bins == binned(known_values)
        assert side.count == sum(row[name] is not None for row in rows)
        assert side.without_unit == side.count - len(known_values) > 0
        assert [side.p05, side.median, side.p95] == pytest.approx(np.quantile(known_values, [0.05, 0.5, 0.95]).tolist())
    pairs = np.array(
        [(was, now) for was, now in zip(before, after, strict=True) if was is not None and now is not None]
    )
    shift = built.scores.shift
    assert shift is not None
    assert shift.count == len(pairs)
    assert shift.median == pytest.approx(float(np.median(pairs[:, 1] - pairs[:, 0])))
    assert shift.correlation == pytest.approx(float(np.corrcoef(np.clip(pairs, -1e6, 1e6).T)[0, 1]), abs=1e-9)
    low, high = (np.cumsum(binned(list(pairs[:, side]))) / len(pairs) for side in (0, 1))
    assert shift.distance == pytest.approx(float(np.abs(low - high).max()))


def check_stations(built: RescoreReport, rows: list[dict[str, Any]]) -> None:
    assert not built.by_station_left_out
    assert len(built.by_station) == 9
    for station in built.by_station:
        key = (station.line_id, station.station_id)
        station_rows = [row for row in rows if (row["line_id"], row["station_id"]) == key]
        moves = Counter((row["before_verdict"], row["verdict"]) for row in station_rows)
        assert station.images == len(station_rows)
        assert station.failed == sum(row["error_code"] is not None for row in station_rows)
        assert station.compared == sum(moves[was, now] for was in VERDICTS for now in VERDICTS)
        assert (station.ok_to_ng, station.ng_to_ok) == (moves["ok", "ng"], moves["ng", "ok"])
        assert station.ng_before == sum(row["before_verdict"] == "ng" for row in station_rows)
        assert station.review_after == sum(row["verdict"] == "review" for row in station_rows)
        units = [value for row in station_rows if (value := unit(row["anomaly_score"], row["threshold"])) is not None]
        assert station.mean_after == pytest.approx(float(np.clip(units, 0, HISTOGRAM_END).mean()))


def check_agreement(built: RescoreReport, rows: list[dict[str, Any]], review_verdicts: dict[int, str]) -> None:
    cells = Counter(
        (review_verdicts[row["number"]], row["before_verdict"] or "none", row["verdict"] or "failed")
        for row in rows
        if row["number"] in review_verdicts
    )
    agreed = built.agreement
    assert agreed.reviewed == len(review_verdicts)
    for name, position in (("before", 1), ("after", 2)):
        counted: Counter[tuple[str, str]] = Counter()
        for cell, number in cells.items():
            counted[cell[0], cell[position]] += number
        table = getattr(agreed, name)
        assert {(reviewed, now): n for reviewed, line in table.items() for now, n in line.items() if n} == counted
    assert agreed.new_misses == sum(
        n for (reviewed, was, now), n in cells.items() if (reviewed, now) == ("ng", "ok") != (reviewed, was)
    )


def test_a_run_without_results_has_a_report(engine: Engine, run_id: UUID) -> None:
    built = report.build_report(engine, run_id)
    assert (built.images, built.compared, built.changed) == (0, 0, 0)
    assert [(flip.flip, flip.share) for flip in built.flips] == [("ok_to_ng", None), ("ng_to_ok", None)]
    assert (built.scores.before, built.scores.after, built.scores.shift) == (None, None, None)
    assert (built.by_station, built.failures, built.agreement.reviewed) == ([], [], 0)


def test_images_without_inspections_have_no_earlier_verdict(engine: Engine, run_id: UUID) -> None:
    before = {"inspection_id", "image_day", *(f"before_{name}" for name in ("model_version_id", "score", "threshold"))}
    rows = [
        {**row, **dict.fromkeys(before), "before_verdict": None, "path": "a.png"} for row in random_result_rows(100)
    ]
    write_results(engine, run_id, rows)
    built = report.build_report(engine, run_id)
    assert (built.images, built.compared) == (100, 0)
    assert (built.scores.before, built.scores.shift, built.versions_before) == (None, None, {})
    assert built.scores.after is not None


def test_a_report_is_unchanged_until_its_data_changes(engine: Engine, run_id: UUID) -> None:
    rows = random_result_rows(100)
    write_results(engine, run_id, rows)
    first = report.build_report(engine, run_id).digest
    with engine.begin() as connection:
        connection.execute(text("UPDATE rescore_runs SET rate = 7, rated_at = clock_timestamp()"))
    assert report.build_report(engine, run_id).digest == first
    add_random_reviews(engine, rows)
    assert report.build_report(engine, run_id).digest != first


def listed(http: httpx.Client, path: str, **query: Any) -> list[dict[str, Any]]:
    """Return all items of a listing, read page by page."""
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
    write_results(engine, run_id, rows)
    review_verdicts = add_random_reviews(engine, rows)
    path = f"/v1/rescore-runs/{run_id}"
    with running_api(settings) as http:
        items = listed(http, f"{path}/results")
        assert [item["number"] for item in items] == list(range(1, 121))
        for result, row in zip(items, rows, strict=True):
            assert result["reviewed_verdict"] == review_verdicts.get(row["number"])
            assert (result["error"] or {}).get("code") == row["error_code"]
            if row["before_verdict"] is None:
                assert result["before"] is None
            else:
                assert result["before"] == {
                    "anomaly_score": row["before_score"],
                    "threshold": row["before_threshold"],
                    "verdict": row["before_verdict"],
                    "model_version": 1,
                }
            same = ("path", "part_id", "lot_id", "anomaly_score", "threshold", "verdict", "reasons", "metadata")
            assert {name: result[name] for name in same} == {name: row[name] for name in same}
        for name in ("verdict", "before_verdict", "line_id", "station_id", "error_code"):
            value = next(row[name] for row in rows if row[name])
            narrowed = [result["number"] for result in listed(http, f"{path}/results", **{name: value})]
            assert narrowed == [row["number"] for row in rows if row[name] == value]
        check_flips(http, f"{path}/flips", rows)
        for wrong in ("x", "-1", "9" * 30, "²"):
            assert http.get(f"{path}/results", params={"cursor": wrong}).json()["code"] == "invalid_cursor"
        assert http.get(f"{path}/flips", params={"was": "ok"}).json()["code"] == "invalid_field"
        for document in ("results", "flips", "report", "export"):
            assert http.get(f"/v1/rescore-runs/{uuid4()}/{document}").status_code == 404
        failed = next(row["number"] for row in rows if row["error_code"])
        in_archive = next(row["number"] for row in rows if row["verdict"] and row["image_day"] is None)
        for number, status, code in (
            (failed, 409, "invalid_transition"),
            (in_archive, 409, "invalid_transition"),
            (121, 404, "not_found"),
        ):
            refused = http.get(f"{path}/results/{number}/heatmap")
            assert (refused.status_code, refused.json()["code"]) == (status, code)
        answer = http.get(f"{path}/report")
        assert answer.status_code == 200, answer.text
        assert answer.json()["transitions"] == report.build_report(engine, run_id).transitions


def check_flips(http: httpx.Client, path: str, rows: list[dict[str, Any]]) -> None:
    flips = [row for row in rows if row["before_verdict"] and row["verdict"] not in (None, row["before_verdict"])]
    for was in (None, *VERDICTS):
        for now in (None, *VERDICTS):
            filters = {key: value for key, value in (("from", was), ("to", now)) if value}
            expected = [
                (row["number"], f"{row['before_verdict']}_to_{row['verdict']}")
                for row in flips
                if was in (None, row["before_verdict"]) and now in (None, row["verdict"])
            ]
            assert [(flip["number"], flip["flip"]) for flip in listed(http, path, **filters)] == expected


def test_exports_contain_all_results(settings: Settings, engine: Engine, run_id: UUID) -> None:
    rows = random_result_rows(2500)  # more than a page
    write_results(engine, run_id, rows)
    add_random_reviews(engine, rows)
    with running_api(settings) as http:
        for flips in (False, True):
            stored = [result for page in results.pages(engine, run_id, flips=flips, size=999) for result in page]
            path = f"/v1/rescore-runs/{run_id}/export"
            answer = http.get(path, params={"format": "parquet", "flips": flips})
            assert answer.headers["content-type"] == "application/vnd.apache.parquet"
            assert f"rescore-{run_id}" in answer.headers["content-disposition"]
            table = pq.read_table(io.BytesIO(answer.content)).to_pylist()
            assert table == [flat(result) for result in stored]
            lines = list(csv.reader(io.StringIO(http.get(path, params={"flips": flips}).text, newline="")))
            assert lines[0] == [column.name for column in exports.COLUMNS]
            column = lines[0].index("anomaly_score")
            assert [line[column] and float(line[column]) for line in lines[1:]] == [
                "" if result.anomaly_score is None else result.anomaly_score for result in stored
            ]
        assert len(stored) == report.build_report(engine, run_id).changed < 2500


def flat(result: RunResult) -> dict[str, Any]:
    """Return the expected row of a result."""
    values = {column.name: getattr(result, column.name) for column in exports.COLUMNS if hasattr(result, column.name)}
    newest = result.review
    return values | {
        "inspection_id": result.inspection_id and str(result.inspection_id),
        "image_sha256": result.image_sha256 and result.image_sha256.hex(),
        "reviewed_verdict": newest and newest.verdict,
        "reviewer": newest and newest.reviewer,
        "review_reason": newest and newest.reason,
        "reviewed_at": newest and newest.created_at,
        "metadata": None if result.metadata is None else json.dumps(result.metadata, ensure_ascii=False),
    }


def test_flips_are_ordered_by_the_distance_of_their_scores(engine: Engine, run_id: UUID) -> None:
    rows = random_result_rows(400)
    write_results(engine, run_id, rows)
    with engine.begin() as connection:
        moves = results.largest_moves(connection, run_id, "ok", "ng", limit=5)
        top = results.highest_scores(connection, run_id, limit=5)

    def moved(row: dict[str, Any]) -> float:
        was, now = unit(row["before_score"], row["before_threshold"]), unit(row["anomaly_score"], row["threshold"])
        return -1 if was is None or now is None else abs(now - was)

    flips = [row for row in rows if (row["before_verdict"], row["verdict"]) == ("ok", "ng")]
    assert [move.number for move in moves] == [
        row["number"] for row in sorted(flips, key=lambda row: (-moved(row), row["number"]))[:5]
    ]
    scores = [unit(row["anomaly_score"], row["threshold"]) for row in rows]
    assert [unit(result.anomaly_score, result.threshold) for result in top] == sorted(
        filter(None, scores), reverse=True
    )[:5]
