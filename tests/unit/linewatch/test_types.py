"""Responses as typed objects, with their JSON document."""

import copy
import pickle
from typing import Any

import msgspec
import pytest

from linewatch import Inspection, Recipe
from linewatch.types.results import InspectionPage, ThresholdPreview
from tests.fixtures.mock_system import INSPECTION

PREVIEW = {
    "threshold": 0.5,
    "review_threshold": None,
    "station_id": None,
    "since": "2026-01-01T00:00:00Z",
    "inspections": 1,
    "truncated": False,
    "flips": [{"from": "ok", "to": "ng", "count": 1, "examples": []}],
}


def test_unknown_fields_are_kept_in_the_document_at_every_level() -> None:
    newer: dict[str, Any] = {**INSPECTION, "colour": "grey", "image": {**INSPECTION["image"], "depth": 16}}
    page = InspectionPage.from_document({"items": [newer], "next_cursor": None})
    [inspection] = page.items
    assert inspection.document == newer
    assert inspection.image.document["depth"] == 16
    assert page.document == {"items": [newer], "next_cursor": None}


def test_a_renamed_field_has_its_name_in_the_document() -> None:
    [flip] = ThresholdPreview.from_document(PREVIEW).flips
    assert (flip.before, flip.after) == ("ok", "ng")
    assert flip.document == {"from": "ok", "to": "ng", "count": 1, "examples": []}


def test_responses_are_immutable_and_compared_by_their_fields() -> None:
    inspection = Inspection.from_document(INSPECTION)
    assert inspection == Inspection.from_document({**INSPECTION, "colour": "grey"})
    assert inspection != Inspection.from_document({**INSPECTION, "attempt": 7})
    with pytest.raises(AttributeError):
        inspection.verdict = "ok"  # type: ignore[misc]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda item: pickle.loads(pickle.dumps(item))])  # noqa: S301
def test_a_copy_is_equal_and_has_a_document(copied: Any) -> None:
    inspection = Inspection.from_document(INSPECTION)
    assert copied(inspection) == inspection
    assert set(INSPECTION) <= set(copied(inspection).document)


def test_an_optional_field_can_be_missing() -> None:
    document = {
        "name": "ring",
        "state": "ready",
        "without_model": "refuse",
        "active_version": None,
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
    }
    recipe = Recipe.from_document(document)
    assert (recipe.challenger, recipe.bit_depth) == (None, "auto")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"id": 3}, "$.id"),
        ({"attempt": "1"}, "$.attempt"),
        ({"created_at": "yesterday"}, "$.created_at"),
        ({"image": {**INSPECTION["image"], "width": "wide"}}, "$.image.width"),
    ],
)
def test_a_field_of_another_type_is_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError) as raised:
        Inspection.from_document({**INSPECTION, **changed})
    assert message in str(raised.value)
