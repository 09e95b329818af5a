"""Pages that people send to each other: one HTML file that loads nothing and runs nothing. Jinja2 renders them."""

import base64
import io
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

IMAGE_SIDE: Final = 320
"""Pixels: no side of an image on a page is longer."""


def _formatted(value: object, spec: str) -> str:
    """`format(value, spec)` as a filter: `{{ share|fmt(".1%") }}`."""
    return format(value, spec)  # type: ignore[no-any-return, unused-ignore]


def number(value: int | None) -> str:
    """An integer with thin spaces between thousands; a dash for None."""
    return "–" if value is None else f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _data_uri(content: bytes, kind: str = "jpeg") -> str:
    """An image inside the page; `kind` is `jpeg` or `png`."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


_ENVIRONMENT = Environment(
    loader=PackageLoader("core.html"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"fmt": _formatted, "number": number, "data_uri": _data_uri}


def render(template: str, **values: Any) -> str:
    """The text of a template in `core/html/templates`. Every value is escaped unless it is `Markup`.

    Raises:
        jinja2.UndefinedError: the template uses a value that is not given.
    """
    return _ENVIRONMENT.get_template(template).render(**values)


def fragment(template: str, **values: Any) -> Markup:
    """The same, as markup that other templates insert as it is."""
    return Markup(render(template, **values))  # noqa: S704 - the template has escaped every value


def jpeg(image: Image.Image) -> bytes:
    """An RGB image as JPEG, in the quality of a page."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()


def png(image: Image.Image) -> bytes:
    """An RGB image as PNG."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
