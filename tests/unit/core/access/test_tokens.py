"""CSRF tokens of sessions, and cursors of the audit log."""

import base64
import contextlib
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.access.audit import Cursor
from core.access.sessions import csrf_token
from core.errors import Code, Refused

tokens = st.text(st.characters(codec="ascii"), min_size=1, max_size=50)


@given(tokens, tokens)
def test_each_session_has_its_own_csrf_token(token: str, other: str) -> None:
    assert (csrf_token(token) == csrf_token(other)) == (token == other)
    assert len(csrf_token(token)) == 43
    assert token[:8] not in csrf_token(token) or len(token) < 8


@given(st.datetimes(timezones=st.just(dt.UTC)), st.integers(-(2**63), 2**63 - 1))
def test_a_cursor_is_parsed_as_it_was_written(at: dt.datetime, number: int) -> None:
    assert Cursor.parse(str(Cursor(at, number))) == Cursor(at, number)


@given(st.text() | st.binary(max_size=20).map(lambda data: base64.urlsafe_b64encode(data).decode().rstrip("=")))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    cursor = None
    with contextlib.suppress(Refused):
        cursor = Cursor.parse(text)
    assert cursor is None or Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize("text", ["", "x", "f" * 22, "AAAA", "ä" * 22, "\ud800"])
def test_a_cursor_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="not a cursor of this listing") as refused:
        Cursor.parse(text)
    assert refused.value.code is Code.INVALID_CURSOR
