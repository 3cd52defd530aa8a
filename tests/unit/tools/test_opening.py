"""The one door for pictures: what is not read there, what is silent, and what is said of formats without a decoder."""

import contextlib
import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin, features

from alexnet.shards.errors import InputError
from alexnet.tools.convert.image import convert_image
from alexnet.tools.convert.opening import (
    CODECS,
    MissingDecoderError,
    UndecodableError,
    kind_of,
    lacking,
    opened,
    orientation,
)
from alexnet.tools.convert.run import slowness
from alexnet.tools.convert.sources import open_source

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
BEGINNINGS = {
    "WebP": [b"RIFF\x24\0\0\0WEBPVP8 " + bytes(28), b"RIFF\0\0\0\0WEBPVP8X"],
    "JPEG 2000": [b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), b"\xff\x4f\xff\x51" + bytes(40)],
    "AVIF": [b"\0\0\0\x20ftypavif\0\0\0\0", b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif"],
    "HEIC": [HEIC, b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", b"\0\0\0\x14ftypmsf1\0\0\0\0hevc"],
    "JPEG XL": [b"\xff\x0a" + bytes(40), b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40)],
}
NONE_OF_THEM = [
    b"",
    b"RIFF\0\0\0\0WAVEfmt ",
    b"\0\0\0\x18ftypisom\0\0\0\0isommp42",
    b"\xff\xd8\xff\xe0",
    b"II*\0",
    b"\0" * 64,
]


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


GRADIENT = Image.linear_gradient("L")


@pytest.mark.parametrize(
    "options",
    [
        {"icc_profile": bytes(3_000_000)},
        {"pnginfo": [("workflow", "x" * 3_000_000, True)]},
        {"pnginfo": [("workflow", "x" * 3_000_000, False)]},
        {"pnginfo": [(f"part {i}", "x" * 900_000, True) for i in range(80)]},
    ],
    ids=["profile", "zipped text", "text", "many texts"],
)
def test_a_png_may_carry_what_it_likes_beside_its_picture(options: dict[str, Any]) -> None:
    if "pnginfo" in options:
        info = PngImagePlugin.PngInfo()
        for key, text, zipped in options["pnginfo"]:
            info.add_text(key, text, zip=zipped)
        options = {"pnginfo": info}
    plain = convert_image(encoded(GRADIENT, "PNG"), 64, 90)
    data = encoded(GRADIENT, "PNG", **options)
    tracemalloc.start()
    assert convert_image(data, 64, 90).jpeg == plain.jpeg
    assert tracemalloc.get_traced_memory()[1] < 2 * len(data) + 1_000_000, "and none of it was unpacked"
    tracemalloc.stop()


def test_text_after_the_pixels_and_in_pieces_is_passed_over_too() -> None:
    png = encoded(GRADIENT, "PNG")
    text = (9).to_bytes(4, "big") + b"zTXt" + b"a\0\0broken" + b"crc?"
    assert convert_image(png[:-12] + text + png[-12:], 64, 90).jpeg == convert_image(png, 64, 90).jpeg


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_formats_are_known_by_their_first_bytes(kind: str) -> None:
    assert [kind_of(head) for head in BEGINNINGS[kind]] == [kind] * len(BEGINNINGS[kind])
    assert [kind_of(head) for head in NONE_OF_THEM] == [None] * len(NONE_OF_THEM)


@pytest.mark.parametrize("kind", ["WebP", "HEIC", "JPEG XL"])
def test_a_picture_without_a_decoder_is_named_with_the_mend(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda _: False)
    monkeypatch.setattr("PIL.WebPImagePlugin.SUPPORTED", False)
    mend = "apt-get install libwebp-dev, then pip install --force-reinstall" if kind == "WebP" else "convert it to PNG"
    with pytest.raises(MissingDecoderError, match=f"^{kind}: this Pillow .*{mend}"):
        convert_image(BEGINNINGS[kind][0], 32, 90)


@pytest.mark.parametrize("kind", CODECS)
def test_what_pillow_has_is_not_lacking(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda _: True)
    assert lacking(kind) is None
    monkeypatch.setattr(features, "check", lambda _: False)
    assert str(lacking(kind)).startswith(f"{kind}: this Pillow ")


def test_lab_colours_are_converted_or_refused_without_a_path() -> None:
    data = encoded(Image.new("LAB", (40, 40), (120, 3, 4)), "TIFF")
    if features.check("littlecms2"):
        assert convert_image(data, 32, 90).pixels[..., 1].any()
        return
    with pytest.raises(MissingDecoderError, match="apt-get install liblcms2-dev") as error:
        convert_image(data, 32, 90)
    assert "/" not in str(error.value), "no path of this machine"


def test_a_drawing_program_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    with pytest.raises(UndecodableError, match=r"EPS: .* convert it to PNG or JPEG first"):
        convert_image(encoded(GRADIENT.convert("RGB"), "EPS"), 32, 90)


def test_libraries_warn_nobody(recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]) -> None:
    exif = Image.Exif()
    exif[0x010F] = "x" * 50
    jpeg = encoded(GRADIENT, "JPEG", exif=exif)
    at = jpeg.index(b"Exif\0\0") + 14
    orientation(jpeg[:at] + b"\xff" * 8 + jpeg[at + 8 :])
    options = {"compression": "tiff_lzw"} if features.check("libtiff") else {}
    tiff = encoded(GRADIENT, "TIFF", **options)
    for data in (tiff[: len(tiff) // 2], tiff[:-30], tiff[:200] + bytes(300) + tiff[500:]):
        with contextlib.suppress(UndecodableError):
            convert_image(data, 32, 90)
    assert not recwarn.list
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_is_read_from_any_format_that_has_it(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    for file_format in ("JPEG", "PNG", "TIFF"):
        assert orientation(encoded(GRADIENT, file_format, exif=exif)) == turn
        assert orientation(encoded(GRADIENT, file_format)) == 1


def test_a_missing_host_decoder_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.tools.convert.run.available", lambda: "the host decoder was not built; do this")
    assert "JPEGs that were cut short and closed again are not noticed, as the host decoder was not built" in str(
        slowness()
    )


def folder(root: Path, classes: dict[str, list[bytes]]) -> Path:
    for name, files in classes.items():
        (root / name).mkdir(parents=True)
        for i, data in enumerate(files):
            (root / name / f"{i:03}.jpg").write_bytes(data)
    return root


def test_a_folder_of_pictures_without_a_decoder_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    root = folder(tmp_path / "source", {"cats": [HEIC] * 3, "dogs": [HEIC] * 2})
    with pytest.raises(InputError, match=r"source: none of its pictures can be decoded; HEIC: .* convert it to PNG"):
        open_source(root)


def test_a_mixed_folder_is_not(tmp_path: Path, picture: Callable[..., bytes]) -> None:
    root = folder(tmp_path / "source", {"cats": [HEIC] * 40, "dogs": [picture(i) for i in range(23)]})
    assert len(open_source(root).members["train"]) == 63
    with opened(picture(0)) as image:
        assert image.format == "JPEG"
