"""Choose a threshold: preview with the expected false-reject rate, scores, reasons, and the history to undo it."""

import datetime as dt
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import Engine, select

from core.access.tables import audit_events
from core.models import model_versions
from core.settings import Settings
from core.vision.bundle.folder import read_folder, write_folder
from core.vision.bundle.held_out_scores import HELD_OUT_SCORES, encode_held_out_scores
from core.vision.bundle.manifest import MANIFEST, checksums
from core.vision.bundle.tar import pack
from core.vision.calibration.calibration import calibrate
from tests.fixtures.api_process import running_api
from tests.fixtures.random_results import add_review
from tests.fixtures.timed_inspections import insert_final, insert_image

VERSION = "/v1/recipes/ring/model-versions/1"
SCORES = sorted(np.random.default_rng(0).gamma(2.0, size=99).tolist())
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    with running_api(settings) as client:
        client.post("/v1/recipes", json={"name": "ring"}).raise_for_status()
        yield client


def upload(http: httpx.Client, bundle: Path, folder: Path, *, with_scores: bool) -> dict[str, Any]:
    """Upload a bundle with a calibration, with or without its held-out scores."""
    files = read_folder(bundle)
    document = json.loads(files[MANIFEST])
    calibration = calibrate(SCORES, 0.1, cross_fitted=True)
    document["threshold"] = {"value": calibration.threshold, "calibration": calibration.model_dump(mode="json")}
    if with_scores:
        files[HELD_OUT_SCORES] = encode_held_out_scores(reversed(SCORES))
        document["files"] |= checksums({HELD_OUT_SCORES: files[HELD_OUT_SCORES]})
    write_folder(folder, {**files, MANIFEST: json.dumps(document).encode()})
    tar = io.BytesIO()
    pack(folder, tar)
    version: dict[str, Any] = (
        http.post("/v1/recipes/ring/model-versions", content=tar.getvalue()).raise_for_status().json()
    )
    return version


def preview(http: httpx.Client, threshold: float, **fields: Any) -> dict[str, Any]:
    new = {"threshold": threshold, "preview": True, **fields}
    document: dict[str, Any] = http.post(f"{VERSION}/threshold", json=new).raise_for_status().json()
    read: dict[str, Any] = (
        http.get(f"{VERSION}/threshold-preview", params={"threshold": threshold, **fields}).raise_for_status().json()
    )
    assert read | {"since": None} == document | {"since": None}
    return document


def set_threshold(http: httpx.Client, threshold: float, **fields: Any) -> dict[str, Any]:
    answer = http.post(f"{VERSION}/threshold", json={"threshold": threshold, **fields})
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def history(http: httpx.Client, **params: Any) -> list[dict[str, Any]]:
    page = http.get(f"{VERSION}/thresholds", params=params).raise_for_status().json()
    assert page["next_cursor"] is None
    items: list[dict[str, Any]] = page["items"]
    return items


def test_the_expected_rate_of_any_threshold_comes_from_the_bundle_or_the_newest_calibration(
    http: httpx.Client, bundle: Path, tmp_path: Path
) -> None:
    version = upload(http, bundle, tmp_path / "bundle", with_scores=True)
    [seed] = version["thresholds"]
    expected = preview(http, seed["threshold"])["expected_false_reject_rate"]
    calibration = seed["calibration"]
    assert expected["rate"] == pytest.approx(calibration["expected_false_reject_rate"])
    assert expected["confidence_interval"] == pytest.approx(calibration["confidence_interval"], rel=1e-5)
    for name in ("confidence", "sample_size", "effective_sample_size"):
        assert expected[name] == calibration[name]
    assert preview(http, SCORES[49])["expected_false_reject_rate"]["rate"] == pytest.approx(51 / 100)
    set_threshold(http, 5.0)  # by hand: the sample stays the same
    assert preview(http, SCORES[49])["expected_false_reject_rate"]["rate"] == pytest.approx(51 / 100)

    station = calibrate(np.array(SCORES[:30]), 0.1)
    fields = {"calibration": station.model_dump(mode="json"), "held_out_scores": SCORES[:30], "station_id": "st-7"}
    set_threshold(http, station.threshold, **fields)
    assert preview(http, SCORES[49])["expected_false_reject_rate"]["sample_size"] == 99
    there = preview(http, station.threshold, station_id="st-7")["expected_false_reject_rate"]
    assert (there["sample_size"], there["rate"]) == (30, pytest.approx(station.expected_false_reject_rate))
    assert preview(http, 1.0, station_id="st-8")["expected_false_reject_rate"]["sample_size"] == 99


def test_an_earlier_bundle_has_no_expected_rate_at_other_thresholds(
    http: httpx.Client, bundle: Path, tmp_path: Path
) -> None:
    upload(http, bundle, tmp_path / "bundle", with_scores=False)
    assert preview(http, 1.0)["expected_false_reject_rate"] is None


def test_the_history_says_who_set_which_threshold_and_why(
    http: httpx.Client, engine: Engine, bundle: Path, tmp_path: Path
) -> None:
    version = upload(http, bundle, tmp_path / "bundle", with_scores=True)
    first = version["thresholds"][0]["threshold"]
    set_threshold(http, 5.0, reason="  too many false rejects ")
    set_threshold(http, 3.0, station_id="st-7")
    undone = history(http)[1]
    assert undone["threshold"] == 5.0
    earlier = history(http)[2]
    fields = {name: earlier[name] for name in ("review_threshold", "station_id", "calibration")}
    back = set_threshold(http, earlier["threshold"], **fields, reason="undo")
    assert back["calibration"] == earlier["calibration"]
    items = history(http)
    assert [(item["threshold"], item["station_id"], item["reason"], item["in_force"]) for item in items] == [
        (first, None, "undo", True),
        (3.0, "st-7", None, True),
        (5.0, None, "too many false rejects", False),
        (first, None, None, False),
    ]
    assert {item["actor"] for item in items} == {"local"}
    assert [item["threshold"] for item in history(http, station_id="st-7")] == [3.0]
    with engine.begin() as connection:
        query = (
            select(audit_events.c.detail).where(audit_events.c.action == "threshold.set").order_by(audit_events.c.id)
        )
        reasons = [detail["reason"] for detail in connection.execute(query).scalars()]
    assert reasons == ["too many false rejects", None, "undo"]


