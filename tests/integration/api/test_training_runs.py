"""Training runs over HTTP, without workers: create, fill, start, list, wait and cancel."""

import hashlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from core.settings import Settings
from core.storage.folder_store import FolderStore
from tests.fixtures.api_process import running_api
from tests.fixtures.part_images import png

RECIPE = "ring"
RUNS = f"/v1/recipes/{RECIPE}/training-runs"
UNKNOWN = "0193e0c8-0000-7000-8000-000000000000"
QUICK: dict[str, Any] = {"architecture": "feature-gaussian", "input_size": 32, "seed": 7, "false_reject_rate": 0.1}


@pytest.fixture
def api(settings: Settings) -> Iterator[httpx.Client]:
    with running_api(settings, LINEWATCH_MAX_BATCH_IMAGES="20", LINEWATCH_MAX_UPLOAD_BYTES="100000") as http:
        for name in (RECIPE, "another"):
            http.post("/v1/recipes", json={"name": name}).raise_for_status()
        yield http


def create(api: httpx.Client, **request: Any) -> str:
    answer = api.post(RUNS, json=request)
    assert answer.status_code == 201, answer.text
    run_id: str = answer.json()["id"]
    return run_id


def add(api: httpx.Client, run_id: str, seeds: range, **fields: str) -> httpx.Response:
    files = [("images", (f"{seed:04}.png", png(seed))) for seed in seeds]
    return api.post(f"{RUNS}/{run_id}/images", files=files, data=fields)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_run_is_created_filled_started_and_cancelled(engine: Engine, api: httpx.Client) -> None:
    answer = api.post(RUNS, json={"options": QUICK, "compare": 20})
    run = answer.json()
    assert (answer.status_code, answer.headers["Location"]) == (201, f"{RUNS}/{run['id']}")
    assert (run["status"], run["recipe"], run["options"], run["compare"]) == ("open", RECIPE, QUICK, 20)
    assert (run["images"], run["inspections"], run["result"], run["attempt"]) == ({}, None, None, 0)
    assert api.get(answer.headers["Location"]).json() == run

    added = add(api, run["id"], range(12))
    assert (added.status_code, added.json()) == (
        200,
        {"added": 12, "duplicates": 0, "errors": [], "images": {"good": 12}},
    )
    add(api, run["id"], range(100, 102), label="test/good")
    further = add(api, run["id"], range(200, 203), items=json.dumps({"0202.png": {"label": "test/scratch"}})).json()
    assert further["images"] == {"good": 14, "test/good": 2, "test/scratch": 1}

    assert api.post(f"{RUNS}/{run['id']}/start").json()["status"] == "queued"
    assert code(api.post(f"{RUNS}/{run['id']}/start")) == (409, "invalid_transition")
    assert code(add(api, run["id"], range(300, 301))) == (409, "invalid_transition")
    assert code(api.get(f"{RUNS}/{run['id']}/report")) == (409, "invalid_transition")
    assert api.post(f"{RUNS}/{run['id']}/cancel").json()["status"] == "cancelled"
    assert code(api.post(f"{RUNS}/{run['id']}/cancel")) == (409, "invalid_transition")
    with engine.begin() as connection:
        actions = connection.execute(
            text("SELECT action, actor FROM audit_events WHERE subject = :subject ORDER BY id"),
            {"subject": f"training_run:{run['id']}"},
        ).all()
    assert [tuple(row) for row in actions] == [
        (f"training_run.{verb}", "local") for verb in ("created", "started", "cancelled")
    ]


def test_images_are_stored_once_and_a_repeated_request_adds_nothing(
    settings: Settings, engine: Engine, api: httpx.Client
) -> None:
    run_id = create(api)
    assert add(api, run_id, range(5)).json()["added"] == 5
    assert add(api, run_id, range(6)).json() | {"images": None} == {
        "added": 1, "duplicates": 5, "errors": [], "images": None,
    }  # fmt: skip
    other = add(api, run_id, range(1), label="test/scratch").json()
    assert (other["added"], other["duplicates"], other["images"]) == (0, 0, {"good": 6})
    [error] = other["errors"]
    assert (error["external_id"], error["code"], error["status"]) == ("0000.png", "invalid_field", 422)
    assert "'good'" in error["detail"]
    with engine.begin() as connection:
        rows = connection.execute(text("SELECT image_day, image_sha256, name FROM training_images ORDER BY name")).all()
    assert [row.name for row in rows] == [f"{seed:04}.png" for seed in range(6)]
    for seed, row in enumerate(rows):
        assert row.image_sha256 == hashlib.sha256(png(seed)).digest()
        assert FolderStore(settings.store_url).read(f"{row.image_day:%Y/%m/%d}/{row.image_sha256.hex()}") == png(seed)


