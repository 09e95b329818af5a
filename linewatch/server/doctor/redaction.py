"""Remove secrets from settings and texts."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from core.settings import Settings

HIDDEN = "********"

_PASSWORD = re.compile(r"(?<=://)([^:@/]*):.*@", re.DOTALL)
"""Up to the last `@`: without percent-encoding, a password can hold any character that separates the parts of a URL."""
_PASSWORD_IN_QUERY = re.compile(r"([?&][^=&]*password=)[^&]*", re.IGNORECASE)

_SECRET_NAME = re.compile(r"PASSW|SECRET|TOKEN|API_?KEY|ACCESS_KEY|CREDENTIAL|PRIVATE", re.IGNORECASE)
_SHORTEST = 6  # shorter values would blank ordinary words

_KEYWORDS = "passw(?:or)?d|secret|token|api[_-]?key|access[_-]?key|credential|signature|csrf"

# In texts of any kind. What is hidden is the group `hidden`.
_PATTERNS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?P<hidden>[\s\S]*?)(?:-----END|\Z)",
        r"\blw_[a-z0-9]+_(?P<hidden>[\w-]{8,})",  # API keys
        r"\bwhsec_(?P<hidden>[A-Za-z0-9+/=_-]{8,})",  # secrets of webhooks
        r"\b(?:AKIA|ASIA)(?P<hidden>[A-Z0-9]{16})\b",  # access keys of AWS
        r"\b(?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?(?:(?:basic|bearer|digest)\s+)?(?P<hidden>[^\s\"',;]+)",
        r"\bbearer\s+(?P<hidden>[\w.~+/=-]{8,})",
        r"\b(?:set-)?cookie[\"']?\s*[:=]\s*[\"']?(?P<hidden>[^\r\n\"']+)",
        r"://[^\s:@/\"']{0,200}:(?P<hidden>[^\s\"'<>]*)@",  # a password in a URL
        r"\bhttps?://[^\s?#\"'<>]{1,2000}\?(?P<hidden>[^\s\"'<>]+)",  # the query of a URL, such as a receiver's token
        # `password=…`, `"secret": "…"`, `token: …`
        rf"(?:{_KEYWORDS})[\w-]{{0,40}}[\"']?\s*[:=]\s*[\"']?(?P<hidden>[^\s\"'&,;)}}\]]+)",
    )
]


def masked(value: object) -> str | int | float | None:
    """Return a setting with the password of a URL masked, even if the URL cannot be parsed."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, tuple):
        return ",".join(f"{number:.15g}" for number in value)  # in the syntax of the environment variable
    if not hasattr(value, "get_secret_value"):
        return str(value)
    text = _PASSWORD_IN_QUERY.sub(rf"\1{HIDDEN}", str(value.get_secret_value()))
    return _PASSWORD.sub(rf"\1:{HIDDEN}@", text)


def known_secrets(settings: Settings, environment: Mapping[str, str], folder: Path | None) -> frozenset[str]:
    """Return the secrets that this process can find out, in each form in which they may be printed.

    They are the passwords of the settings' URLs, the values of environment variables with names such as
    `AWS_SECRET_ACCESS_KEY`, and the passwords in the data directory of `linewatch up`.
    """
    found = [value for name, value in environment.items() if _SECRET_NAME.search(name)]
    for url in (settings.database_url, settings.redis_url, settings.mqtt_url):
        if url is not None:
            found += _passwords_of(url.get_secret_value())
    if folder is not None:
        found += [file.read_text(errors="replace").strip() for file in sorted(folder.glob("secrets/*"))]
    forms = {form for secret in found for form in (secret, unquote(secret), quote(secret, safe=""), _escaped(secret))}
    return frozenset(form for form in forms if len(form) >= _SHORTEST)


def _escaped(text: str) -> str:
    """Return a text as it stands in JSON."""
    return json.dumps(text)[1:-1]


def _passwords_of(url: str) -> Iterable[str]:
    if (match := _PASSWORD.search(url)) is not None:
        yield match.group().partition(":")[2].removesuffix("@")
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the whole part before the last `@` was taken above
        return
    if parsed.password is not None:
        yield str(parsed.password)
    for name, value in parsed.query.items():
        if "password" in name.lower():
            yield from [value] if isinstance(value, str) else value


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Return a text without the given secrets, and without anything that looks like one."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for pattern in _PATTERNS:
        text = pattern.sub(_hide, text)
    return text


def _hide(match: re.Match[str]) -> str:
    start, end = match.span("hidden")
    return match.string[match.start() : start] + HIDDEN + match.string[end : match.end()]


def redacted_value(value: Any, secrets: Iterable[str]) -> Any:
    """Return a JSON value with each of its texts redacted."""
    if isinstance(value, str):
        return redacted(value, secrets)
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if isinstance(each, str) and _SECRET_NAME.search(str(key)) else redacted_value(each, secrets)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted_value(each, secrets) for each in value]
    return value