def test_the_history_comes_in_pages(http: httpx.Client, bundle: Path, tmp_path: Path) -> None:
    upload(http, bundle, tmp_path / "bundle", with_scores=False)
    for number in range(4):
        set_threshold(http, float(number))
    listed, cursor = [], None
    while True:
        params = {"limit": "2"} | ({} if cursor is None else {"cursor": cursor})
        page = http.get(f"{VERSION}/thresholds", params=params).json()
        listed += [item["threshold"] for item in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert listed[:4] == [3.0, 2.0, 1.0, 0.0]
    assert len(listed) == 5
    wrong = http.get(f"{VERSION}/thresholds", params={"cursor": "x"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_cursor")


def test_scores_and_previews_count_the_inspections_of_the_listing(
    http: httpx.Client, engine: Engine, bundle: Path, tmp_path: Path
) -> None:
    upload(http, bundle, tmp_path / "bundle", with_scores=True)
    with engine.begin() as connection:
        insert_image(connection)
        version = model_versions.get(connection, "ring", 1)
        for number in range(40):
            fields = {"verdict": "ng" if number >= 30 else "ok", "anomaly_score": number / 10}
            at = NOW - dt.timedelta(minutes=number)
            inspection_id = insert_final(
                connection, version.recipe_id, at, duration=dt.timedelta(), model_version_id=version.id, **fields
            )
            if number % 10 == 0:
                add_review(connection, inspection_id, "ok")
    scores = http.get(f"{VERSION}/scores", params={"bins": 8}).raise_for_status().json()
    assert (scores["recipe"], scores["version"], scores["count"], scores["truncated"]) == ("ring", 1, 40, False)
    assert (scores["min"], scores["max"], scores["quantiles"]["p50"]) == (0.0, 3.9, 1.9)
    assert len(scores["bins"]) == 9
    for each in scores["bins"]:
        params = {"recipe": "ring", "model_version": 1, "status": "completed", "min_score": each["low"]}
        items = http.get("/v1/inspections", params=params).json()["items"]
        inside = [item for item in items if each["high"] is None or item["anomaly_score"] < each["high"]]
        for verdict in ("ok", "ng", "review"):
            assert each[verdict] == sum(item["verdict"] == verdict for item in inside)
        assert each["reviewed_ok"] == sum(bool(item["reviews"]) for item in inside)
    assert [sum(each[name] for each in scores["bins"]) for name in ("reviewed_ok", "reviewed_ng")] == [4, 0]
    compared = preview(http, 2.0)
    assert [(flip["from"], flip["to"], flip["count"]) for flip in compared["flips"]] == [("ok", "ng", 10)]
    assert compared["reviewed"] == {"ok": {"ok": 2, "ng": 2, "review": 0}, "ng": {"ok": 0, "ng": 0, "review": 0}}
    assert compared["agreement"] == 0.5


def test_wrong_requests_are_refused(http: httpx.Client, bundle: Path, tmp_path: Path) -> None:
    upload(http, bundle, tmp_path / "bundle", with_scores=True)
    calibration = calibrate(SCORES, 0.1)
    known = {"calibration": calibration.model_dump(mode="json")}
    for body in (
        {"threshold": 1, "held_out_scores": [1.0]},
        {"threshold": calibration.threshold, **known, "held_out_scores": SCORES[1:]},
        {"threshold": 1, "reason": " "},
        {"threshold": 1, "reason": "x" * 2001},
    ):
        answer = http.post(f"{VERSION}/threshold", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field"), body
    for path, params, status in (
        (f"{VERSION}/threshold-preview", {}, 422),
        (f"{VERSION}/threshold-preview", {"threshold": "1", "review_threshold": "2"}, 422),
        (f"{VERSION}/threshold-preview", {"threshold": "nan"}, 422),
        ("/v1/recipes/ring/model-versions/9/threshold-preview", {"threshold": "1"}, 404),
        (f"{VERSION}/scores", {"bins": "0"}, 422),
        (f"{VERSION}/scores", {"bins": "201"}, 422),
        (f"{VERSION}/scores", {"since": NOW.isoformat(), "until": NOW.isoformat()}, 422),
        ("/v1/recipes/ring/model-versions/9/scores", {}, 404),
        ("/v1/recipes/none/model-versions/1/scores", {}, 404),
        ("/v1/recipes/ring/model-versions/9/thresholds", {}, 404),
        ("/v1/inspections", {"model_version": "1"}, 422),
        ("/v1/inspections", {"recipe": "ring", "model_version": "9"}, 404),
        ("/v1/inspections", {"min_score": "nan"}, 422),
        ("/v1/inspections", {"min_score": "2", "max_score": "1"}, 422),
        ("/v1/inspections", {"min_score_ratio": "-1"}, 422),
        ("/v1/inspections/export", {"min_score_ratio": "2", "max_score_ratio": "1.5"}, 422),
        ("/v1/inspections", {"reviewer": ""}, 422),
    ):
        answer = http.get(path, params=params)
        assert answer.status_code == status, (path, params, answer.text)
        assert answer.headers["Content-Type"] == "application/problem+json"
