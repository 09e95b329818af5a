"""The configuration of every process, read from the environment variables `LINEWATCH_*`."""

import re
import sys
from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.addresses import parse_entries

MAX_LEASE_SECONDS = 120.0
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")

Pause = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _split_list(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


_ENCODE = "cannot be parsed; percent-encode special characters in its password"
_UNENCODED_AT = re.compile(r"://[^:/]*:[^@]*@[^?]*@")
"""A URL that SQLAlchemy splits at the first `@`: errors would show the rest of the password as the host."""

_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]+(/[\w-][\w.-]*)*/?", re.ASCII)


def _split_url(url: str) -> SplitResult:
    """Split a URL that may hold a password. The errors of `urlsplit` would quote parts of it.

    Raises:
        ValueError: the URL cannot be parsed.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - it is parsed now
    except ValueError:
        raise ValueError(_ENCODE) from None
    return parts


_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
"""As browsers send it: in lower case, without a path. There is no wildcard: an API without keys trusts these pages."""

_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")


class SettingsError(Exception):
    """A setting is invalid. The message is one line that names its variable."""


class Settings(BaseSettings):
    """The settings of all processes. Durations are in seconds and sizes in bytes unless the name has another unit."""

    model_config = SettingsConfigDict(env_prefix="LINEWATCH_", extra="ignore", frozen=True)

    database_url: SecretStr = Field(
        SecretStr("postgresql+psycopg://linewatch@localhost/linewatch"), description="PostgreSQL 18 or newer"
    )
    redis_url: SecretStr = Field(
        SecretStr("redis://localhost:6379/0"), description="Redis or Valkey: redis://, rediss:// or unix://"
    )
    store_url: str = Field(
        "file:///var/lib/linewatch/store",
        description="where images and bundles are stored: file:///absolute/path or s3://bucket/prefix",
    )
    store_read_also: str | None = Field(
        None, description="the store that this one moves from: files are read there that STORE_URL does not have yet"
    )
    store_link_seconds: Annotated[int, Field(ge=0, le=604_800)] = Field(
        0, description="how long links to images in a bucket are valid; 0 for no such links"
    )
    scratch: Path | None = Field(
        None,
        description="a local folder for uploads on their way to a bucket and for trainings in progress; by default in "
        "the temporary folder",
    )

    host: str = Field("127.0.0.1", description="the address that the API listens on")
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    auth: Literal["on", "off"] | None = Field(
        None,
        description="API keys; off by default on a loopback address, always on elsewhere",
    )
    cors_origins: str = Field(
        "", description="other web pages that may use the API: https://host[:port], comma-separated; none by default"
    )
    root_path: str = Field("", description="the path below which a proxy publishes the API, such as /linewatch")
    trusted_proxies: str | None = Field(
        None,
        description="addresses and ranges of proxies whose X-Forwarded-For and X-Forwarded-Proto count, "
        "comma-separated; by default the loopback address",
    )

    default_recipe: str = Field("default", description="the recipe for uploads that name none, and for /predict")
    max_upload_bytes: Annotated[int, Field(ge=1)] = 32 * 1024 * 1024
    max_image_pixels: Annotated[int, Field(ge=1)] = 64_000_000
    min_free_bytes: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="free space of the store below which uploads get 503 store_full; by default 5 % of its file "
        "system, 2 GiB at most",
    )
    max_batch_images: Annotated[int, Field(ge=1)] = 1000
    max_bundle_bytes: Annotated[int, Field(ge=1)] = 512 * 1024 * 1024
    client_timeout: Annotated[float, Field(gt=0, le=20)] = Field(
        15.0,
        description="seconds without a byte of a request after which it ends and its idempotency key can be used again",
    )
    max_connections: Annotated[int, Field(ge=1)] = Field(
        2000, description="simultaneous connections per API process; further ones are refused"
    )
    drain_seconds: Annotated[float, Field(ge=0, le=300, allow_inf_nan=False)] = Field(
        0.0,
        description="seconds that the API goes on after SIGTERM while /readyz is 503, so that load balancers notice",
    )
    max_queue_depth: Annotated[int, Field(ge=1)] = Field(
        100_000, description="live inspections in flight above which live uploads get 503 queue_full"
    )
    max_bulk_depth: Annotated[int, Field(ge=1)] = Field(
        100_000, description="bulk inspections in flight above which bulk uploads get 503 queue_full"
    )
    max_waiting_depth: Annotated[int, Field(ge=1)] = Field(
        20_000,
        description="inspections waiting for the first model version of their recipe above which uploads for such "
        "recipes get 503 waiting_queue_full",
    )

    minibatch: Annotated[int, Field(ge=1, le=1024)] = Field(
        32, description="images that a message names and a worker scores at once; a worker with a GPU may take more"
    )
    lease_seconds: Annotated[float, Field(ge=1, le=MAX_LEASE_SECONDS)] = Field(
        6.0, description="seconds without a renewal after which the claims of a worker go to another worker"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    scoring_slots: Annotated[int, Field(ge=1, le=16)] = Field(
        2,
        description="minibatches in flight per scoring process: one is scored while the others load or finish",
    )
    decode_threads: Annotated[int, Field(ge=1)] | None = Field(
        None, description="threads of a scoring process that decode images; by default one for each of its cores"
    )
    models_kept: Annotated[int, Field(ge=1)] = Field(3, description="model versions that a worker keeps loaded")
    ready_file: Path | None = Field(
        None, description="a worker creates this file when it is ready for work and removes it when it is not"
    )

    log_format: Literal["text", "json"] = Field(
        "text", description="how the api, the workers and the dispatcher log: lines of text, or an object a line"
    )
    metrics_host: str = Field(
        "127.0.0.1", description="the address on which workers and dispatchers serve their metrics, without keys"
    )
    metrics_port: Annotated[int, Field(ge=0, le=65_000)] | None = Field(
        None,
        description="the port on which a worker or a dispatcher serves its metrics; nowhere by default, and if 0",
    )

    training_device: Literal["auto", "cpu", "cuda"] = Field(
        "cpu", description="where training workers compute; a GPU that also scores would be shared with the line"
    )
    training_threads: Annotated[int, Field(ge=1)] | None = Field(
        None, description="threads that a training computes with; half of the cores by default"
    )
    training_niceness: Annotated[int, Field(ge=0, le=19)] = Field(
        19, description="how much a training gives way to other processes; 0 if it has a machine of its own"
    )

    archive_roots: str = Field(
        "",
        description="where re-scoring may read images: absolute folders and s3://bucket/prefix, comma-separated",
    )
    rescore_slice: Annotated[int, Field(ge=1, le=10_000)] = Field(
        1000, description="images that a worker claims at once in a re-scoring run"
    )
    bulk_share: Annotated[float, Field(ge=0, le=0.9, allow_inf_nan=False)] = Field(
        0.1, description="the share of images that are bulk work even while live work keeps every worker busy"
    )
    dispatch_interval: Annotated[float, Field(gt=0)] = Field(
        1.0, description="pause between two rounds of the dispatcher"
    )
    mqtt_url: SecretStr | None = Field(
        None, description="publishes results over MQTT: mqtt://user:password@host:1883 or mqtts://; off by default"
    )
    mqtt_topic: str = Field(
        "linewatch/{line_id}/{station_id}/result",
        description="the topic of a result, with {recipe}, {line_id}, {station_id}, {lot_id}, {part_id} and {view}",
    )
    feed_days: Annotated[int, Field(ge=1)] = Field(30, description="days that the feed keeps its entries")
    audit_days: Annotated[int, Field(ge=1)] | None = Field(
        None, description="days that the audit log keeps its events; for ever by default"
    )
    predict_timeout: Annotated[float, Field(gt=0)] = Field(
        30.0, description="how long /predict, heatmaps and thumbnails wait for the result"
    )

    webhook_allow: str = Field(
        "",
        description="where webhooks may be sent: host names, addresses and ranges, comma-separated; nowhere by default",
    )
    webhook_retry_seconds: Annotated[tuple[Pause, ...], NoDecode, Field(min_length=1)] = Field(
        (5, 300, 1800, 7200, 18_000, 36_000, 36_000),
        description="the pauses between the tries of a webhook, comma-separated; one try more than pauses",
    )
    webhook_disable_after_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        5, description="days without a single success after which a failing webhook endpoint is disabled"
    )
    webhook_ca_file: Path | None = Field(
        None, description="CA certificates (PEM) to trust for webhook receivers, in addition to those of the system"
    )

    @field_validator("webhook_retry_seconds", mode="before")
    @classmethod
    def _split_pauses(cls, pauses: Any) -> Any:
        return [pause.strip() for pause in pauses.split(",")] if isinstance(pauses, str) else pauses

    @field_validator("webhook_allow")
    @classmethod
    def _check_webhook_allow(cls, entries: str) -> str:
        parse_entries(entries)
        return entries

    @field_validator("archive_roots")
    @classmethod
    def _check_archive_roots(cls, roots: str) -> str:
        for root in _split_list(roots):
            scheme, is_url, rest = root.partition("://")
            path = rest if is_url and scheme == "file" else root
            is_bucket = is_url and scheme == "s3" and rest.strip("/")
            if not (is_bucket or path.startswith("/")) or ".." in root.split("/"):
                raise ValueError(f"must be absolute folders and s3://bucket/prefix, comma-separated, not {root!r}")
        return roots

    @field_validator("cors_origins")
    @classmethod
    def _check_cors_origins(cls, origins: str) -> str:
        for origin in _split_list(origins):
            if _ORIGIN.fullmatch(origin) is None:
                raise ValueError(f"must be origins such as https://host or http://host:3000, not {origin!r}")
        return origins

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, path: str) -> str:
        path = path.rstrip("/")
        if _ROOT_PATH.fullmatch(path) is None or path.split("/")[1:2] in (["v1"], ["static"]):
            raise ValueError(f"must look like /linewatch, not {path!r}")
        return path

    @field_validator("trusted_proxies")
    @classmethod
    def _check_trusted_proxies(cls, proxies: str | None) -> str | None:
        for entry in _split_list(proxies or ""):
            try:
                ip_network(entry)
            except ValueError:
                raise ValueError(
                    f"must be addresses and ranges such as 10.0.0.5 and 10.1.0.0/16, not {entry!r}"
                ) from None
        return proxies

    @field_validator("store_url", "store_read_also")
    @classmethod
    def _check_store_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        is_folder = parts.scheme == "file" and not parts.netloc and parts.path.startswith("/")
        if not is_folder and not _BUCKET.fullmatch(url):
            raise ValueError(f"must look like file:///absolute/path or s3://bucket/prefix, not {url!r}")
        return url

    @field_validator("database_url", "redis_url")
    @classmethod
    def _check_server_url(cls, url: SecretStr, info: ValidationInfo) -> SecretStr:
        schemes = {"database_url": ("postgresql+psycopg",), "redis_url": ("redis", "rediss", "unix")}[
            f"{info.field_name}"
        ]
        text = url.get_secret_value()
        if text and text.partition("://")[0] not in schemes:  # if the URL is empty, `linewatch up` starts a server
            raise ValueError(f"must look like {' or '.join(f'{scheme}://…' for scheme in schemes)}")
        if info.field_name == "database_url" and _UNENCODED_AT.search(text):
            raise ValueError(_ENCODE)
        if info.field_name == "redis_url":
            _split_url(text)
        return url

    @field_validator("mqtt_url")
    @classmethod
    def _check_mqtt_url(cls, url: SecretStr | None) -> SecretStr | None:
        parts = _split_url(url.get_secret_value()) if url is not None else None
        if parts is not None and (parts.scheme not in ("mqtt", "mqtts") or not parts.hostname):
            raise ValueError("must look like mqtt://user:password@host:1883 or mqtts://host")
        return url

    @field_validator("mqtt_topic")
    @classmethod
    def _check_mqtt_topic(cls, pattern: str) -> str:
        fields = dict.fromkeys(("recipe", "line_id", "station_id", "lot_id", "part_id", "view"), "x")
        try:
            topic = pattern.format(**fields)
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            raise ValueError(f"may use only the fields {', '.join(f'{{{name}}}' for name in fields)}") from error
        if not topic or set(topic) & set("+#\0"):
            raise ValueError("must not be empty or contain +, # or U+0000")
        return pattern

    @property
    def archive_root_list(self) -> list[str]:
        """The entries of `archive_roots`."""
        return _split_list(self.archive_roots)

    @property
    def cors_origin_list(self) -> list[str]:
        """The entries of `cors_origins`."""
        return _split_list(self.cors_origins)

    @property
    def trusted_proxy_list(self) -> list[str] | None:
        """The entries of `trusted_proxies`; None if it is not set."""
        return None if self.trusted_proxies is None else _split_list(self.trusted_proxies)

    @property
    def listens_on_loopback(self) -> bool:
        """Whether only this machine can reach the API."""
        return self.host in LOOPBACK_HOSTS

    @property
    def auth_required(self) -> bool:
        """Whether requests need an API key."""
        return not self.listens_on_loopback if self.auth is None else self.auth == "on"


def read_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment. `overrides` take precedence.

    Raises:
        SettingsError: a setting is invalid.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = f"{first['loc'][0]}".upper()
        reason = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"LINEWATCH_{name}: {reason} (change or unset it)") from None


@lru_cache
def settings() -> Settings:
    """Return the settings of this process, which are read once.

    Raises:
        SettingsError: a setting is invalid.
    """
    return read_settings()


def settings_or_exit() -> Settings:
    """Return the settings of this process, or print the error in one line and exit with code 2."""
    try:
        return settings()
    except SettingsError as error:
        print(f"linewatch: {error}", file=sys.stderr)
        raise SystemExit(2) from None
