"""The held-out scores in a bundle are the reference of its scores from its upload on."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from core.models import model_versions
from core.settings import Settings
from core.vision.bundle.folder import read_folder, write_folder
from core.vision.bundle.manifest import MANIFEST, checksums
from core.vision.bundle.tar import pack
from core.vision.calibration.calibration import calibrate
from tests.fixtures.api_process import running_api
from tests.fixtures.scored_days import dispatch, good_scores, insert_scores

GOOD = good_scores(123, seed=1)


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    with running_api(settings) as client:
        client.post("/v1/recipes", json={"name": "ring"}).raise_for_status()
        yield client


def upload(http: httpx.Client, bundle: Path, folder: Path, content: bytes) -> httpx.Response:
    """Upload a bundle with `held_out_scores.json`."""
    files = read_folder(bundle) | {"held_out_scores.json": content}
    document = json.loads(files[MANIFEST])
    document["files"] |= checksums({"held_out_scores.json": content})
    calibration = calibrate(GOOD)
    document["threshold"] = {"value": calibration.threshold, "calibration": calibration.model_dump(mode="json")}
    write_folder(folder, {**files, MANIFEST: json.dumps(document).encode()})
    out = io.BytesIO()
    pack(folder, out)
    return http.post("/v1/recipes/ring/model-versions", content=out.getvalue())


def references(http: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = http.get("/v1/recipes/ring/drift").json()["references"]
    return found


def activate(engine: Engine) -> int:
    with engine.begin() as connection:
        version = model_versions.list_all(connection, "ring")[0]
        model_versions.mark_ready(connection, version.id)
        return version.id


def test_they_are_kept_at_the_upload(
    http: httpx.Client, engine: Engine, settings: Settings, bundle: Path, tmp_path: Path
) -> None:
    content = json.dumps({"scores": GOOD}).encode()
    assert upload(http, bundle, tmp_path / "first", content).status_code == 201
    assert upload(http, bundle, tmp_path / "again", content).status_code == 200
    insert_scores(engine, activate(engine), good_scores(100, seed=2))
    dispatch(settings)
    assert [(each["source"], each["parts"]) for each in references(http)] == [("held_out_scores", len(GOOD))]


def test_a_file_without_scores_is_no_reference(
    http: httpx.Client, engine: Engine, settings: Settings, bundle: Path, tmp_path: Path
) -> None:
    contents = [b"{", b"[]", b'{"rows": []}', b'["0.5", null, true]', b"[1e999]", b"9" * 400]
    for number, content in enumerate(contents):
        assert upload(http, bundle, tmp_path / f"bundle-{number}", content).status_code == 201
        insert_scores(engine, activate(engine), good_scores(10, seed=2))
    dispatch(settings)
    assert [each["source"] for each in references(http)] == ["none"] * len(contents)
