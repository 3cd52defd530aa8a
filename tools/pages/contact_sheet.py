"""The contact sheet: stored squares, and their crops in epochs 0 to 7, as one PNG on white paper."""

import io

from PIL import Image, ImageDraw, ImageFont, features

from alexnet.tools.pages.data_set import EPOCHS, Pixels, Survey

_STORED_PX, _GAP_PX, _MARGIN_PX, _TEXT_PX, _HEAD_PX = 144, 8, 32, 26, 72
_PAPER, _INK, _MUTED = (251, 250, 248), (28, 27, 25), (109, 106, 99)


def contact_png(found: Survey) -> bytes:
    """Return the sheet of the images that a survey chose."""
    crop_px = round(_STORED_PX * found.settings.crop_px / found.train.manifest.size_px)
    row_px = _STORED_PX + _TEXT_PX + _GAP_PX
    width = 2 * _MARGIN_PX + _STORED_PX + EPOCHS * (crop_px + _GAP_PX)
    paper = Image.new("RGB", (width, _HEAD_PX + len(found.images) * row_px + _MARGIN_PX), _PAPER)
    pen = ImageDraw.Draw(paper)
    _write(pen, (_MARGIN_PX, 20), found.name, 18, _INK)
    _write(pen, (_MARGIN_PX, 44), f"stored squares, and their crops in epochs 0 to {EPOCHS - 1} (seed 0)", 13, _MUTED)
    for k, image in enumerate(found.images):
        x, y = _MARGIN_PX, _HEAD_PX + k * row_px
        _paste(paper, image.pixels, (x, y), _STORED_PX)
        _write(pen, (x, y + _STORED_PX + 5), image.words[:90], 13, _MUTED)
        x += _STORED_PX + _GAP_PX
        for crop in image.crops:
            _paste(paper, crop.pixels, (x, y + _STORED_PX - crop_px), crop_px)
            x += crop_px + _GAP_PX
    encoded = io.BytesIO()
    paper.save(encoded, "PNG", optimize=True)
    return encoded.getvalue()


def _paste(paper: Image.Image, pixels: Pixels, at: tuple[int, int], size_px: int) -> None:
    image = Image.fromarray(pixels)
    small = image.size[0] < size_px
    method = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS  # tiny squares stay what they are
    paper.paste(image.resize((size_px, size_px), method), at)


def _write(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: tuple[int, int, int]) -> None:
    if features.check("freetype2"):
        pen.text(at, text, fill=colour, font=ImageFont.load_default(size))
    else:  # the built-in bitmap font has one size and knows Latin letters only
        pen.text(at, text.encode("latin-1", "replace").decode("latin-1"), fill=colour, font=ImageFont.load_default())
