"""Which reviewed inspections a training learns from, and their download."""

import datetime as dt
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.intake.image_decoding import MEDIA_TYPES
from core.intake.image_formats import has_image_suffix
from core.vision.reviewed_parts.images import ReviewedImage, select
from linewatch import Client, Refused
from linewatch.server.reviewed_parts import stored_images as stored
from linewatch.server.reviewed_parts.gathering import download, find, reviewed_inspection
from linewatch.types.results import Inspection
from tests.fixtures.mock_system import INSPECTION, problem

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def inspection(number: int, **fields: Any) -> dict[str, Any]:
    return {**INSPECTION, "id": str(UUID(int=number)), "status": "completed", **fields}


def reviewed(number: int, sha256: str, verdict: str, *history: tuple[int, str], **fields: Any) -> dict[str, Any]:
    """An inspection with reviews at these minutes, oldest first."""
    reviews = [
        {
            "id": str(UUID(int=1000 * number + minute)),
            "verdict": said,
            "reviewer": "Jo",
            "reason": "dust",
            "actor": "local",
            "created_at": (START + dt.timedelta(minutes=minute)).isoformat(),
        }
        for minute, said in history
    ]
    image = {**INSPECTION["image"], "sha256": sha256}
    effective = {"effective_verdict": reviews[-1]["verdict"], **fields}
    return inspection(number, verdict=verdict, reviews=reviews, image=image, **effective)


histories = st.lists(st.sampled_from(["ok", "ng"]), min_size=1, max_size=3)
cases = st.lists(
    st.tuples(
        st.sampled_from("abcd"), st.sampled_from(["ok", "ng", "review"]), histories, st.sampled_from([None, "P", "Q"])
    ),
    max_size=12,
)


@given(cases)
def test_the_newest_review_of_an_image_decides(drawn: list[tuple[str, str, list[str], str | None]]) -> None:
    minute = 0
    inspections, newest, rejected, parts = [], {}, set(), set()
    for number, (sha256, verdict, history, part_id) in enumerate(drawn):
        reviews = []
        for said in history:
            minute += 1
            reviews.append((minute, said))
            newest[sha256] = (UUID(int=number), said)
        rejected |= {sha256} if verdict != "ok" else set()
        parts |= {(sha256, part_id)} if part_id else set()
        inspections.append(Inspection.from_document(reviewed(number, sha256, verdict, *reviews, part_id=part_id)))
    found = select(map(reviewed_inspection, reversed(inspections)))
    used = {sha256: said for sha256, said in newest.items() if said[1] == "ng" or sha256 in rejected}
    assert {image.sha256: (image.inspection_id, image.verdict) for image in found.images} == used
    assert {image.sha256 for image in found.confirmed} == newest.keys() - used.keys()
    assert found.images == sorted(found.images, key=lambda image: image.inspection_id)
    for image in found.images:
        assert image.part_ids == {part for sha256, part in parts if sha256 == image.sha256}
        assert image.file_name == f"{image.inspection_id}.png"


def test_an_inspection_whose_reviews_do_not_decide_is_left_out() -> None:
    undecided = reviewed(1, "a", "ng", (1, "ok"), effective_verdict="review")
    decided = reviewed(2, "b", "ng", (1, "ng"), (2, "ok"), (3, "ng"), (4, "ok"), (5, "ng"), effective_verdict="ok")
    found = select(reviewed_inspection(Inspection.from_document(document)) for document in (undecided, decided))
    assert [(image.sha256, image.verdict) for image in found.images] == [("b", "ok")]
    assert found.confirmed == []


def test_every_format_has_a_suffix() -> None:
    for number, media_type in enumerate(MEDIA_TYPES.values()):
        document = reviewed(number, f"{number}", "ng", (1, "ok"))
        document["image"]["media_type"] = media_type
        [image] = select([reviewed_inspection(Inspection.from_document(document))]).images
        assert has_image_suffix(image.file_name)


def test_reviewed_and_completed_inspections_of_the_recipe_are_listed() -> None:
    queries: list[dict[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        queries.append(dict(request.url.params))
        items = [reviewed(len(queries), f"{len(queries)}", "ng", (1, "ok"))]
        return httpx.Response(200, json={"items": items, "next_cursor": "more" if len(queries) == 1 else None})

    with Client("http://system.test", transport=httpx.MockTransport(answer)) as system:
        found = find(system, "ring", {"lot_id": "L-1"})
    assert len(found.images) == 2
    assert queries[0] == {
        "limit": "1000", "recipe": "ring", "reviewed": "any", "status": "completed", "lot_id": "L-1",
    }  # fmt: skip


def image(number: int) -> ReviewedImage:
    return ReviewedImage(UUID(int=number), "ok", f"{number}", frozenset(), ".jpg")


@pytest.fixture
def system() -> Callable[[Callable[[int], httpx.Response]], Client]:
    """`system(answer)` returns a client of a system that answers with `answer(number)` to a request for an image."""

    def make(answer: Callable[[int], httpx.Response]) -> Client:
        def respond(request: httpx.Request) -> httpx.Response:
            inspection_id, name = request.url.path.split("/")[-2:]
            assert name == "image"
            return answer(UUID(inspection_id).int)

        return Client("http://system.test", transport=httpx.MockTransport(respond))

    return make


def test_images_that_the_store_no_longer_has_are_counted(
    system: Callable[[Callable[[int], httpx.Response]], Client], tmp_path: Path
) -> None:
    def answer(number: int) -> httpx.Response:
        gone = {3: (404, "not_found"), 5: (410, "gone")}
        return problem(*gone[number]) if number in gone else httpx.Response(200, content=b"%d" % number)

    steps: list[int] = []
    with system(answer) as client:
        gathered = download(client, [image(number) for number in range(40)], tmp_path / "images", steps.append)
    assert gathered.missing == 2
    assert steps == list(range(1, 41))
    assert [reviewed.inspection_id.int for reviewed, _ in gathered.files] == [n for n in range(40) if n not in (3, 5)]
    for reviewed_image, path in gathered.files:
        assert path == tmp_path / "images" / f"{reviewed_image.inspection_id}.jpg"
        assert path.read_bytes() == b"%d" % reviewed_image.inspection_id.int


def test_any_other_refusal_is_a_failure(
    system: Callable[[Callable[[int], httpx.Response]], Client], tmp_path: Path
) -> None:
    with system(lambda _: problem(403, "forbidden")) as client, pytest.raises(Refused) as refused:
        download(client, [image(1)], tmp_path / "images", lambda _: None)
    assert refused.value.status == 403


def test_few_images_are_downloaded_at_the_same_time(
    system: Callable[[Callable[[int], httpx.Response]], Client],
) -> None:
    lock, at_once, most, requested = threading.Lock(), [0], [0], [0]

    def answer(number: int) -> httpx.Response:
        with lock:
            at_once[0] += 1
            requested[0] += 1
            most[0] = max(most[0], at_once[0])
        threading.Event().wait(0.002)
        with lock:
            at_once[0] -= 1
        return httpx.Response(200, content=b"x")

    with system(answer) as client:
        items = ((UUID(int=number), number) for number in range(100))
        downloads = stored.stored_images(client, items, lambda number, content: (number, content))
        assert next(downloads) == (0, (0, b"x"))
        downloads.close()
        assert requested[0] < 40
        items = ((UUID(int=number), number) for number in range(100))
        assert [number for number, _ in stored.stored_images(client, items, lambda *_: None)] == list(range(100))
    assert most[0] <= 8
