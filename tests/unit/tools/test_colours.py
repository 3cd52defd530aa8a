"""Pixels of any kind become 8-bit RGB by a rule that cannot be silently wrong, or are refused with the reason."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from alexnet.tools.convert.image import convert_image
from alexnet.tools.convert.opening import UndecodableError

SIZE = 32
RAMP = np.linspace(0, 1, SIZE * SIZE).reshape(SIZE, SIZE)
Values = npt.NDArray[Any]


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> Values:
    return convert_image(data, SIZE, 90).pixels[:, :, :3]


def grey(values: Values) -> Values:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def png_of_16_bits(values: Values, kind: int) -> bytes:
    """Return a PNG of uint16 (height, width, channels); kind: 0 grey, 2 RGB, 4 grey with alpha, 6 RGB with alpha."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_of_12_bits(values: Values) -> bytes:
    """Return a grey TIFF of 12 bits a value, two of them in three bytes."""
    left, right = values[:, ::2].astype(int), values[:, 1::2].astype(int)
    packed = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], axis=-1).astype(np.uint8).tobytes()
    tags = {256: SIZE, 257: SIZE, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: SIZE, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("white", [65535, 20_000, 4096])
def test_sixteen_bits_keep_their_upper_byte_be_they_dark(file_format: str, white: int) -> None:
    values = (RAMP * white).round().astype(np.uint16)
    assert np.array_equal(pixels(encoded(Image.fromarray(values), file_format)), grey(values >> 8))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("white", [4095, 1023, 255, 1])
def test_fewer_bits_in_sixteen_are_refused_not_blackened(file_format: str, white: int) -> None:
    values = (RAMP * white).round().astype(np.uint16)
    with pytest.raises(UndecodableError, match=f"from 0 to {white:,}: what is white is not known"):
        pixels(encoded(Image.fromarray(values), file_format))


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_colours_of_sixteen_bits_follow_the_same_rule(kind: int, channels: int) -> None:
    values = np.repeat((RAMP * 65535).astype(np.uint16)[..., None], channels, axis=2)
    assert np.array_equal(pixels(png_of_16_bits(values, kind)), grey(values[..., 0] >> 8))
    if channels % 2 == 0:
        values[..., -1] = 65535
    for white in (4095, 255):
        values[..., : 3 if channels > 2 else 1] = (RAMP * white).astype(np.uint16)[..., None]
        with pytest.raises(UndecodableError, match="none above 4,095"):
            pixels(png_of_16_bits(values, kind))


def test_black_is_black_under_every_rule() -> None:
    for dtype in (np.uint16, np.int32, np.float32):
        assert not pixels(encoded(Image.fromarray(np.zeros((SIZE, SIZE), dtype)), "TIFF")).any()


def test_where_a_file_says_what_is_white_that_is_taken() -> None:
    values = (RAMP * 4095).round().astype(np.uint16)
    assert np.array_equal(pixels(tiff_of_12_bits(values)), grey(values >> 4))
    pgm = b"P5 %d %d 4095\n" % (SIZE, SIZE) + values.astype(">u2").tobytes()
    assert np.abs(pixels(pgm).astype(int) - grey(values >> 4)).max() <= 1


@pytest.mark.parametrize("white", [255, 4095, 70_000, 2**31 - 1])
def test_integers_of_another_range_are_refused(white: int) -> None:
    values = (RAMP * white).astype(np.int32)
    with pytest.raises(UndecodableError, match="greys as integers of more than 8 bits from 0 to "):
        pixels(encoded(Image.fromarray(values), "TIFF"))
    with pytest.raises(UndecodableError, match="greys as integers of more than 8 bits from -"):
        pixels(encoded(Image.fromarray(30_000 - 200 * values.clip(max=70_000)), "TIFF"))


def test_floats_are_levels_up_to_255_or_refused() -> None:
    values = (RAMP * 255).astype(np.float32)
    expected = grey(np.asarray(Image.fromarray(values).convert("L")))
    assert np.array_equal(pixels(encoded(Image.fromarray(values), "TIFF")), expected)
    assert pixels(encoded(Image.fromarray(values * 1.02 - 2), "TIFF")).max() == 255, "a filter's overshoot is clipped"
    for wrong in (RAMP, RAMP * 2 - 1, RAMP * 65535, RAMP * 255 - 128, np.where(RAMP > 0.5, np.nan, 99)):
        with pytest.raises(UndecodableError, match=r"floats from .* what is white is not known; it is 255 only"):
            pixels(encoded(Image.fromarray(wrong.astype(np.float32)), "TIFF"))


def logo(colour: tuple[int, int, int], mode: str) -> Image.Image:
    """Return a disc of one colour; where it is clear the colour is the same."""
    image = Image.new("RGBA", (SIZE, SIZE), (*colour, 0))
    y, x = np.mgrid[:SIZE, :SIZE]
    image.putalpha(Image.fromarray((np.hypot(x - 15.5, y - 15.5) < 10).astype(np.uint8) * 255))
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize(("level", "ground"), [(0, 255), (90, 255), (255, 0), (200, 0)])
def test_a_shape_that_only_alpha_has_is_seen(level: int, ground: int, mode: str) -> None:
    image = logo((level, level, level), mode)
    expected = np.where(np.asarray(image.getchannel("A")) > 127, level, ground)
    assert np.array_equal(pixels(encoded(image, "PNG")), grey(expected))


def test_a_palette_with_a_clear_colour_shows_its_shape_too() -> None:
    image = logo((0, 0, 0), "RGBA").getchannel("A").point(lambda alpha: alpha // 255).convert("P")
    image.putpalette([0, 0, 0, 0, 0, 0])
    found = pixels(encoded(image, "PNG", transparency=0))
    assert np.array_equal(found, grey(np.where(np.asarray(image) == 1, 0, 255)))


def test_alpha_is_dropped_from_all_that_can_be_seen_without_it() -> None:
    image = Image.fromarray(grey(RAMP * 255)).convert("RGBA")
    image.putalpha(logo((0, 0, 0), "RGBA").getchannel("A"))
    assert np.array_equal(pixels(encoded(image, "PNG")), np.asarray(image)[:, :, :3])
    uniform = Image.new("RGBA", (SIZE, SIZE), (10, 20, 30, 128))
    assert np.array_equal(pixels(encoded(uniform, "PNG")), np.asarray(uniform)[:, :, :3])


def test_a_tiff_of_sixteen_bits_of_which_white_is_zero_is_no_negative() -> None:
    """The same picture in both of TIFF's polarities."""
    levels = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    stored = {}
    for white_is_zero in (False, True):
        buffer = io.BytesIO()
        Image.fromarray(65535 - levels if white_is_zero else levels).save(buffer, "TIFF", tiffinfo={262: 1})
        data = bytearray(buffer.getvalue())
        at = next(i for i in range(len(data) - 12) if data[i : i + 8] == b"\x06\x01\x03\x00\x01\x00\x00\x00")
        data[at + 8] = 0 if white_is_zero else 1
        stored[white_is_zero] = convert_image(bytes(data), 64, 90).pixels[..., :3].astype(int)
    assert np.abs(stored[True] - stored[False]).max() <= 1
