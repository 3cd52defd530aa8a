"""One image in, one square out: whatever the file is, whatever its name says, and only if its data are whole."""

import gc
import io
import itertools
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops

from alexnet.pipeline.host import available
from alexnet.tools.convert.image import centre_of_jpeg, convert_image, pixels_of, resize_and_crop
from alexnet.tools.convert.opening import UndecodableError, orientation
from tests.unit.pipeline.photographs import scans_of
from tests.unit.tools.images import gradient, photograph, saved

needs_host = pytest.mark.skipif(available() is not None, reason=str(available()))
END = b"\xff\xd9"
SIZE = 32


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
    assert np.abs(np.asarray(resize_and_crop(image, 256)).astype(int) - expected).max() <= 1


def test_what_comes_out_is_baseline_420_of_the_pixels_reported() -> None:
    converted = convert_image(saved(photograph(300, 200), quality=95), 256, 90)
    with Image.open(io.BytesIO(converted.jpeg)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (256, 256))
        assert "progressive" not in image.info
        assert [(h, v) for _, h, v, _ in image.layer] == [(2, 2), (1, 1), (1, 1)]  # type: ignore[attr-defined]
        error = np.asarray(image).astype(float) - converted.pixels[:, :, :3]
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 30


@needs_host
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("width", "height"),
    [(500, 375), (375, 500), (100, 100), (90, 61), (1100, 70), (7, 300), (533, 401), (817, 901), (1601, 1700)],
)
def test_the_way_in_c_gives_what_pillow_gives(
    width: int, height: int, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: tuple[dict[str, Any], ...] = ({}, {"progressive": True}, {"subsampling": 0}, {"quality": 30})
    for options in kinds if mode == "RGB" else kinds[:2]:
        jpeg = saved(photograph(width, height).convert(mode), **options)
        assert centre_of_jpeg(jpeg, 100) is not None
        in_c = convert_image(jpeg, 100, 90)
        with monkeypatch.context() as patch:
            patch.setattr("alexnet.tools.convert.image._IN_C", False)
            by_pillow = convert_image(jpeg, 100, 90)
        assert in_c.jpeg == by_pillow.jpeg
        assert np.array_equal(in_c.pixels[:, :, :3], by_pillow.pixels[:, :, :3])


def test_the_way_in_c_is_for_undamaged_jpegs() -> None:
    jpeg = saved(photograph(200, 150))
    others = [jpeg[:-400], saved(photograph(200, 150).convert("CMYK")), saved(photograph(20, 20), "PNG"), b""]
    assert [centre_of_jpeg(data, 64) for data in others] == [None] * 4


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "P", "1", "RGBA"])
def test_the_bytes_say_what_a_file_is_and_every_mode_becomes_rgb(mode: str) -> None:
    image = photograph(50, 40).convert(mode)
    expected = resize_and_crop(image.convert("RGB"), SIZE)
    assert np.array_equal(convert_image(saved(image, "PNG"), SIZE, 90).pixels[:, :, :3], np.asarray(expected))
    if mode != "P":
        assert convert_image(saved(image.convert("P"), "GIF"), SIZE, 90).pixels.shape == (SIZE, SIZE, 4)


