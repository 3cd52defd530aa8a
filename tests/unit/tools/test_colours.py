"""Pixels of any kind become 8-bit RGB by a rule that cannot be silently wrong, or are refused with the reason."""

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from alexnet.tools.convert.image import convert_image
from alexnet.tools.convert.opening import UndecodableError
from tests.unit.tools.images import png_of, saved, tiff

SIZE = 32
RAMP = np.linspace(0, 1, SIZE * SIZE).reshape(SIZE, SIZE)
Values = npt.NDArray[Any]


def pixels(data: bytes) -> Values:
    return convert_image(data, SIZE, 90).pixels[:, :, :3]


def pixels_of(values: Values, file_format: str = "TIFF") -> Values:
    return pixels(saved(Image.fromarray(values), file_format))


def grey(values: Values) -> Values:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_keep_their_upper_byte_and_fewer_in_them_are_refused_not_blackened(file_format: str) -> None:
    for white in (65535, 20_000, 4096):
        values = (RAMP * white).round().astype(np.uint16)
        assert np.array_equal(pixels_of(values, file_format), grey(values >> 8))
    for white in (4095, 1023, 255, 1):
        with pytest.raises(UndecodableError, match=f"from 0 to {white:,}: what is white is not known"):
            pixels_of((RAMP * white).round().astype(np.uint16), file_format)


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_colours_of_sixteen_bits_follow_the_same_rule(kind: int, channels: int) -> None:
    def png(white: int) -> bytes:
        values = np.repeat((RAMP * white).astype(np.uint16)[..., None], channels, axis=2)
        if white < 65535 and channels % 2 == 0:
            values[..., -1] = 65535
        return png_of(SIZE, SIZE, kind, 16, b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))

    assert np.array_equal(pixels(png(65535)), grey((RAMP * 65535).astype(np.uint16) >> 8))
    for white in (4095, 255):
        with pytest.raises(UndecodableError, match="none above 4,095"):
            pixels(png(white))


def test_black_is_black_under_every_rule() -> None:
    for dtype in (np.uint16, np.int32, np.float32):
        assert not pixels_of(np.zeros((SIZE, SIZE), dtype)).any()


def test_where_a_file_says_what_is_white_that_is_taken() -> None:
    values = (RAMP * 4095).round().astype(np.uint16)
    left, right = values[:, ::2].astype(int), values[:, 1::2].astype(int)
    packed = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], axis=-1).astype(np.uint8).tobytes()
    bits = {256: SIZE, 257: SIZE, 258: 12, 259: 1, 262: 1, 277: 1, 278: SIZE, 279: len(packed)}
    tags: dict[int, tuple[int, int, int | None]] = {tag: (4, 1, value) for tag, value in bits.items()}
    assert np.array_equal(pixels(tiff(tags | {273: (4, 1, None)}, packed)), grey(values >> 4))
    pgm = b"P5 %d %d 4095\n" % (SIZE, SIZE) + values.astype(">u2").tobytes()
    assert np.abs(pixels(pgm).astype(int) - grey(values >> 4)).max() <= 1


@pytest.mark.parametrize("white", [255, 4095, 70_000, 2**31 - 1])
def test_integers_of_another_range_are_refused(white: int) -> None:
    values = (RAMP * white).astype(np.int32)
    for wrong, low in ((values, "0"), (30_000 - 200 * values.clip(max=70_000), "-")):
        with pytest.raises(UndecodableError, match=f"greys as integers of more than 8 bits from {low}"):
            pixels_of(wrong)


def test_floats_are_levels_up_to_255_or_refused() -> None:
    values = (RAMP * 255).astype(np.float32)
    assert np.array_equal(pixels_of(values), grey(np.asarray(Image.fromarray(values).convert("L"))))
    assert pixels_of(values * 1.02 - 2).max() == 255, "a filter's overshoot is clipped"
    for wrong in (RAMP, RAMP * 2 - 1, RAMP * 65535, RAMP * 255 - 128, np.where(RAMP > 0.5, np.nan, 99)):
        with pytest.raises(UndecodableError, match=r"floats from .* what is white is not known; it is 255 only"):
            pixels_of(wrong.astype(np.float32))


def test_a_tiff_of_sixteen_bits_of_which_white_is_zero_is_no_negative() -> None:
    levels = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    stored = []
    for black in (0, 65535):
        data = saved(Image.fromarray(levels ^ black), "TIFF", tiffinfo={262: 1})
        at = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
        stored.append(pixels(data[:at] + bytes([not black]) + data[at + 1 :]).astype(int))
    assert np.abs(stored[1] - stored[0]).max() <= 1


def logo(level: int, mode: str) -> Image.Image:
    """Return a disc of one grey; where it is clear the colour is the same."""
    image = Image.new("RGBA", (SIZE, SIZE), (level, level, level, 0))
    y, x = np.mgrid[:SIZE, :SIZE]
    image.putalpha(Image.fromarray((np.hypot(x - 15.5, y - 15.5) < 10).astype(np.uint8) * 255))
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize(("level", "ground"), [(0, 255), (90, 255), (255, 0), (200, 0)])
def test_a_shape_that_only_alpha_has_is_seen(level: int, ground: int, mode: str) -> None:
    solid = np.asarray(logo(level, "RGBA").getchannel("A")) > 127
    if mode == "P":
        image = Image.fromarray(solid.astype(np.uint8)).convert("P")
        image.putpalette([level] * 6)
        data = saved(image, "PNG", transparency=0)
    else:
        data = saved(logo(level, mode), "PNG")
    assert np.array_equal(pixels(data), grey(np.where(solid, level, ground)))


def test_alpha_is_dropped_from_all_that_can_be_seen_without_it() -> None:
    image = Image.fromarray(grey(RAMP * 255)).convert("RGBA")
    image.putalpha(logo(0, "RGBA").getchannel("A"))
    for seen in (image, Image.new("RGBA", (SIZE, SIZE), (10, 20, 30, 128))):
        assert np.array_equal(pixels(saved(seen, "PNG")), np.asarray(seen)[:, :, :3])
