"""One image in, one 256 px square out, whatever the file is and whatever its name says."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops

from alexnet.pipeline.host import available
from alexnet.tools.convert.image import centre_of_jpeg, convert_image, resize_and_crop, to_rgb
from alexnet.tools.convert.opening import UndecodableError


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, file_format: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("width", "height"),
    [(500, 375), (375, 500), (256, 256), (300, 256), (64, 48), (1000, 30), (31, 900), (1, 1), (257, 999)],
)
def test_equals_resizing_all_of_it_and_then_cropping(width: int, height: int) -> None:
    image = photograph(width, height)
    shorter = min(width, height)
    whole = image.resize((256 * width // shorter, 256 * height // shorter), Image.Resampling.BICUBIC)
    left, top = (whole.width - 256) // 2, (whole.height - 256) // 2
    expected = np.asarray(whole.crop((left, top, left + 256, top + 256))).astype(int)
    difference = np.abs(np.asarray(resize_and_crop(image, 256)).astype(int) - expected)
    assert difference.max() <= 1


def test_what_comes_out_is_baseline_420_of_the_pixels_reported() -> None:
    converted = convert_image(encoded(photograph(300, 200), quality=95), 256, 90)
    with Image.open(io.BytesIO(converted.jpeg)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (256, 256))
        assert "progressive" not in image.info
        assert [(h, v) for _, h, v, _ in image.layer] == [(2, 2), (1, 1), (1, 1)]  # type: ignore[attr-defined]
        error = np.asarray(image).astype(float) - converted.pixels[:, :, :3]
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 30


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"quality": 30}]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("width", "height"),
    [(500, 375), (375, 500), (100, 100), (90, 61), (1100, 70), (7, 300), (533, 401), (817, 901), (1601, 1700)],
)
def test_the_short_way_gives_what_pillow_gives(
    width: int, height: int, mode: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if available() is not None:
        pytest.skip("the host decoder was not built")
    jpeg = encoded(photograph(width, height, seed=width).convert(mode), **options)
    assert centre_of_jpeg(jpeg, 100) is not None
    short = convert_image(jpeg, 100, 90)
    monkeypatch.setattr("alexnet.tools.convert.image._IN_C", False)
    long = convert_image(jpeg, 100, 90)
    assert short.jpeg == long.jpeg
    assert np.array_equal(short.pixels[:, :, :3], long.pixels[:, :, :3])


def test_the_short_way_is_for_undamaged_jpegs() -> None:
    jpeg = encoded(photograph(200, 150))
    cmyk = encoded(photograph(200, 150).convert("CMYK"))
    others = [jpeg[:-400], cmyk, encoded(photograph(20, 20), "PNG"), b""]
    assert [centre_of_jpeg(data, 64) for data in others] == [None] * 4


def test_the_bytes_say_what_a_file_is_not_its_name() -> None:
    image = photograph(80, 60)
    png, gif = encoded(image, "PNG"), encoded(image.convert("P"), "GIF")
    lossless = convert_image(png, 64, 90).pixels[:, :, :3]
    assert np.array_equal(lossless, np.asarray(resize_and_crop(image, 64)))
    assert convert_image(gif, 64, 90).pixels.shape == (64, 64, 4)


def without_adobe_marker(jpeg: bytes) -> bytes:
    start = jpeg.index(b"\xff\xee")
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big") :]


def test_cmyk_of_both_polarities_looks_the_same() -> None:
    """Adobe writes CMYK inverted and says so in a marker; files without the marker are not inverted."""
    cmyk = photograph(64, 64).convert("CMYK")
    expected = np.asarray(cmyk.convert("RGB")).astype(int)
    adobe = encoded(cmyk, quality=95)  # Pillow inverts and writes the marker
    plain = without_adobe_marker(encoded(ImageChops.invert(cmyk), quality=95))
    lying = encoded(ImageChops.invert(cmyk), quality=95)  # the marker, but the other polarity
    for data in (adobe, plain, lying):
        assert np.abs(convert_image(data, 64, 90).pixels[:, :, :3] - expected).mean() < 4, "JPEG's own error is about 2"


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels = np.asarray(to_rgb(Image.open(io.BytesIO(encoded(Image.fromarray(ramp), "PNG")))))
    assert np.array_equal(pixels, np.repeat((ramp >> 8).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = photograph(50, 40).convert(mode)
    pixels = convert_image(encoded(image, "PNG"), 32, 90).pixels
    expected = resize_and_crop(Image.open(io.BytesIO(encoded(image, "PNG"))).convert("RGB"), 32)
    assert np.array_equal(pixels[:, :, :3], np.asarray(expected))


def test_exif_orientation_is_ignored() -> None:
    image = photograph(64, 48)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    turned, plain = encoded(image, exif=exif), encoded(image)
    assert np.array_equal(convert_image(turned, 48, 90).pixels, convert_image(plain, 48, 90).pixels)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html>not found</html>", "not an image of any known format"),
        (encoded(photograph(80, 60))[:700], "truncated"),
        (encoded(photograph(80, 60), "PNG")[:-700], "truncated"),
    ],
)
def test_what_cannot_be_decoded_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(UndecodableError, match=reason) as first:
        convert_image(data, 64, 90)
    with pytest.raises(UndecodableError) as second:
        convert_image(data, 64, 90)
    assert str(first.value) == str(second.value), "reasons are part of the data set and must not vary"
