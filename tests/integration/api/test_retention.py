"""Policies and legal holds over HTTP, and the answers for what was removed."""

import datetime as dt
import io
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import Engine, text

from core.retention import rounds
from core.retention.removals import Scope
from core.settings import Settings
from core.storage.folder_store import FolderStore
from core.vision.bundle.tar import pack
from tests.fixtures.api_process import running_api
from tests.fixtures.part_images import png
from tests.fixtures.retained_plant import Part, Plant, build, part_id

POLICY = {"ok_images_days": 30, "ng_images_days": 365, "review_images_days": None, "rows_days": 730}
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    with running_api(settings) as client:
        yield client


def apply(engine: Engine, settings: Settings) -> None:
    for _ in rounds.steps(Scope(engine, NOW.date(), 30), FolderStore(settings.store_url)):
        pass


def test_a_recipe_has_a_policy_that_is_replaced_as_a_whole_and_audited(http: httpx.Client) -> None:
    assert http.post("/v1/recipes", json={"name": "ring"}).json()["retention"] is None
    changed = http.patch("/v1/recipes/ring", json={"retention": POLICY})
    assert (changed.status_code, changed.json()["retention"]) == (200, POLICY)
    assert http.get("/v1/recipes/ring").json()["retention"] == POLICY
    assert http.patch("/v1/recipes/ring", json={"without_model": "wait"}).json()["retention"] == POLICY
    replaced = http.patch("/v1/recipes/ring", json={"retention": {"ok_images_days": 7}}).json()["retention"]
    assert replaced == dict.fromkeys(POLICY) | {"ok_images_days": 7}
    assert http.patch("/v1/recipes/ring", json={"retention": None}).json()["retention"] is None
    created = http.post("/v1/recipes", json={"name": "plate", "retention": POLICY})
    assert created.json()["retention"] == POLICY
    events = http.get("/v1/audit-events", params={"subject": "recipe:ring", "action": "recipe.changed"}).json()["items"]
    assert [event["detail"].get("retention", "same") for event in events] == [None, replaced, "same", POLICY]


WRONG_POLICIES: list[object] = [
    {"ok_images_days": 0},
    {"ok_images_days": -1},
    {"ok_images_days": 1.5},
    {"ok_images_days": "30"},
    {"ok_images_days": True},
    {"rows_days": 36_501},
    {"ng_images_days": 31, "rows_days": 30},
    {"images_days": 30},
    [],
    "30d",
]


def test_another_policy_is_refused(http: httpx.Client) -> None:
    http.post("/v1/recipes", json={"name": "ring"})
    for policy in WRONG_POLICIES:
        answer = http.patch("/v1/recipes/ring", json={"retention": policy})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field"), policy
    assert http.get("/v1/recipes/ring").json()["retention"] is None


