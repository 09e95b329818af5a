"""Secrets are removed from texts, whatever they look like, and the rest is kept."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.settings import Settings
from linewatch.server.doctor.redaction import HIDDEN, known_secrets, redacted, redacted_value

words = st.text(string.ascii_letters + string.digits + "-_.~+/=", min_size=8, max_size=60)
FORMS = [
    "lw_a1b2c3_{}",
    "whsec_{}",
    "Authorization: Bearer {}",
    "{{'authorization': 'Basic {}'}}",
    "bearer {}",
    "Cookie: linewatch_session={}",
    "postgresql://me:{}@host:5432/parts",
    "redis://:{}@host/0",
    "https://mes.example/hook?key={}",
    "password={}",
    '"client_secret": "{}"',
    "API_KEY={} next",
    "refresh-token: {}",
    "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("form", FORMS)
@given(secret=words, before=st.text(max_size=20), after=st.text(max_size=20))
def test_what_looks_like_a_secret_is_hidden(form: str, secret: str, before: str, after: str) -> None:
    key = secret.replace(".", "x").replace("~", "x").replace("+", "x").replace("/", "x").replace("=", "x")
    planted = key if form.startswith(("lw_", "whsec_")) else secret
    if planted in before + after or planted in form:
        return
    assert planted not in redacted(f"{before}\n{form.format(planted)}\n{after}", [])


@given(password=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=6, max_size=40))
def test_a_password_of_the_settings_is_hidden_wherever_it_stands(password: str) -> None:
    if password in HIDDEN or password.strip() != password or "%" in password:
        return
    settings = Settings(database_url="postgresql+psycopg://me@host/db")
    secrets = known_secrets(settings, {"SOME_PASSWORD": password}, None)
    assert password not in redacted(f"x{password}y {password}", secrets).replace(HIDDEN, "")
    assert redacted_value({"a": [password, 1, None]}, secrets)["a"][1:] == [1, None]


@pytest.mark.parametrize(
    "line",
    [
        "2027-01-31 02:00:00 api | GET /v1/inspections?since=2027-01-01&limit=5 200",
        "the inspection 01939f3e-0000-7000-8000-000000000000 of recipe ring failed: image_undecodable",
        "model version 3 of bottle is active; threshold 0.002",
        "http://127.0.0.1:8000/v1/results took 12 ms",
        "no key is needed; tokens are not counted",
    ],
)
def test_ordinary_lines_are_kept(line: str) -> None:
    assert redacted(line, []) == line


def test_a_long_line_without_blanks_is_read_in_linear_time() -> None:
    assert redacted("a-" * 50_000, []) == "a-" * 50_000


def test_a_text_under_a_secret_name_is_hidden() -> None:
    assert redacted_value({"password": "x", "name": "ring"}, []) == {"password": HIDDEN, "name": "ring"}
