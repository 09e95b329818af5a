"""File names in forms: which parameter wins, and what is decoded."""

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multipart import MultipartSegment

from api.requests.file_names import decoded_file_name

A_PNG = base64.b64encode("ä.png".encode()).decode()


def name_in(disposition: str) -> str | None:
    """The file name of a part with this header."""
    segment = MultipartSegment([("Content-Disposition", disposition)])
    return decoded_file_name(segment["Content-Disposition"], segment.filename)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("", None),
        ('; filename=""', ""),
        ('; filename="a.png"', "a.png"),
        ("; filename*=UTF-8''%C3%A4.png", "ä.png"),
        ("; filename*=utf-8'de'%c3%a4%20b.png", "ä b.png"),
        ("; filename*=\"utf-8''%c3%a4.png\"", "ä.png"),
        ("; filename*=iso-8859-1''%E4.png", "ä.png"),
        ("; FILENAME*=UTF-8''a.png", "a.png"),
        # As .NET writes it: the encoded word is for clients that do not know the other parameter.
        (f"; filename=\"=?utf-8?B?{A_PNG}?=\"; filename*=utf-8''%C3%A4.png", "ä.png"),
        ("; filename*=utf-8''b.png; filename=\"a.png\"", "b.png"),
        (f'; filename="=?utf-8?B?{A_PNG}?="', "ä.png"),
        (f"; filename==?UTF-8?b?{A_PNG}?=", None),  # not a token, so it has to be quoted
        ('; filename="=?utf-8?Q?=C3=A4_b.png?="', "ä b.png"),
        ('; filename="=?iso-8859-1?q?=E4?= =?utf-8?q?.png?="', "ä.png"),
        # Neither can be decoded, so they are taken as they are.
        ("; filename*=utf-16''a%00; filename=a.png", "a.png"),
        ("; filename*=UTF-8''%ff; filename=a.png", "a.png"),
        ("; filename*=a.png; filename=b.png", "b.png"),
        ("; filename*=utf-16''a.png", None),
        ('; filename="=?utf-8?B?!!?="', "=?utf-8?B?!!?="),
        ('; filename="=?koi8-r?Q?a?="', "=?koi8-r?Q?a?="),
        ('; filename="=?utf-8?Q?a?= b"', "=?utf-8?Q?a?= b"),
        # The star is within another value.
        ("; filename=\"; filename*=UTF-8''b.png\"", "; filename*=UTF-8''b.png"),
        ('; filename="a*.png"', "a*.png"),
    ],
)
def test_the_extended_file_name_wins_and_encoded_words_are_decoded(parameters: str, expected: str | None) -> None:
    assert name_in(f'form-data; name="image"{parameters}') == expected


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_every_file_name_is_read_as_dot_net_writes_it(name: str) -> None:
    word = f"=?utf-8?B?{base64.b64encode(name.encode()).decode()}?="
    assert name_in(f"form-data; name=image; filename=\"{word}\"; filename*=utf-8''{quote(name, safe='')}") == name
    assert name_in(f'form-data; name=image; filename="{word}"') == name


@given(st.text(max_size=60))
def test_any_header_has_a_name_or_none(text: str) -> None:
    assert isinstance(name_in(f"form-data; name=image; {text}"), str | None)
    assert decoded_file_name("*", f"=?{text}?=") is not None
