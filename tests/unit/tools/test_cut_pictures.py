"""Data that end early are a reject, however a decoder recovers; complete ones are a picture, end marker or not."""

import io
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet.pipeline.host import available
from alexnet.tools.convert.image import convert_image
from alexnet.tools.convert.opening import UndecodableError
from tests.unit.pipeline.photographs import scans_of

needs_host = pytest.mark.skipif(available() is not None, reason=str(available()))
END = b"\xff\xd9"
SIZE = 32


def photograph(width: int, height: int) -> Image.Image:
    small = np.random.default_rng(width).integers(0, 256, (height // 6 + 2, width // 6 + 2, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, file_format: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def in_three_scans() -> bytes:
    """Return a baseline JPEG with a scan for each component, made of three grey ones, which share their tables."""
    parts = [encoded(band) for band in photograph(90, 70).convert("YCbCr").split()]
    frame = parts[0].index(b"\xff\xc0\x00\x0b")
    head = parts[0][:frame] + b"\xff\xc0\x00\x11" + parts[0][frame + 4 : frame + 9]
    head += b"\x03" + b"".join(bytes([component, 0x11, 0]) for component in (1, 2, 3))
    tables = parts[0][frame + 13 : parts[0].index(b"\xff\xda")]
    scans = b""
    for component, part in enumerate(parts, 1):
        data = part[part.index(b"\xff\xda") + 10 : -2]
        scans += bytes([0xFF, 0xDA, 0, 8, 1, component, 0, 0, 63, 0]) + data
    return head + tables + scans + END


KINDS = {
    "ordinary": encoded(photograph(90, 70)),
    "4:4:4": encoded(photograph(90, 70), subsampling=0),
    "grey": encoded(photograph(90, 70).convert("L")),
    "RGB": encoded(photograph(90, 70), keep_rgb=True),
    "CMYK": encoded(photograph(90, 70).convert("CMYK")),
    "progressive": encoded(photograph(90, 70), progressive=True),
    "restart markers": encoded(photograph(90, 70), restart_marker_rows=1),
    "a scan for each component": in_three_scans(),
    "reduced": encoded(photograph(300, 260)),
    "reduced CMYK": encoded(photograph(300, 260).convert("CMYK")),
    "reduced progressive": encoded(photograph(300, 260), progressive=True),
}


def verdict(data: bytes, monkeypatch: pytest.MonkeyPatch) -> bytes | str:
    """Return the JPEG made of a picture, or why it is none: the same by either way that it can go."""
    found: list[bytes | str] = []
    for short in (True, False):
        monkeypatch.setattr("alexnet.tools.convert.image._IN_C", short)
        try:
            found.append(convert_image(data, SIZE, 90).jpeg)
        except UndecodableError as error:
            found.append(str(error))
    assert found[0] == found[1]
    return found[0]


@needs_host
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_picture_needs_no_end_marker_and_minds_no_other_bytes(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jpeg = KINDS[kind]
    whole = verdict(jpeg, monkeypatch)
    assert isinstance(whole, bytes)
    others = (jpeg[:-2], jpeg[:-1], jpeg[:-2] + b"\xff" * 5 + END, jpeg + b"more", jpeg + jpeg[:-300])
    for data in (*others, jpeg[:-2] + b"\0" * 200 + END):
        assert verdict(data, monkeypatch) == whole


@needs_host
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_picture_is_refused_however_it_was_closed(
    kind: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    jpeg = KINDS[kind]
    first = jpeg.rindex(b"\xff\xda", 0, scans_of(jpeg)[0] + 2)
    cut = jpeg[: first + int((len(jpeg) - first) * share)]
    missing = len(jpeg) - len(cut)
    for data in (cut, cut + END, cut + END + b"more", cut + END + jpeg, cut + b"\0" * (missing + 5000)):
        assert "truncated" in str(verdict(data, monkeypatch))


@needs_host
@pytest.mark.parametrize("kind", [kind for kind in KINDS if len(scans_of(KINDS[kind])) > 1])
def test_whole_scans_that_are_missing_are_missed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder says nothing: it leaves a progressive picture blurred, or one without colours grey or green."""
    jpeg = KINDS[kind]
    for scan in scans_of(jpeg)[1:]:
        assert verdict(jpeg[:scan] + END, monkeypatch) == "is truncated: it lacks scans"


@needs_host
def test_damage_in_the_middle_stays_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What libjpeg finds its way out of: data go on behind it."""
    jpeg = KINDS["restart markers"]
    begin, end = jpeg.index(b"\xff\xd0"), jpeg.index(b"\xff\xd1")
    for damaged in (jpeg[: begin + 22] + jpeg[end:], jpeg[: begin + 2] + b"\x55" * (end - begin - 2) + jpeg[end:]):
        assert isinstance(verdict(damaged, monkeypatch), bytes)
    jpeg = KINDS["a scan for each component"]
    second = scans_of(jpeg)[1]
    assert isinstance(verdict(jpeg[: second - 40] + jpeg[second:], monkeypatch), bytes)


@needs_host
def test_scans_without_end_are_refused_whichever_way_a_picture_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("progressive", "reduced progressive"):
        jpeg = KINDS[kind]
        first, second = scans_of(jpeg)[:2]
        header = first + 2 + int.from_bytes(jpeg[first + 2 : first + 4], "big")
        scan = jpeg[first : header - 1] + b"\0" + jpeg[header:second]
        assert isinstance(verdict(jpeg[:-2] + scan * 300 + END, monkeypatch), bytes)
        assert verdict(jpeg[:-2] + scan * 600 + END, monkeypatch) == "has more than 500 scans"


def closed_png(png: bytes, share: float) -> bytes:
    """Return a PNG of which a part of the data is missing, in chunks that are all whole."""
    begin = png.index(b"IDAT")
    length = int.from_bytes(png[begin - 4 : begin], "big")
    chunk = b"IDAT" + png[begin + 4 : begin + 4 + int(length * share)]
    ends = zlib.crc32(chunk).to_bytes(4, "big")
    return png[: begin - 4] + (len(chunk) - 4).to_bytes(4, "big") + chunk + ends + png[begin + 8 + length :]


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "TIFF", "BMP", "PPM", "TGA", "PCX"])
def test_other_formats_that_end_early_are_refused_too(file_format: str) -> None:
    data = encoded(photograph(90, 70).convert("P" if file_format == "GIF" else "RGB"), file_format)
    convert_image(data, SIZE, 90)
    for share in (0.4, 0.9):
        with pytest.raises(UndecodableError):
            convert_image(data[: int(len(data) * share)], SIZE, 90)


def test_a_png_that_was_closed_after_a_cut_is_refused_and_one_without_an_end_is_not() -> None:
    png = encoded(photograph(90, 70), "PNG")
    for share in (0.1, 0.5, 0.95):
        with pytest.raises(UndecodableError, match="truncated"):
            convert_image(closed_png(png, share), SIZE, 90)
    assert convert_image(png[:-12], SIZE, 90).jpeg == convert_image(png, SIZE, 90).jpeg


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("level", [1, 9])
def test_a_png_whose_tail_is_zeros_is_no_picture(kept: float, level: int) -> None:
    """As a download that broke off leaves in a file of the full size: zeros decode, as black."""
    whole = encoded(photograph(400, 300), "PNG", compress_level=level)
    at = int(len(whole) * kept)
    with pytest.raises(UndecodableError):
        convert_image(whole[:at] + bytes(len(whole) - at), SIZE, 90)
    convert_image(whole, SIZE, 90)
