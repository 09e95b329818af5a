"""JSON fields and cursors of requests."""

import contextlib
import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.requests.parameters import decode_cursor, encode_cursor, parse_json
from core.errors import Refused

finite = st.floats(allow_nan=False, allow_infinity=False)

json_values = st.recursive(
    st.none() | st.booleans() | finite | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_json_is_stored_unchanged_or_refused(value: object) -> None:
    text = json.dumps(value)
    if "\\u0000" in text or any("\ud800" <= letter <= "\udfff" for letter in str(value)):
        return  # refused below
    assert parse_json(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "[Infinity]",
        '{"a": -Infinity}',
        '"\\u0000"',
        '{"\\u0000": 1}',
        '"\\udc00"',
        "1e400",
        "[" * 10_000,
        "",
        "{",
        b"\xff",
    ],
)
def test_json_that_postgres_cannot_store_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


@given(st.uuids())
def test_a_cursor_is_decoded_as_it_was_encoded(inspection_id: UUID) -> None:
    assert decode_cursor(encode_cursor(inspection_id)) == inspection_id


@given(st.text(max_size=40))
def test_any_other_cursor_is_refused(text: str) -> None:
    with contextlib.suppress(Refused):
        assert isinstance(decode_cursor(text), UUID)
