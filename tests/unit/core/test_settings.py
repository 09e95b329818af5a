"""Settings: what is accepted, what is refused, and that no secret is shown."""

import re
from pathlib import Path

import pytest

from core.settings import Settings, SettingsError, read_settings


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("FEED_DAYS", "many", "integer"),
        ("WEBHOOK_RETRY_SECONDS", "5, soon", "number"),
        ("STORE_URL", "s3:/bucket", "file:///absolute/path"),
        ("DATABASE_URL", "postgres://me:s3cret@host/parts", "postgresql+psycopg://"),
        ("REDIS_URL", "http://:s3cret@host", "rediss://"),
        ("CORS_ORIGINS", "*", "https://host"),
        ("ROOT_PATH", "linewatch", "/linewatch"),
        ("ROOT_PATH", "/a b", "/linewatch"),
        ("ROOT_PATH", "/v1/linewatch", "/linewatch"),
        ("ROOT_PATH", "https://plant.example/linewatch", "/linewatch"),
        ("TRUSTED_PROXIES", "10.0.0.5, proxy.example", "10.1.0.0/16"),
        ("TRUSTED_PROXIES", "*", "10.1.0.0/16"),
        ("CORS_ORIGINS", "https://mes.example, https://mes.example/", "https://host"),
        ("CORS_ORIGINS", "null", "https://host"),
        ("MQTT_URL", "tcp://:s3cret@host", "mqtts://"),
    ],
)
def test_an_invalid_setting_is_named_and_no_secret_is_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"LINEWATCH_{variable}", value)
    with pytest.raises(SettingsError) as refused:
        read_settings()
    line = str(refused.value)
    assert line.startswith(f"LINEWATCH_{variable}: ")
    assert message in line
    for unwanted in ("Value error", "s3cret", "\n"):
        assert unwanted not in line


def test_keys_are_required_unless_the_api_listens_on_loopback() -> None:
    assert not Settings(host="127.0.0.1").auth_required
    assert Settings(host="0.0.0.0").auth_required  # noqa: S104 - the case in question
    assert Settings(host="127.0.0.1", auth="on").auth_required


@pytest.mark.parametrize("url", ["file:///a/b", "s3://images", "s3://images/", "s3://images.plant-7/line_2/a.b"])
def test_a_store_is_a_folder_or_a_bucket(url: str) -> None:
    settings = Settings(store_url=url, store_read_also=url)
    assert (settings.store_url, settings.store_read_also) == (url, url)


@pytest.mark.parametrize(
    "url",
    ["file://relative", "relative", "file://host/x", "http://x/y", "s3://", "s3:///x", "s3://b/a//c", "s3://b/../c"],
)
def test_a_store_that_is_neither_a_folder_nor_a_bucket_is_refused(url: str) -> None:
    for setting in ("store_url", "store_read_also"):
        with pytest.raises(ValueError, match="file:///absolute/path or s3://bucket/prefix"):
            Settings.model_validate({setting: url})


def test_no_secret_shows_when_settings_are_printed() -> None:
    shown = repr(Settings(database_url="postgresql+psycopg://u:hidden@h/d", redis_url="redis://:hidden@h"))
    assert "hidden" not in shown


def test_the_documentation_lists_every_setting_and_no_other() -> None:
    page = Path(__file__).parents[3].joinpath("docs", "operations.md").read_text()
    section = page.partition("## Settings\n")[2].partition("\n## ")[0]
    names = [cell for row in re.findall(r"^\| (`LINEWATCH_.*?) \|", section, re.MULTILINE) for cell in row.split(", ")]
    assert sorted(names) == sorted(f"`LINEWATCH_{name.upper()}`" for name in Settings.model_fields)
