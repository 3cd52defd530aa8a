"""Turn a template into a page, and drawings into SVG.

A page needs nothing but itself: style, drawings and images are inside, and it forbids the browser to fetch more. What
comes from files, such as the name of a class, is escaped, whatever bytes it has.
"""

import base64
import io
import re
import unicodedata
from collections.abc import Iterable

import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape
from PIL import Image

Child = str | Iterable["Child"]

_VOID = ("img",)  # written without an end
_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("alexnet.tools.pages"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: object) -> str:
    """Return the page that a template makes of values; the same values give the same text."""
    style = _TEMPLATES.get_template("page.css").render()
    page = _TEMPLATES.get_template(template).render(style=Markup(style), **values)
    return re.sub(r"[^\n -~]", _visible, page)


def tag(name: str, *children: Child, **attributes: object) -> Markup:
    """Make an element of a drawing. Attributes are named with `_` for `-`, and may end in one; None leaves one out."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    start = "".join(f' {key}="{escape(_text(value))}"' for key, value in given.items())
    end = "" if name in _VOID else f"{joined(children)}</{name}>"
    return Markup(f"<{name}{start}>{end}")


def joined(children: Child) -> Markup:
    """Escape texts and put them behind each other; what is an element already stays."""
    return escape(children) if isinstance(children, str) else Markup("").join(map(joined, children))


def image_uri(pixels: npt.NDArray[np.uint8], file_format: str = "PNG", **options: int | bool) -> str:
    """Return pixels, (height, width, 3 or 4), as an encoded image inside a URI."""
    encoded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(encoded, file_format, **options)
    return data_uri(encoded.getvalue(), file_format)


def data_uri(encoded: bytes, file_format: str = "JPEG") -> str:
    """Return an encoded image inside a URI."""
    return f"data:image/{file_format.lower()};base64,{base64.b64encode(encoded).decode()}"


_TEMPLATES.filters.update(image_uri=image_uri, data_uri=data_uri)


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _visible(found: re.Match[str]) -> str:
    """Escape what nobody sees, and what turns the text around it, as it may be in names; spaces of any width stay."""
    character = found[0]
    shown = character.isprintable() or unicodedata.category(character) == "Zs"
    return character if shown else ascii(character)[1:-1]