def test_a_bad_image_is_refused_and_the_others_are_added(api: httpx.Client) -> None:
    run_id = create(api)
    files = [
        ("images", ("good.png", png(1))),
        ("images", ("text.png", b"not an image")),
        ("images", ("large.png", png(2) + bytes(200_000))),
        ("images", ("empty.png", b"")),
    ]
    answer = api.post(f"{RUNS}/{run_id}/images", files=files).json()
    assert (answer["added"], answer["images"]) == (1, {"good": 1})
    assert [(error["external_id"], error["code"]) for error in answer["errors"]] == [
        ("text.png", "unsupported_media_type"),
        ("large.png", "upload_too_large"),
        ("empty.png", "empty_body"),
    ]
    assert code(api.post(f"{RUNS}/{run_id}/images", files=files[1:2])) == (415, "unsupported_media_type")


WRONG_FORMS: list[tuple[dict[str, Any], tuple[int, str]]] = [
    ({"json": {}}, (415, "unsupported_media_type")),
    ({"files": {"images": ("a.png", png(1))}, "data": {"label": "bad"}}, (422, "invalid_field")),
    ({"files": {"images": ("a.png", png(1))}, "data": {"label": "test/../x"}}, (422, "invalid_field")),
    ({"files": {"images": ("a.png", png(1))}, "data": {"lot": "L"}}, (422, "invalid_field")),
    ({"files": {"images": ("a.png", png(1))}, "data": {"items": '{"b.png": {}}'}}, (422, "invalid_field")),
    ({"files": {"images": ("a.png", png(1))}, "data": {"items": '{"a.png": {"lot": 1}}'}}, (422, "invalid_field")),
    ({"files": {"images": ("a.png", png(1))}, "data": {"items": "["}}, (422, "invalid_field")),
    ({"files": {"label": (None, "good")}}, (400, "empty_body")),
    ({"files": [("images", (f"{number}.png", png(number))) for number in range(21)]}, (413, "too_many_images")),
]


def test_a_wrong_form_is_refused_and_adds_nothing(api: httpx.Client) -> None:
    run_id = create(api)
    for form, refusal in WRONG_FORMS:
        assert code(api.post(f"{RUNS}/{run_id}/images", **form)) == refusal, form
    assert api.get(f"{RUNS}/{run_id}").json()["images"] == {}


WRONG_REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({"options": {"architecture": "loudest"}}, "options.architecture"),
    ({"options": {"budget": 3}}, "options.budget"),
    ({"options": {"budget_seconds": 0}}, "options.budget_seconds"),
    ({"options": {"epochs": 0}}, "options.epochs"),
    ({"options": {"false_reject_rate": 1}}, "options.false_reject_rate"),
    ({"options": {"false_reject_rate": 0.2, "review_rate": 0.1}}, "the review rate must be between"),
    ({"options": {"architecture": "conv-autoencoder", "pooling": 0.1}}, "conv-autoencoder has no pooling"),
    ({"options": {"architecture": "conv-autoencoder", "backbone": "resnet18"}}, "conv-autoencoder has no backbone"),
    ({"options": {"architecture": "memory-bank", "score_method": "mse"}}, "only one score method"),
    ({"options": {"group_by": "part("}}, "options.group_by"),
    ({"options": {"group_by": "parts.csv:part"}}, "options.group_by"),
    ({"options": {"group_by": "part"}}, "options.group_by"),
    ({"options": {"backbone_weights": "/etc/passwd"}}, "options.backbone_weights"),
    ({"inspections": {"good": "all"}}, "inspections.good"),
    ({"inspections": {"limit": 0}}, "inspections.limit"),
    ({"inspections": {"since": "yesterday"}}, "inspections.since"),
    ({"compare": -1}, "compare"),
    ({"images": []}, "images"),
]


