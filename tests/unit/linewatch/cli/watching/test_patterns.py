"""Patterns that read fields from paths."""

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linewatch.cli.watching.patterns import FIELDS, PathPattern

TEXTS = st.text("ab_-./{}*é ", max_size=12)
SEPARATORS = st.text("_-a. é", min_size=1, max_size=2)


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("{line_id}/{lot_id}/{part_id}_{view}.jpg", "2/L-7/SN_1_top.jpg", "2 L-7 SN_1 top"),
        ("{line_id}/{lot_id}/{part_id}_{view}.jpg", "2/L-7/SN_1_top.png", None),
        ("{line_id}/{lot_id}/{part_id}_{view}.jpg", "L-7/SN_1_top.jpg", None),
        ("{line_id}/{lot_id}/{part_id}_{view}.jpg", "2/L-7/_top.jpg", None),
        ("{part_id}.*", "a.b.png", "a.b"),
        ("*/cam{station_id}-*_{part_id}.png", "x/cam3-9-8_5.png", "3-9 5"),
        ("{part_id}", "a.png", "a.png"),
        ("{part_id}/image.png", "7/image.png", "7"),
        ("{part_id}/image.png", "7/other.png", None),
        ("x{part_id}x.png", "x.png", None),
        ("x{part_id}x", "xx", None),
    ],
)
def test_fields_are_read_from_the_path(pattern: str, path: str, expected: str | None) -> None:
    fields = PathPattern.parse(pattern).read(path)
    assert (None if fields is None else " ".join(fields.values())) == expected


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("*.png", "no field"),
        ("", "is empty"),
        ("/{part_id}", "is empty"),
        ("{lot_id}//{part_id}", "is empty"),
        ("{part}", "not a field"),
        ("{}", "not a field"),
        ("{part_id}_{part_id}", "twice"),
        ("{part_id}{view}", "separate them"),
        ("**/{part_id}", "separate them"),
        ("{part_id", "brace"),
        ("part_id}_{view}", "brace"),
    ],
)
def test_a_wrong_pattern_says_what_is_wrong(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PathPattern.parse(pattern)


@given(TEXTS)
def test_any_text_is_a_pattern_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert PathPattern.parse(text).text == text


@given(
    literals=st.lists(SEPARATORS, min_size=1, max_size=3),
    ends=st.tuples(st.text("_-a", max_size=2), st.text("_-a.", max_size=2)),
    name=st.text("_-a. éb", min_size=1, max_size=14),
)
def test_names_match_like_a_greedy_regular_expression(literals: list[str], ends: tuple[str, str], name: str) -> None:
    fields = FIELDS[: len(literals) + 1]
    inner = "".join(f"{{{field}}}{literal}" for field, literal in zip(fields, [*literals, ""], strict=True))
    read = PathPattern.parse(f"{ends[0]}{inner}{ends[1]}").read(name)
    expression = "(.+)".join(map(re.escape, [ends[0], *literals, ends[1]]))
    match = re.fullmatch(expression, name, re.DOTALL)
    assert (None if read is None else tuple(read.values())) == (None if match is None else match.groups())


def test_a_hostile_name_takes_linear_time() -> None:
    pattern = PathPattern.parse("_".join(f"{{{field}}}" for field in FIELDS) + ".png")
    assert pattern.read("_" * 200_000) is None
