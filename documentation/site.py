"""Hooks of MkDocs: add the pages that stand elsewhere in the repository, and the reference of the HTTP API."""

import re
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from documentation.reference import render

ROOT: Final = Path(__file__).parents[1]
PLACED: Final = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/results/speed.md": "measured/speed.md",
    "benchmarks/results/speed.svg": "measured/speed.svg",
    "benchmarks/results/detection.md": "measured/detection.md",
    "benchmarks/results/choices.md": "measured/choices.md",
    "benchmarks/results/robustness.md": "measured/robustness.md",
}
"""Files of the repository, and where the site has them."""

_LINK: Final = re.compile(r"\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")
"""A link to a file: its text, the file, and the place in it."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not stand in docs/."""
    for source, target in PLACED.items():
        text = (ROOT / source).read_text()
        files.append(File.generated(config, target, content=relinked(text, source) if source.endswith(".md") else text))
    files.append(File.generated(config, "reference.md", content=render(_openapi())))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Let links lead to where the site has a file."""
    own = ROOT / "docs" / page.file.src_uri
    return relinked(markdown, str(own.relative_to(ROOT))) if own.exists() else markdown


def relinked(markdown: str, source: str) -> str:
    """Rewrite the relative links of a file of the repository for its place in the site.

    What the site does not have, the source code for example, is named without a link.
    """
    here = Path(_place(source) or "").parent

    def replace(match: re.Match[str]) -> str:
        text, file, anchor = match[1], match[2], match[3] or ""
        target = (ROOT / source).parent.joinpath(file).resolve()
        place = _place(str(target.relative_to(ROOT)))
        return text if place is None else f"[{text}]({_relative(here, place)}{anchor})"

    return _LINK.sub(replace, markdown)


def _place(source: str) -> str | None:
    """Where the site has a file of the repository; None if nowhere."""
    if source in PLACED:
        return PLACED[source]
    return source.removeprefix("docs/") if source.startswith("docs/") else None


def _relative(folder: Path, place: str) -> str:
    return "../" * len(folder.parts) + place


def _openapi() -> dict[str, Any]:
    from api.app import create_app  # only while a site is built

    return create_app().openapi()
