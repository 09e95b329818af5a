"""The words of the page: every language has each text, with the same values in it, and the page uses all of them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from api.routes.page import FOLDER

Strings = dict[str, str | dict[str, str]]

LANGUAGES = sorted(path.stem for path in (FOLDER / "strings").glob("*.js"))
CODE = "\n".join(path.read_text() for path in sorted((FOLDER / "app").rglob("*.js")))


def read(language: str) -> Strings:
    text = (FOLDER / "strings" / f"{language}.js").read_text()
    body = text[text.index("{") : text.rindex("}") + 1]
    named = re.sub(r"([{,] )(\w+): \"", r'\1"\2": "', body)
    strings: Strings = json.loads(re.sub(r",(\s*})", r"\1", named), object_pairs_hook=_without_repeats)
    return strings


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), "a key stands twice"
    return dict(pairs)


def variants(text: str | dict[str, str]) -> list[str]:
    return [text] if isinstance(text, str) else list(text.values())


def values(text: str | dict[str, str]) -> set[str]:
    return {name for variant in variants(text) for name in re.findall(r"\{(\w+)\}", variant)}


ENGLISH = read("en")


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_has_every_text(language: str) -> None:
    strings = read(language)
    assert strings.keys() == ENGLISH.keys()
    for key, text in strings.items():
        assert all(variant.strip() for variant in variants(text)), key
        assert values(text) == values(ENGLISH[key]), key
        if isinstance(text, dict):
            assert "other" in text, key
            assert "{count}" in text["other"] or "{number}" in text["other"], key


def test_the_languages_are_listed() -> None:
    listed = re.findall(r"(\w+): \{ name:", Path(FOLDER / "app" / "strings.js").read_text())
    assert sorted(listed) == LANGUAGES


def test_every_text_that_the_page_asks_for_exists() -> None:
    for arguments in re.findall(r"\bt\(([^()]*)", CODE):
        for key in re.findall(r"\"([\w-]+(?:\.[\w-]+)+)\"", arguments):
            assert key in ENGLISH
    for group in re.findall(r"\bt\(`([^`$]+)\$\{", CODE):
        assert any(key.startswith(group) for key in ENGLISH), group


def test_no_text_is_left_over() -> None:
    named = set(re.findall(r"[\"`]([\w-]+(?:\.[\w-]+)+)[\"`]", CODE))
    groups = tuple(re.findall(r"`([\w-]+\.(?:[\w-]+\.)*)\$\{", CODE))
    groups += tuple(f"{group}." for group in re.findall(r"\btCode\(\"([\w-]+)\"", CODE))
    groups += tuple(f"{group}." for group in re.findall(r"\bchoice\(\"\w+\", \w+, \"(\w+)\"", CODE))
    assert [key for key in ENGLISH if key not in named and not key.startswith(groups)] == []
