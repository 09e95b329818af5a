"""A re-scoring run over inspections that somebody selected by their ids."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png
from tests.fixtures.running_system import upload_bundle

RUNS = "/v1/rescore-runs"


def test_a_run_scores_only_the_selected_inspections_of_its_recipe(
    client: httpx.Client, recipe: str, bundle: Path, another_bundle: Path
) -> None:
    other = f"other-{uuid4().hex[:12]}"
    assert client.post("/v1/recipes", json={"name": other}).status_code == 201
    upload_bundle(client, other, bundle)
    accepted = [submit(client, recipe, png(seed), lot_id=f"L-{seed % 2}") for seed in range(6)]
    foreign = submit(client, other, png(9))
    for inspection in (*accepted, foreign):
        final(client, inspection["id"])
    chosen = [inspection["id"] for inspection in accepted[1:4]]
    ids = [*chosen, foreign["id"], str(uuid4())]
    version = upload_bundle(client, recipe, another_bundle)

    def count(**where: Any) -> int:
        answer = client.post(f"{RUNS}/count", json=body(**where))
        assert answer.status_code == 200, answer.text
        images: int = answer.json()["images"]
        return images

    def body(**where: Any) -> dict[str, Any]:
        return {"recipe": recipe, "model_version": version, "source": {"where": {"ids": ids, **where}}}

    assert (count(), count(lot_id="L-0"), count(ids=[foreign["id"]])) == (3, 1, 0)
    # Version 2 runs the network; version 1 has scored them, so their stored scores are compared.
    for request in (body(), {**body(), "model_version": 1, "threshold": 1e-9}):
        run = client.post(RUNS, json=request).json()
        assert run["source"]["where"]["ids"] == ids
        done = client.get(f"{RUNS}/{run['id']}", params={"wait": 60}).json()
        assert (done["status"], done["counts"]["total"]) == ("completed", 3)
        results = client.get(f"{RUNS}/{run['id']}/results").json()["items"]
        assert [result["inspection_id"] for result in results] == chosen
    report = client.get(f"{RUNS}/{run['id']}/report", params={"format": "html"})
    assert "5 selected inspections" in report.text


def test_a_selection_has_1_to_1000_ids(client: httpx.Client, recipe: str) -> None:
    for ids in ([], [str(uuid4())] * 1001, ["SN-1"]):
        body = {"recipe": recipe, "model_version": 1, "source": {"where": {"ids": ids}}}
        answer = client.post(f"{RUNS}/count", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")
        assert "source.where.ids" in answer.json()["detail"]
