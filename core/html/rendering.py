"""Render self-contained HTML pages with Jinja2. A page loads nothing and runs no scripts, so that it can be sent on."""

import base64
import io
from functools import cache
from typing import Any, Final

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

IMAGE_SIDE: Final = 320
"""The longest side of an image on a page, in pixels."""


def _formatted(value: object, spec: str) -> str:
    """Format a value, as a filter: `{{ share|fmt(".1%") }}`."""
    return format(value, spec)  # type: ignore[no-any-return, unused-ignore]


def number(value: int | None) -> str:
    """Format an integer with thin spaces between thousands, or None as a dash."""
    return "–" if value is None else f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _data_uri(content: bytes, kind: str = "jpeg") -> str:
    """Return the data URI of an image. `kind` is `jpeg` or `png`."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


@cache
def _environment(package: str) -> Environment:
    """Return the environment for the templates of a package, which may extend and import those of `core.html`."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("core.html")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"fmt": _formatted, "number": number, "data_uri": _data_uri}
    return environment


def render(template: str, *, package: str = "core.html", **values: Any) -> str:
    """Render a template from the `templates` folder of a package. Every value is escaped unless it is `Markup`.

    Raises:
        jinja2.UndefinedError: the template uses a value that is missing from `values`.
    """
    return _environment(package).get_template(template).render(**values)


def fragment(template: str, **values: Any) -> Markup:
    """Render a template as markup, which other templates insert unescaped."""
    return Markup(render(template, **values))  # noqa: S704 - the template has escaped every value


def jpeg(image: Image.Image) -> bytes:
    """Encode an RGB image as JPEG, at the quality used on pages."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()


def png(image: Image.Image) -> bytes:
    """Encode an RGB image as PNG."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
