"""Build HTML and SVG as a tree, so that whatever a class is called cannot break the page."""

import re
import unicodedata
from collections.abc import Iterable
from xml.etree.ElementTree import Element, SubElement, tostring

Child = Element | str


def element(tag: str, *children: Child | Iterable[Child], **attributes: object) -> Element:
    """Make an element. Attribute names are written with `_` for `-`, and with a trailing `_` where Python wants it."""
    names = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    node = Element(tag, {name: _text(value) for name, value in names.items() if value is not None})
    add(node, *children)
    return node


def add(node: Element, *children: Child | Iterable[Child]) -> None:
    """Append children; text goes where ElementTree wants it."""
    for child in children:
        if isinstance(child, str):
            if len(node):
                node[-1].tail = (node[-1].tail or "") + child
            else:
                node.text = (node.text or "") + child
        elif isinstance(child, Element):
            node.append(child)
        else:
            add(node, *child)


def document(title: str, style: str, *body: Child | Iterable[Child]) -> str:
    """Return a whole HTML page, with a policy that forbids the browser to fetch anything."""
    root = Element("html", {"lang": "en"})
    head = SubElement(root, "head")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    add(
        head,
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", style),
    )
    root.append(element("body", *body))
    page = tostring(root, encoding="unicode", method="html")
    return "<!doctype html>\n" + re.sub(r"[^\n -~]", _visible, page) + "\n"


def _visible(found: re.Match[str]) -> str:
    """Escape what nobody sees, and what turns the text around it, as it may be in names; spaces of any width stay."""
    character = found[0]
    shown = character.isprintable() or unicodedata.category(character) == "Zs"
    return character if shown else ascii(character)[1:-1]


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