def test_cmyk_of_both_polarities_looks_the_same() -> None:
    """Adobe writes CMYK inverted and says so in a marker; files without the marker are not inverted."""
    cmyk = photograph(64, 64).convert("CMYK")
    expected = np.asarray(cmyk.convert("RGB")).astype(int)
    adobe, other = saved(cmyk, quality=95), saved(ImageChops.invert(cmyk), quality=95)  # Pillow writes the marker
    start = other.index(b"\xff\xee")
    plain = other[:start] + other[start + 2 + int.from_bytes(other[start + 2 : start + 4]) :]
    for data in (adobe, plain, other):
        assert np.abs(convert_image(data, 64, 90).pixels[:, :, :3] - expected).mean() < 4, "JPEG's own error is about 2"


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_is_read_from_any_format_and_ignored(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    for file_format in ("JPEG", "PNG", "TIFF"):
        data = saved(gradient("L", 64), file_format, exif=exif)
        assert orientation(data) == turn
        assert orientation(saved(gradient("L", 64), file_format)) == 1
        if file_format != "TIFF":  # which Pillow turns itself
            assert convert_image(data, 48, 90).jpeg == convert_image(saved(gradient("L", 64), file_format), 48, 90).jpeg


def test_pixels_are_pillows_own_for_as_long_as_anyone_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0).integers(0, 256, (37, 53, 4), dtype=np.uint8)
    memory = Image.frombuffer("RGBX", (53, 37), random, "raw", "RGBX", 0, 1)
    large = Image.new("RGB", (2200, 2000), (1, 2, 3))  # 17.6 MB; Pillow's pieces have 16
    for image in (Image.fromarray(random[:, :, :3]), Image.fromarray(random[:, :, 0]), memory, memory.copy(), large):
        pixels = pixels_of(image)
        assert np.array_equal(pixels[:, :, :3], np.asarray(image.convert("RGB")))
        assert not pixels.flags.writeable
    part = pixels_of(Image.fromarray(random[:, :, :3]))[3:9, ::2]
    gc.collect()
    fill = [Image.new("RGB", (53, 37), (200, 100, k)) for k in range(50)]  # takes whatever memory was freed
    assert np.array_equal(part[:, :, :3], random[3:9, ::2, :3])
    monkeypatch.delattr(Image.Image, "__arrow_c_array__")
    assert np.array_equal(pixels_of(fill[7]), np.asarray(fill[7])), "an older Pillow"


def in_three_scans() -> bytes:
    """Return a baseline JPEG with a scan for each component, made of three grey ones, which share their tables."""
    parts = [saved(band) for band in photograph(90, 70).convert("YCbCr").split()]
    frame = parts[0].index(b"\xff\xc0\x00\x0b")
    head = parts[0][:frame] + b"\xff\xc0\x00\x11" + parts[0][frame + 4 : frame + 9]
    head += b"\x03" + b"".join(bytes([component, 0x11, 0]) for component in (1, 2, 3))
    tables = parts[0][frame + 13 : parts[0].index(b"\xff\xda")]
    scans = b""
    for component, part in enumerate(parts, 1):
        data = part[part.index(b"\xff\xda") + 10 : -2]
        scans += bytes([0xFF, 0xDA, 0, 8, 1, component, 0, 0, 63, 0]) + data
    return head + tables + scans + END


JPEGS = {
    "ordinary": saved(photograph(90, 70)),
    "4:4:4": saved(photograph(90, 70), subsampling=0),
    "grey": saved(photograph(90, 70).convert("L")),
    "RGB": saved(photograph(90, 70), keep_rgb=True),
    "CMYK": saved(photograph(90, 70).convert("CMYK")),
    "progressive": saved(photograph(90, 70), progressive=True),
    "restart markers": saved(photograph(90, 70), restart_marker_rows=1),
    "a scan for each component": in_three_scans(),
    "reduced": saved(photograph(300, 260)),
    "reduced CMYK": saved(photograph(300, 260).convert("CMYK")),
    "reduced progressive": saved(photograph(300, 260), progressive=True),
}


def verdict(data: bytes) -> bytes | str:
    """Return the JPEG made of an image, or why it is none: the same by either way that it can go."""
    found: list[bytes | str] = []
    for in_c in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("alexnet.tools.convert.image._IN_C", in_c)
            try:
                found.append(convert_image(data, SIZE, 90).jpeg)
            except UndecodableError as error:
                found.append(str(error))
    assert found[0] == found[1]
    return found[0]