def test_nonsense_is_refused_with_the_field_name(api: httpx.Client) -> None:
    for request, names in WRONG_REQUESTS:
        answer = api.post(RUNS, json=request)
        assert code(answer) == (422, "invalid_field"), (request, answer.text)
        assert names in answer.json()["detail"], (request, answer.text)
    assert api.get(RUNS).json()["items"] == []


@hypothesis_settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from([*QUICK, "pose", "pooling", "group_by", "max_ms"]), st.one_of(
    st.none(), st.floats(), st.integers(), st.text(max_size=20), st.lists(st.integers(), max_size=2),
)))  # fmt: skip
def test_any_options_are_accepted_or_refused(api: httpx.Client, options: dict[str, Any]) -> None:
    body = json.dumps({"options": options}, ensure_ascii=True)
    answer = api.post(RUNS, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (201, 400, 422), answer.text
    if answer.status_code == 201:
        kept = {name: value for name, value in options.items() if value is not None}
        assert answer.json()["options"] == kept


def test_a_run_with_too_few_images_is_not_started(api: httpx.Client) -> None:
    run_id = create(api)
    add(api, run_id, range(9))
    add(api, run_id, range(100, 105), label="test/good")
    answer = api.post(f"{RUNS}/{run_id}/start")
    assert code(answer) == (409, "invalid_transition")
    assert "has 9 images of good parts, and at least 10 are needed" in answer.json()["detail"]
    assert api.get(f"{RUNS}/{run_id}").json()["status"] == "open"
    from_inspections = create(api, inspections={"good": "effective", "lot_id": "L-1"})
    assert api.post(f"{RUNS}/{from_inspections}/start").json()["status"] == "queued"


def test_runs_belong_to_their_recipe_and_are_listed_newest_first(api: httpx.Client) -> None:
    ids = [create(api) for _ in range(3)]
    api.post(f"{RUNS}/{ids[0]}/cancel")
    page = api.get(RUNS, params={"limit": 2}).json()
    assert [run["id"] for run in page["items"]] == [ids[2], ids[1]]
    rest = api.get(RUNS, params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert ([run["id"] for run in rest["items"]], rest["next_cursor"]) == ([ids[0]], None)
    assert [run["id"] for run in api.get(RUNS, params={"status": "cancelled"}).json()["items"]] == [ids[0]]
    elsewhere = RUNS.replace(RECIPE, "another")
    assert api.get(elsewhere).json()["items"] == []
    for path in (f"{elsewhere}/{ids[1]}", f"{RUNS}/{UNKNOWN}"):
        assert code(api.get(path)) == (404, "not_found")
        assert code(api.get(f"{path}/report")) == (404, "not_found")
        for verb in ("start", "cancel"):
            assert code(api.post(f"{path}/{verb}")) == (404, "not_found")
        assert code(api.post(f"{path}/images", files={"images": ("a.png", png(1))})) == (404, "not_found")
    assert code(api.post("/v1/recipes/nobody/training-runs", json={})) == (404, "recipe_unknown")


def test_one_idempotency_key_creates_one_run(api: httpx.Client) -> None:
    headers = {"Idempotency-Key": "monday"}
    first = api.post(RUNS, json={"options": QUICK}, headers=headers)
    add(api, first.json()["id"], range(3))
    api.post(f"{first.headers['Location']}/cancel")
    again = api.post(RUNS, json={"options": QUICK}, headers=headers)
    assert (again.status_code, again.headers["Idempotency-Replayed"], again.json()) == (201, "true", first.json())
    assert code(api.post(RUNS, json={}, headers=headers)) == (422, "idempotency_mismatch")


def test_a_long_poll_is_answered_when_the_run_ends(api: httpx.Client) -> None:
    run_id = create(api)
    assert api.get(f"{RUNS}/{run_id}", params={"wait": 0.1}).json()["status"] == "open"
    answers: list[str] = []
    waiting = threading.Thread(
        target=lambda: answers.append(api.get(f"{RUNS}/{run_id}", params={"wait": 60}).json()["status"])
    )
    waiting.start()
    api.post(f"{RUNS}/{run_id}/cancel")
    waiting.join(30)
    assert answers == ["cancelled"]
