"""Pages that people are sent: one file of HTML that needs nothing but itself, and the parts that all of them have."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Final

from PIL import Image

from core.vision.evaluation.heatmap import legend

IMAGE_SIDE: Final = 320
"""Pixels: no side of an image on a page is longer."""


def page(title: str, sections: Iterable[str]) -> str:
    """The page: it loads nothing, runs nothing, and prints well. Sections are HTML, the title is not; empty ones are
    left out."""
    skeleton = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return skeleton.substitute(title=escape(title), body="\n".join(filter(None, sections)))


def card(figure: str, what: str, more: str = "") -> str:
    """A figure that matters, what it is of, and what there is to say of it; all three are HTML."""
    return f'<div class="card"><b>{figure}</b>{what}<small>{more}</small></div>'


def facts(named: Mapping[str, object]) -> str:
    """Names and values, neither of them HTML."""
    items = (f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>" for name, value in named.items())
    return f"<dl>{''.join(items)}</dl>"


def notes(lines: Sequence[str]) -> str:
    """What a reader must not miss; the lines are not HTML."""
    return f'<div class="notes">{"".join(f"<p>{escape(line)}</p>" for line in lines)}</div>' if lines else ""


def image(content: bytes, kind: str, what: str) -> str:
    """An image that lies in the page itself; `kind` is `jpeg` or `png`, `what` is read where it cannot be seen."""
    encoded = base64.b64encode(content).decode()
    return f'<img alt="{escape(what)}" src="data:image/{kind};base64,{encoded}">'


def heat_scale() -> str:
    """The colours of heat, with their unit."""
    scale = io.BytesIO()
    legend(240, 14).save(scale, "PNG")
    drawn = image(scale.getvalue(), "png", "colour scale").replace("<img", '<img class="legend"', 1)
    return f'<span class="scale">0 {drawn} 3</span>'


def jpeg(image: Image.Image) -> bytes:
    """An RGB image as it stands on a page."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()
