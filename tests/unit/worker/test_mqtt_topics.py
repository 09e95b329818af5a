"""The topics of results contain nothing that a broker refuses."""

import unicodedata
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.documents.documents import FeedItem
from worker.delivery.mqtt import topic_of

FIELDS = ("recipe", "line_id", "station_id", "lot_id", "part_id", "view")


def topic(**fields: str | None) -> str:
    return topic_of("plant/{line_id}/{part_id}", cast(FeedItem, SimpleNamespace(**{**dict.fromkeys(FIELDS), **fields})))


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_field_is_one_level_of_allowed_characters(value: str) -> None:
    levels = topic(line_id=value, part_id="SN-1").split("/")
    assert len(levels) == 3
    assert not any(unicodedata.category(each) == "Cc" or each in "+#" or is_noncharacter(each) for each in levels[1])
    kept = [(ours, theirs) for ours, theirs in zip(levels[1], value, strict=True) if ours != "_"]
    assert all(ours == theirs for ours, theirs in kept)


@pytest.mark.parametrize("value", ["\x85", "\x9f", "\ufdd0", "\ufdef", "\ufffe", "\U0010ffff"])
def test_what_brokers_refuse_is_replaced(value: str) -> None:
    assert topic(line_id=f"a{value}b", part_id=None) == "plant/a_b/-"


def is_noncharacter(character: str) -> bool:
    return 0xFDD0 <= ord(character) <= 0xFDEF or ord(character) & 0xFFFE == 0xFFFE
