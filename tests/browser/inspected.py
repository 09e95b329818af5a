"""Six inspections of a recipe with a worker's real scores."""

from typing import Any

import httpx
import pytest

from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png


@pytest.fixture
def inspected(client: httpx.Client, recipe: str) -> list[dict[str, Any]]:
    """Inspections of parts SN-1 to SN-6, the newest last. Two of them are `ng`, and the others `ok`."""
    images = [png(seed) for seed in range(1, 7)]
    scores = sorted(final(client, submit(client, recipe, data)["id"])["anomaly_score"] for data in images)
    set_threshold(client, recipe, (scores[3] + scores[4]) / 2)
    accepted = [
        submit(client, recipe, data, part_id=f"SN-{number}", lot_id="L-204", station_id="st-7")
        for number, data in enumerate(images, start=1)
    ]
    results = [final(client, inspection["id"]) for inspection in accepted]
    assert sum(result["verdict"] == "ng" for result in results) == 2
    return results


def set_threshold(client: httpx.Client, recipe: str, threshold: float, review_threshold: float | None = None) -> None:
    limits = {"threshold": threshold, "review_threshold": review_threshold}
    client.post(f"/v1/recipes/{recipe}/model-versions/1/threshold", json=limits).raise_for_status()