def test_a_hold_is_set_listed_and_released_with_actor_and_reason(http: httpx.Client) -> None:
    created = http.post("/v1/legal-holds", json={"lot_id": "L-204", "reason": "complaint 17"})
    assert created.status_code == 201
    hold = created.json()
    assert http.get(created.headers["Location"]).json() == hold
    assert (hold["lot_id"], hold["part_id"], hold["actor"], hold["released_at"]) == ("L-204", None, "local", None)
    other = http.post("/v1/legal-holds", json={"part_id": "SN-1", "reason": "recall"}).json()
    assert [one["id"] for one in http.get("/v1/legal-holds").json()["items"]] == [other["id"], hold["id"]]
    page = http.get("/v1/legal-holds", params={"limit": 1}).json()
    following = http.get("/v1/legal-holds", params={"limit": 1, "cursor": page["next_cursor"]}).json()
    assert (following["items"], following["next_cursor"]) == ([hold], None)
    for filters, listed in (
        ({"lot_id": "L-204"}, [hold]),
        ({"part_id": "SN-1"}, [other]),
        ({"lot_id": "L-204", "part_id": "SN-1"}, [other, hold]),
        ({"lot_id": "SN-1", "part_id": "L-204"}, []),
    ):
        assert http.get("/v1/legal-holds", params=filters).json()["items"] == listed

    released = http.post(f"/v1/legal-holds/{hold['id']}/release", json={"reason": "settled"}).json()
    assert (released["released_by"], released["release_reason"]) == ("local", "settled")
    again = http.post(f"/v1/legal-holds/{hold['id']}/release", json={"reason": "settled"})
    assert (again.status_code, again.json()["code"]) == (409, "invalid_transition")
    assert [one["id"] for one in http.get("/v1/legal-holds?state=active").json()["items"]] == [other["id"]]
    assert [one["id"] for one in http.get("/v1/legal-holds?state=released").json()["items"]] == [hold["id"]]
    events = http.get("/v1/audit-events", params={"subject": f"legal_hold:{hold['id']}"}).json()["items"]
    assert [(event["action"], event["detail"]) for event in events] == [
        ("legal_hold.released", {"of": "lot:L-204", "reason": "settled"}),
        ("legal_hold.set", {"of": "lot:L-204", "reason": "complaint 17"}),
    ]


