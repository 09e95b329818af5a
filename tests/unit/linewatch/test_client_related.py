"""What is related to an inspection, with both clients, against a scripted server."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pytest

from linewatch import Refused
from tests.fixtures.mock_system import INSPECTION, RUN, ScriptedServer, problem

PATH = f"/v1/inspections/{INSPECTION['id']}"
RESCORE: dict[str, Any] = {
    "run_id": RUN["id"],
    "kind": "archive",
    "run_status": "completed",
    "model": {"version": 2, "sha256": "00"},
    "number": 7,
    "anomaly_score": 0.6,
    "threshold": 0.5,
    "review_threshold": None,
    "verdict": "ng",
    "before": {"anomaly_score": 0.4, "threshold": 0.5, "verdict": "ok", "model_version": 1},
    "flip": "ok_to_ng",
    "reasons": [],
    "error": None,
    "scored_at": "2026-01-01T00:00:00Z",
}


def test_similar_good_parts_have_a_similarity(client: Callable[..., Any]) -> None:
    answer = {"items": [{**INSPECTION, "similarity": 0.75}], "compared": 24, "candidates": 200}
    server = ScriptedServer(httpx.Response(200, json=answer))
    with client(server) as lw:
        similar = lw.similar(INSPECTION["id"], limit=3)
    [good] = similar.items
    assert (str(good.id), good.similarity, similar.compared, similar.candidates) == (INSPECTION["id"], 0.75, 24, 200)
    assert (server.requests[0].url.path, dict(server.requests[0].url.params)) == (f"{PATH}/similar", {"limit": "3"})


def test_neighbours_are_those_of_the_filtered_listing(client: Callable[..., Any]) -> None:
    server = ScriptedServer(httpx.Response(200, json={"newer": None, "older": RUN["id"]}))
    with client(server) as lw:
        neighbours = lw.neighbours(INSPECTION["id"], recipe="bottle", lot_id="L 1", verdict=None)
    assert (neighbours.newer, neighbours.older) == (None, UUID(RUN["id"]))
    assert server.requests[0].url.path == f"{PATH}/neighbours"
    assert dict(server.requests[0].url.params) == {"recipe": "bottle", "lot_id": "L 1"}


def test_rescores_are_read_page_by_page(client: Callable[..., Any]) -> None:
    pages = [
        httpx.Response(200, json={"items": [RESCORE], "next_cursor": "abc"}),
        httpx.Response(200, json={"items": [{**RESCORE, "number": 8}], "next_cursor": None}),
    ]
    server = ScriptedServer(*pages)
    with client(server) as lw:
        rescores = list(lw.rescores(INSPECTION["id"], page_size=1))
    assert [rescore.number for rescore in rescores] == [7, 8]
    assert (rescores[0].model.version, rescores[0].before.verdict, rescores[0].flip) == (2, "ok", "ok_to_ng")
    assert dict(server.requests[1].url.params) == {"limit": "1", "cursor": "abc"}


def test_a_thumbnail_is_bytes_or_refused(client: Callable[..., Any]) -> None:
    server = ScriptedServer(httpx.Response(200, content=b"jpeg"), problem(422, "image_undecodable"))
    with client(server) as lw:
        assert lw.thumbnail(INSPECTION["id"]) == b"jpeg"
        with pytest.raises(Refused) as refused:
            lw.thumbnail(INSPECTION["id"])
    assert (refused.value.code, refused.value.status) == ("image_undecodable", 422)
    assert {request.url.path for request in server.requests} == {f"{PATH}/thumbnail"}
