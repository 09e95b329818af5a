"""The one place where configuration is read: the environment variables `LINEWATCH_*`."""

import sys
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.addresses import parse_entries

LONGEST_LEASE_SECONDS = 120.0
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")

Pause = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _entries(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


class SettingsError(Exception):
    """A setting is wrong; the message is one line that names its variable."""


class Settings(BaseSettings):
    """Every setting of every process. Durations are in seconds and sizes in bytes unless a name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="LINEWATCH_", extra="ignore", frozen=True)

    database_url: SecretStr = Field(
        SecretStr("postgresql+psycopg://linewatch@localhost/linewatch"), description="PostgreSQL 18 or newer"
    )
    redis_url: SecretStr = Field(
        SecretStr("redis://localhost:6379/0"), description="Redis or Valkey: redis://, rediss:// or unix://"
    )
    store_url: str = Field("file:///var/lib/linewatch/store", description="where images and bundles are kept")

    host: str = Field("127.0.0.1", description="the address the api listens on")
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    auth: Literal["on", "off"] | None = Field(
        None,
        description="API keys; off by default on a loopback address, on elsewhere (where off is refused)",
    )

    default_recipe: str = Field("default", description="the recipe of an upload that names none, and of /predict")
    max_upload_bytes: Annotated[int, Field(ge=1)] = 32 * 1024 * 1024
    max_image_pixels: Annotated[int, Field(ge=1)] = 64_000_000
    max_batch_images: Annotated[int, Field(ge=1)] = 1000
    max_bundle_bytes: Annotated[int, Field(ge=1)] = 512 * 1024 * 1024
    client_timeout: Annotated[float, Field(gt=0, le=20)] = Field(
        15.0,
        description="seconds without a byte of a request after which it ends and its idempotency key is free again",
    )
    max_connections: Annotated[int, Field(ge=1)] = Field(
        2000, description="connections that one api process holds at a time; more are refused"
    )
    max_queue_depth: Annotated[int, Field(ge=1)] = Field(
        100_000, description="live inspections in flight above which uploads are answered 503 queue_full"
    )
    max_bulk_depth: Annotated[int, Field(ge=1)] = Field(
        100_000, description="bulk inspections in flight above which bulk uploads are answered 503 queue_full"
    )
    max_waiting_depth: Annotated[int, Field(ge=1)] = Field(
        20_000,
        description="inspections that wait for their recipe's first model version, above which uploads of such recipes "
        "are answered 503 waiting_queue_full",
    )

    minibatch: Annotated[int, Field(ge=1, le=1024)] = Field(32, description="images the network scores at once")
    lease_seconds: Annotated[float, Field(ge=1, le=LONGEST_LEASE_SECONDS)] = Field(
        6.0, description="seconds without a renewal after which what a worker has claimed is given to another"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    scoring_slots: Annotated[int, Field(ge=1, le=16)] = Field(
        2,
        description="minibatches that one scoring process has in hand: one is scored while others load or finish",
    )
    decode_threads: Annotated[int, Field(ge=1)] = 4
    models_kept: Annotated[int, Field(ge=1)] = Field(3, description="model versions a worker keeps loaded")
    ready_file: Path | None = Field(
        None, description="a worker creates this file when it takes work and removes it when it cannot"
    )

    archive_roots: str = Field(
        "", description="where re-scoring may read images: absolute folders and s3://bucket/prefix, comma separated"
    )
    rescore_slice: Annotated[int, Field(ge=1, le=10_000)] = Field(
        1000, description="images that a worker takes at once from an archive that is scored again"
    )
    bulk_share: Annotated[float, Field(ge=0, le=0.9, allow_inf_nan=False)] = Field(
        0.1, description="the share of images that bulk work gets even while the line keeps every worker busy"
    )
    dispatch_interval: Annotated[float, Field(gt=0)] = Field(1.0, description="pause between two dispatcher rounds")
    mqtt_url: SecretStr | None = Field(
        None, description="publish results over MQTT: mqtt://user:password@host:1883 or mqtts://; off without it"
    )
    mqtt_topic: str = Field(
        "linewatch/{line_id}/{station_id}/result",
        description="the topic of a result: {recipe}, {line_id}, {station_id}, {lot_id}, {part_id} and {view} in it",
    )
    feed_days: Annotated[int, Field(ge=1)] = Field(30, description="how long the feed of results goes back")
    predict_timeout: Annotated[float, Field(gt=0)] = Field(
        30.0, description="how long /predict and /heatmap wait for a worker"
    )

    webhook_allow: str = Field(
        "", description="where webhooks may go: names, addresses and ranges, comma separated; nowhere by default"
    )
    webhook_retry_seconds: Annotated[tuple[Pause, ...], NoDecode, Field(min_length=1)] = Field(
        (5, 300, 1800, 7200, 18_000, 36_000, 36_000),
        description="the pauses between the tries of a webhook, comma separated; there is one try more than pauses",
    )
    webhook_disable_after_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        5, description="a webhook endpoint is disabled after this many days of failures only"
    )
    webhook_ca_file: Path | None = Field(
        None, description="certificates (PEM) of authorities that receivers of webhooks may have besides the usual ones"
    )

    @field_validator("webhook_retry_seconds", mode="before")
    @classmethod
    def _pauses(cls, given: Any) -> Any:
        return [one.strip() for one in given.split(",")] if isinstance(given, str) else given

    @field_validator("webhook_allow")
    @classmethod
    def _entries_can_be_read(cls, entries: str) -> str:
        parse_entries(entries)
        return entries

    @field_validator("archive_roots")
    @classmethod
    def _roots_are_places(cls, roots: str) -> str:
        for root in _entries(roots):
            scheme, is_url, rest = root.partition("://")
            path = rest if is_url and scheme == "file" else root
            is_bucket = is_url and scheme == "s3" and rest.strip("/")
            if not (is_bucket or path.startswith("/")) or ".." in root.split("/"):
                raise ValueError(f"must name absolute folders and s3://bucket/prefix, comma separated, not {root!r}")
        return roots

    @field_validator("store_url")
    @classmethod
    def _store_is_a_folder(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme != "file" or parts.netloc or not parts.path.startswith("/"):
            raise ValueError(f"must look like file:///absolute/path, not {url!r}")
        return url

    @field_validator("database_url", "redis_url")
    @classmethod
    def _is_a_server(cls, url: SecretStr, info: ValidationInfo) -> SecretStr:
        known = {"database_url": ("postgresql+psycopg",), "redis_url": ("redis", "rediss", "unix")}[
            f"{info.field_name}"
        ]
        given = url.get_secret_value()
        if given and given.partition("://")[0] not in known:  # an empty one is none: `up` starts its own server
            raise ValueError(f"must look like {' or '.join(f'{scheme}://…' for scheme in known)}")
        return url

    @field_validator("mqtt_url")
    @classmethod
    def _is_a_broker(cls, url: SecretStr | None) -> SecretStr | None:
        parts = urlsplit(url.get_secret_value()) if url is not None else None
        if parts is not None and (parts.scheme not in ("mqtt", "mqtts") or not parts.hostname):
            raise ValueError("must look like mqtt://user:password@host:1883 or mqtts://host")
        return url

    @field_validator("mqtt_topic")
    @classmethod
    def _is_a_topic(cls, pattern: str) -> str:
        fields = dict.fromkeys(("recipe", "line_id", "station_id", "lot_id", "part_id", "view"), "x")
        try:
            topic = pattern.format(**fields)
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            raise ValueError(f"holds something else than {', '.join(f'{{{name}}}' for name in fields)}") from error
        if not topic or set(topic) & set("+#\0"):
            raise ValueError("must be a topic without wildcards")
        return pattern

    @property
    def archive_root_list(self) -> list[str]:
        """The roots of archives, one by one."""
        return _entries(self.archive_roots)

    @property
    def listens_on_loopback(self) -> bool:
        """Whether only this machine can reach the api."""
        return self.host in LOOPBACK_HOSTS

    @property
    def auth_required(self) -> bool:
        """Whether requests need an API key."""
        return not self.listens_on_loopback if self.auth is None else self.auth == "on"


def read_settings(**own: Any) -> Settings:
    """The settings as the environment has them; `own` come before it. Raises SettingsError."""
    try:
        return Settings(**own)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        name = f"{fault['loc'][0]}".upper()
        why = fault["msg"].removeprefix("Value error, ")
        raise SettingsError(f"LINEWATCH_{name}: {why} (change or unset it)") from None


@lru_cache
def settings() -> Settings:
    """The settings of this process, read once. Raises SettingsError."""
    return read_settings()


def settings_or_exit() -> Settings:
    """The same for a process that cannot begin without them: a wrong one ends it with a line and exit code 2."""
    try:
        return settings()
    except SettingsError as error:
        print(f"linewatch: {error}", file=sys.stderr)
        raise SystemExit(2) from None