def test_a_hold_needs_either_a_lot_or_a_part_and_a_reason(http: httpx.Client) -> None:
    for body in (
        {"reason": "recall"},
        {"lot_id": "L", "part_id": "P", "reason": "recall"},
        {"lot_id": "L"},
        {"lot_id": "L", "reason": " "},
    ):
        answer = http.post("/v1/legal-holds", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field"), body
    assert http.get(f"/v1/legal-holds/{uuid4()}").status_code == 404
    assert http.post(f"/v1/legal-holds/{uuid4()}/release", json={"reason": "none"}).status_code == 404


def test_the_image_of_an_older_inspection_is_gone_and_its_result_stays(
    http: httpx.Client, engine: Engine, settings: Settings
) -> None:
    part = Part(0, NOW.date() - dt.timedelta(days=40), 1, "ok", part="SN-9")
    build(engine, FolderStore(settings.store_url), Plant([None], [part]))
    address = f"/v1/inspections/{part_id(0, part)}"
    assert http.get(f"{address}/image").status_code == 200
    http.patch("/v1/recipes/r0", json={"retention": POLICY})
    apply(engine, settings)
    for product in ("image", "thumbnail", "similar"):
        answer = http.get(f"{address}/{product}")
        assert (answer.status_code, answer.json()["code"]) == (410, "image_expired"), product
    assert http.get(address).json()["verdict"] == "ok"
    assert [one["id"] for one in http.get("/v1/inspections?part_id=SN-9").json()["items"]] == [str(part_id(0, part))]


def test_an_inspection_of_a_removed_month_is_named_as_expired(
    http: httpx.Client, engine: Engine, settings: Settings
) -> None:
    part = Part(0, dt.date(2026, 12, 20), 1, "ok", reviews=("ok",))
    build(engine, FolderStore(settings.store_url), Plant([None], [part]))
    http.patch("/v1/recipes/r0", json={"retention": {"rows_days": 1}})
    for _ in rounds.steps(Scope(engine, dt.date(2027, 3, 20), 30), FolderStore(settings.store_url)):
        pass
    for path in ("", "/image", "/thumbnail", "/heatmap"):
        answer = http.get(f"/v1/inspections/{part_id(0, part)}{path}")
        assert (answer.status_code, answer.json()["code"]) == (410, "inspection_expired"), path
    assert http.get(f"/v1/inspections/{UUID(int=1)}").status_code == 404
    [event] = http.get("/v1/audit-events", params={"subject": "month:2026-12"}).json()["items"]
    assert (event["actor"], event["action"]) == ("retention", "inspections.removed")


def test_a_hold_keeps_an_image_from_the_moment_it_is_set(
    http: httpx.Client, engine: Engine, settings: Settings
) -> None:
    part = Part(0, NOW.date() - dt.timedelta(days=40), 1, "ok", lot="L-1")
    build(engine, FolderStore(settings.store_url), Plant([None], [part]))
    hold = http.post("/v1/legal-holds", json={"lot_id": "L-1", "reason": "recall"}).json()
    http.patch("/v1/recipes/r0", json={"retention": POLICY})
    apply(engine, settings)
    address = f"/v1/inspections/{part_id(0, part)}/image"
    assert http.get(address).status_code == 200
    http.post(f"/v1/legal-holds/{hold['id']}/release", json={"reason": "settled"})
    apply(engine, settings)
    assert http.get(address).status_code == 410


def test_an_upload_of_the_bytes_of_a_removed_image_is_stored_again(
    http: httpx.Client, engine: Engine, settings: Settings
) -> None:
    http.post("/v1/recipes", json={"name": "ring", "without_model": "wait", "retention": {"ok_images_days": 3}})
    first = http.post("/v1/inspections?recipe=ring", content=png(1), headers={"Content-Type": "image/png"}).json()
    with engine.begin() as connection:
        connection.execute(text("UPDATE images SET removed_at = now(), day = day - 10"))
        connection.execute(text("UPDATE work SET image_day = image_day - 10"))
    second = http.post("/v1/inspections?recipe=ring", content=png(1), headers={"Content-Type": "image/png"}).json()
    apply(engine, settings)
    assert http.get(f"/v1/inspections/{first['id']}/image").status_code == 410
    assert http.get(f"/v1/inspections/{second['id']}/image").content == png(1)


def test_uploads_are_refused_while_the_store_has_too_little_room(settings: Settings) -> None:
    with running_api(settings, LINEWATCH_MIN_FREE_BYTES=str(10**18)) as http:
        created = http.post("/v1/recipes", json={"name": "ring", "without_model": "wait"})
        assert created.status_code == 201
        for answer in (
            http.post("/v1/inspections?recipe=ring", content=png(1), headers={"Content-Type": "image/png"}),
            http.post("/v1/inspections?recipe=ring", files={"image": ("a.png", png(1))}),
            http.post("/v1/batches", data={"recipe": "ring"}, files={"images": ("a.png", png(1))}),
            http.post("/v1/recipes/ring/model-versions", content=b"x"),
            http.post("/heatmap", files={"file": ("a.png", png(1))}),
            http.get("/readyz"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "store_full")
            assert int(answer.headers["Retry-After"]) >= 1
            assert "MB are free" in answer.json()["detail"]
        system = http.get("/v1/system").json()
        assert system["store"]["min_free_bytes"] == 10**18
        assert any("uploads are refused" in reason for reason in system["health"]["reasons"])
        assert http.get("/v1/inspections").json()["items"] == []


def test_the_bundle_of_a_retired_version_is_uploaded_again(
    http: httpx.Client, engine: Engine, settings: Settings, bundle: Path
) -> None:
    http.post("/v1/recipes", json={"name": "ring"})
    tar = io.BytesIO()
    pack(bundle, tar)
    versions = "/v1/recipes/ring/model-versions"
    uploaded = http.post(versions, content=tar.getvalue()).json()
    with engine.begin() as connection:
        connection.execute(text("UPDATE model_versions SET state = 'retired'"))
    FolderStore(settings.store_url).delete([f"models/{uploaded['sha256']}.tar"])
    retired = http.get(f"{versions}/1").json()
    assert (retired["state"], retired["bundle_bytes"]) == ("retired", None)
    assert http.get(f"{versions}/1/bundle").status_code == 404
    refused = http.post(f"{versions}/1/activate")
    assert (refused.status_code, refused.json()["code"]) == (409, "model_not_ready")
    again = http.post(versions, content=tar.getvalue())
    assert (again.status_code, again.json()["state"]) == (200, "uploaded")
    assert http.get(f"{versions}/1/bundle").content == tar.getvalue()
