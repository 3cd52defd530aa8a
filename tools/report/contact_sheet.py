"""Show images beside what training makes of them: as figures of the page, and as one PNG."""

import base64
import io
from xml.etree.ElementTree import Element

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from alexnet.pipeline.augment import AugmentSettings, augmented
from alexnet.tools.report.markup import element
from alexnet.tools.report.survey import EPOCHS, Picture, Pixels, Survey

_TINY_PX = 96  # smaller squares are shown pixel by pixel, not smoothed
_QUALITY = 88  # of the pictures on the page
_STORED_PX, _GAP_PX, _MARGIN_PX, _TEXT_PX, _HEAD_PX = 144, 8, 32, 26, 72  # of the PNG
_PAPER, _INK, _MUTED = (251, 250, 248), (28, 27, 25), (109, 106, 99)


def sheet(survey: Survey) -> Element:
    """Lay out one row a picture: the stored square, then the windows of epochs 0 to 7, all at one scale."""
    columns = f"{survey.manifest.size_px}fr repeat({EPOCHS}, {survey.settings.crop_px}fr)"
    heads = [element("span", text) for text in ("stored", *(f"epoch {e}" for e in range(EPOCHS)))]
    cells = [cell for picture in survey.pictures for cell in _row(picture, survey.settings)]
    return element(
        "div",
        element("div", heads, class_="heads", style=f"grid-template-columns:{columns}"),
        element("div", cells, class_="rows", style=f"grid-template-columns:{columns}"),
        class_="sheet tiny" if survey.manifest.size_px < _TINY_PX else "sheet",
    )


def contact_png(survey: Survey) -> bytes:
    """Return the same rows as one PNG on white paper."""
    crop_px = round(_STORED_PX * survey.settings.crop_px / survey.manifest.size_px)
    row_px = _STORED_PX + _TEXT_PX + _GAP_PX
    width = 2 * _MARGIN_PX + _STORED_PX + EPOCHS * (crop_px + _GAP_PX)
    page = Image.new("RGB", (width, _HEAD_PX + len(survey.pictures) * row_px + _MARGIN_PX), _PAPER)
    pen = ImageDraw.Draw(page)
    _write(pen, (_MARGIN_PX, 20), survey.name, 18, _INK)
    _write(pen, (_MARGIN_PX, 44), f"stored squares, and their windows in epochs 0 to {EPOCHS - 1} (seed 0)", 13, _MUTED)
    for k, picture in enumerate(survey.pictures):
        x, y = _MARGIN_PX, _HEAD_PX + k * row_px
        _paste(page, picture.pixels, (x, y), _STORED_PX)
        _write(pen, (x, y + _STORED_PX + 5), picture.words[:90], 13, _MUTED)
        x += _STORED_PX + _GAP_PX
        for window in windows(picture, survey.settings):
            _paste(page, window, (x, y + _STORED_PX - crop_px), crop_px)
            x += crop_px + _GAP_PX
    encoded = io.BytesIO()
    page.save(encoded, "PNG", optimize=True)
    return encoded.getvalue()


def windows(picture: Picture, settings: AugmentSettings) -> list[Pixels]:
    """Return a picture as training sees it in each epoch, clipped to what a screen can show."""
    seen = (augmented(picture.pixels, draws, 0, settings) for draws in picture.draws)
    return [np.clip(np.rint(window), 0, 255).astype(np.uint8) for window in seen]


def png_uri(pixels: Pixels) -> str:
    """Return pixels as a data URI, without loss."""
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode()


def _row(picture: Picture, settings: AugmentSettings) -> list[Element]:
    size = len(picture.pixels)
    outlines = []
    for draws in picture.draws:
        y, x = draws.crop_yx[0].tolist()
        outlines.append(element("rect", x=x, y=y, width=settings.crop_px, height=settings.crop_px))
    overlay = element("svg", outlines, viewBox=f"0 0 {size} {size}", aria_hidden="true")
    stored = element("img", src=_jpeg_uri(picture.jpeg), alt=f"{picture.words}, as stored")
    caption = element("figcaption", picture.words, title=f"{picture.key}, label {picture.label}")
    cells = [element("figure", element("div", stored, overlay, class_="stored"), caption)]
    for epoch, window in enumerate(windows(picture, settings)):
        draws = picture.draws[epoch]
        (y, x), mirror = draws.crop_yx[0].tolist(), bool(draws.mirror[0])
        light = ", ".join(f"{v:+.1f}" for v in draws.colour_offset[0].tolist())
        said = f"window at x {x}, y {y}{', mirrored' if mirror else ''}; lighting {light}"
        image = element(
            "img", src=_jpeg_uri(_encode(window)), alt=f"{picture.words}, epoch {epoch}: {said}", title=said
        )
        cells.append(element("figure", image, element("figcaption", f"{x}, {y}", *([" ⇆"] if mirror else []))))
    return cells


def _encode(pixels: Pixels) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=_QUALITY)
    return encoded.getvalue()


def _jpeg_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _paste(page: Image.Image, pixels: Pixels, at: tuple[int, int], size_px: int) -> None:
    image = Image.fromarray(pixels)
    small = image.size[0] < size_px
    method = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS  # tiny squares stay what they are
    page.paste(image.resize((size_px, size_px), method), at)


def _write(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: tuple[int, int, int]) -> None:
    if features.check("freetype2"):
        pen.text(at, text, fill=colour, font=ImageFont.load_default(size))
    else:  # the built-in bitmap font has one size and knows Latin letters only
        pen.text(at, text.encode("latin-1", "replace").decode("latin-1"), fill=colour, font=ImageFont.load_default())