@needs_host
@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_is_taken_if_its_data_are_whole_end_marker_or_not_and_refused_however_a_cut_was_closed(
    kind: str,
) -> None:
    jpeg = JPEGS[kind]
    whole = verdict(jpeg)
    assert isinstance(whole, bytes)
    others = (jpeg[:-2], jpeg[:-1], jpeg[:-2] + b"\xff" * 5 + END, jpeg + b"more", jpeg + jpeg[:-300])
    for data in (*others, jpeg[:-2] + b"\0" * 200 + END):
        assert verdict(data) == whole
    first, *scans = scans_of(jpeg)
    first = jpeg.rindex(b"\xff\xda", 0, first + 2)
    for share in (0.3, 0.6, 0.97):
        cut = jpeg[: first + int((len(jpeg) - first) * share)]
        for tail in (b"", END, END + b"more", END + jpeg, b"\0" * (len(jpeg) - len(cut) + 5000)):
            assert "truncated" in str(verdict(cut + tail))
    for scan in scans:  # a decoder says nothing, and leaves it blurred, or without colours
        assert verdict(jpeg[:scan] + END) == "is truncated: it lacks scans"


@needs_host
def test_damage_in_the_middle_stays_accepted_and_scans_without_end_are_not() -> None:
    """What libjpeg finds its way out of: data go on behind it."""
    jpeg = JPEGS["restart markers"]
    begin, end = jpeg.index(b"\xff\xd0"), jpeg.index(b"\xff\xd1")
    for damaged in (jpeg[: begin + 22] + jpeg[end:], jpeg[: begin + 2] + b"\x55" * (end - begin - 2) + jpeg[end:]):
        assert isinstance(verdict(damaged), bytes)
    jpeg = JPEGS["a scan for each component"]
    second = scans_of(jpeg)[1]
    assert isinstance(verdict(jpeg[: second - 40] + jpeg[second:]), bytes)
    for kind in ("progressive", "reduced progressive"):
        jpeg = JPEGS[kind]
        first, second = scans_of(jpeg)[:2]
        header = first + 2 + int.from_bytes(jpeg[first + 2 : first + 4])
        scan = jpeg[first : header - 1] + b"\0" + jpeg[header:second]
        assert isinstance(verdict(jpeg[:-2] + scan * 300 + END), bytes)
        assert verdict(jpeg[:-2] + scan * 600 + END) == "has more than 500 scans"


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "TIFF", "BMP", "PPM", "TGA", "PCX"])
def test_other_formats_that_end_early_are_refused_too(file_format: str) -> None:
    data = saved(photograph(90, 70).convert("P" if file_format == "GIF" else "RGB"), file_format)
    assert convert_image(data, SIZE, 90).jpeg
    for share in (0.4, 0.9):
        with pytest.raises(UndecodableError):
            convert_image(data[: int(len(data) * share)], SIZE, 90)


def test_a_png_that_was_closed_after_a_cut_or_has_a_tail_of_zeros_is_no_image() -> None:
    """As a download leaves that broke off, in a file of the full size: zeros decode, as black."""
    png = saved(photograph(90, 70), "PNG")
    begin = png.index(b"IDAT")
    length = int.from_bytes(png[begin - 4 : begin])
    for share in (0.1, 0.5, 0.95):
        chunk = png[begin : begin + 4 + int(length * share)]
        closed = (len(chunk) - 4).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4)
        with pytest.raises(UndecodableError, match="truncated"):
            convert_image(png[: begin - 4] + closed + png[begin + 8 + length :], SIZE, 90)
    assert convert_image(png[:-12], SIZE, 90).jpeg == convert_image(png, SIZE, 90).jpeg
    for level, kept in itertools.product((1, 9), (0.3, 0.6, 0.9)):
        whole = saved(photograph(400, 300), "PNG", compress_level=level)
        at = int(len(whole) * kept)
        with pytest.raises(UndecodableError):
            convert_image(whole[:at] + bytes(len(whole) - at), SIZE, 90)
