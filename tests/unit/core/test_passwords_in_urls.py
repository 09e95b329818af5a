"""Passwords that are not percent-encoded: a setting with one is rejected or masked, and never shown."""

import pytest

from core.settings import SettingsError, read_settings
from linewatch.server.doctor.redaction import masked

PASSWORDS = ["s3c/ret", "s3c#ret", "s3c?ret", "s3c@ret", "s3c:ret", "s3c[ret", "s3c%ret", "1/s3c@ret", "s3c\u2100ret"]
URLS = {
    "database_url": "postgresql+psycopg://me:{}@host:5432/parts",
    "redis_url": "rediss://me:{}@host:6379/0",
    "mqtt_url": "mqtts://me:{}@host:8883",
}
SPLITTING = {"s3c/ret", "s3c#ret", "s3c?ret", "s3c[ret", "s3c\u2100ret"}
REJECTED = {"database_url": {"s3c@ret", "1/s3c@ret"}, "redis_url": SPLITTING, "mqtt_url": SPLITTING}
"""With these, the client of the server would take a part of the password for a host or port, and name it in errors."""


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_with_special_characters_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, password: str
) -> None:
    monkeypatch.setenv(f"LINEWATCH_{name.upper()}", URLS[name].format(password))
    if password not in REJECTED[name]:
        assert masked(getattr(read_settings(), name)) == URLS[name].format("********")
        return
    with pytest.raises(SettingsError, match="percent-encode") as error:
        read_settings()
    assert "s3c" not in str(error.value)
    assert "ret" not in str(error.value)


def test_a_password_that_is_encoded_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, url in URLS.items():
        monkeypatch.setenv(f"LINEWATCH_{name.upper()}", url.format("s3c%2F%23%3F%40ret"))
    settings = read_settings()
    for name, url in URLS.items():
        assert getattr(settings, name).get_secret_value() == url.format("s3c%2F%23%3F%40ret")
        assert str(masked(getattr(settings, name))) == url.format("********")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me@host/parts",
        "postgresql+psycopg://me@azure:secret@host/parts",
        "postgresql+psycopg://me:secret@/parts?host=/run/a@b&port=5432",
        "postgresql+psycopg://me:s/e#c?ret@host/parts",  # SQLAlchemy accepts these
        "redis://host",
        "redis://[::1]:6379/0",
        "unix:///run/valkey.sock",
    ],
)
def test_other_urls_are_accepted_as_before(url: str) -> None:
    name = "database_url" if url.startswith("postgresql") else "redis_url"
    assert getattr(read_settings(**{name: url}), name).get_secret_value() == url
