"""A recipe with two versions and inspections of version 1, for the views of models and of re-scoring."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Locator, expect

from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png
from tests.fixtures.running_system import upload_bundle

SLOW = 30_000
"""Milliseconds within which work of a worker appears on the page, at the latest."""
RUNS = "/v1/rescore-runs"


@dataclass(frozen=True)
class Scored:
    """A recipe, whose version 1 is active and has scored `inspections`: two are `ng`, the others `ok`.

    Version 2 is ready; by its threshold, every part is `ok`.
    """

    client: httpx.Client
    recipe: str
    inspections: list[dict[str, Any]]

    @classmethod
    def make(cls, client: httpx.Client, recipe: str, second: Path) -> "Scored":
        images = [png(seed) for seed in range(1, 7)]
        scores = sorted(final(client, submit(client, recipe, data)["id"])["anomaly_score"] for data in images)
        threshold = {"threshold": (scores[3] + scores[4]) / 2}
        client.post(f"/v1/recipes/{recipe}/model-versions/1/threshold", json=threshold).raise_for_status()
        accepted = [
            submit(client, recipe, data, part_id=f"SN-{number}", lot_id="L-204")
            for number, data in enumerate(images, start=1)
        ]
        results = [final(client, inspection["id"]) for inspection in accepted]
        assert sum(result["verdict"] == "ng" for result in results) == 2
        assert upload_bundle(client, recipe, second) == 2
        return cls(client, recipe, results)

    def start(self, version: int = 2, **fields: Any) -> dict[str, Any]:
        """Start a run, by default over all inspections of lot L-204, and return it."""
        source = {"where": {"lot_id": "L-204"}}
        body = {"recipe": self.recipe, "model_version": version, "source": source, **fields}
        answer = self.client.post(RUNS, json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()  # type: ignore[no-any-return]

    def run(self, **fields: Any) -> dict[str, Any]:
        """Start a run, wait until it is completed, and return it."""
        run = self.get(f"{RUNS}/{self.start(**fields)['id']}?wait=60")
        assert run["status"] == "completed", run
        return run

    def get(self, path: str) -> dict[str, Any]:
        """Return a document of the API."""
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]


def expect_figure(panel: Locator, name: str, value: int) -> None:
    """Expect that a figure of a panel has this value."""
    named = panel.page.locator("dt").get_by_text(name, exact=True)
    figure = panel.locator(".figure").filter(has=named)
    expect(figure.locator("dd")).to_have_text(str(value), timeout=SLOW)
