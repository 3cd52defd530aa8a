"""Images made to do harm: pixels or words, no program started, at most half a gigabyte; and files without a decoder."""

import contextlib
import io
import os
import random
import re
import resource
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from alexnet.shards.errors import InputError
from alexnet.tools.convert import opening
from alexnet.tools.convert.image import convert_image
from alexnet.tools.convert.opening import (
    CODECS,
    FORMATS,
    MAX_BYTES,
    MissingDecoderError,
    UndecodableError,
    kind_of,
    lacking,
    orientation,
)
from alexnet.tools.convert.sources import open_source
from tests.conftest import encode_picture, prep
from tests.sources import write_files
from tests.unit.tools.images import BOMBS, gif, gradient, measured, png, psd, saved, tiff, tiff_of, with_scans

EPS = saved(gradient("RGB", 64), "EPS")
IPTC = b"\x1c\x03\x0a\0\2\0\1" + b"\x1c\x03\x14\0\1\x40" + b"\x1c\x03\x1e\0\1\x40" + b"\x1c\x08\x0a\x7f\xff" + EPS
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
PNG = saved(gradient("L", 256), "PNG")
REFUSED = "png 1 x 2^27"


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a Ghostscript in the way that leaves a file where it was started; return that file."""
    started, program = tmp_path / "started", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    return started


def test_an_image_starts_no_program_and_is_a_reject_and_a_folder_of_such_is_refused(
    ghostscript: Path, tmp_path: Path
) -> None:
    for data in (EPS, b"\xc5\xd0\xd3\xc6" + bytes(26) + EPS, IPTC):
        with pytest.raises(UndecodableError, match=r"not an image of any|EPS: is never read here; convert it to PNG"):
            convert_image(data, 32, 90)
    root = tmp_path / "source"
    write_files(root / "a", {"0.JPEG": EPS, "1.JPEG": encode_picture(1)})
    write_files(root / "b", {"0.JPEG": encode_picture(2)})
    assert "train: 3 in = 2 written + 1 rejected" in prep("shard", root, "--size", 28, "--workers", 1).output
    assert "EPS: is never read here" in (tmp_path / "source-28" / "rejected.jsonl").read_text()
    for file in root.glob("*/*"):
        file.write_bytes(EPS)
    with pytest.raises(InputError, match="none of its pictures can be decoded; EPS: is never read here"):
        open_source(root)
    assert not ghostscript.exists()
    with contextlib.suppress(OSError), Image.open(io.BytesIO(EPS)) as image:
        image.load()
    assert ghostscript.exists(), "the trap springs"


KNOWN: dict[str | None, list[bytes]] = {
    "WebP": [b"RIFF\x24\0\0\0WEBPVP8 " + bytes(28), b"RIFF\0\0\0\0WEBPVP8X"],
    "JPEG 2000": [b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), b"\xff\x4f\xff\x51" + bytes(40)],
    "AVIF": [b"\0\0\0\x20ftypavif\0\0\0\0", b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif"],
    "HEIC": [HEIC, b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", b"\0\0\0\x14ftypmsf1\0\0\0\0hevc"],
    "JPEG XL": [b"\xff\x0a" + bytes(40), b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40)],
    "FITS": [b"SIMPLE  =                    T"],
    "ICNS": [b"icns" + bytes(20)],
    "WMF": [b"\xd7\xcd\xc6\x9a\0\0" + bytes(20)],
    "HDF5": [b"\x89HDF\r\n\x1a\n" + bytes(20)],
    "GRIB": [b"GRIB\0\0\0\1" + bytes(20)],
    None: [
        b"",
        b"II*\0",
        b"\xff\xd8\xff\xe0",
        bytes(64),
        b"RIFF\0\0\0\0WAVE",
        b"\0\0\0\x18ftypisom\0\0\0\0isommp42",
    ],
}


@pytest.mark.parametrize("kind", KNOWN)
def test_formats_are_known_by_their_first_bytes_and_what_is_not_decoded_is_named_with_the_mend(
    kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {kind_of(head) for head in KNOWN[kind]} == {kind}
    monkeypatch.setattr(features, "check", lambda _: False)
    monkeypatch.setattr("PIL.WebPImagePlugin.SUPPORTED", False)
    if kind not in (None, "JPEG 2000", "AVIF"):
        mend = "apt-get install libwebp-dev, then pip install" if kind == "WebP" else "convert it to PNG"
        with pytest.raises(MissingDecoderError, match=f"^{kind}: (this Pillow|is never read here; ).*{mend}"):
            convert_image(KNOWN[kind][0] + bytes(3000), 32, 90)


@pytest.mark.parametrize("kind", CODECS)
def test_what_pillow_has_is_not_lacking(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for has in (True, False):
        monkeypatch.setattr(features, "check", lambda _, has=has: has)
        assert has == (lacking(kind) is None)
    assert {"JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM"} <= set(FORMATS) <= set(Image.OPEN)


def test_lab_colours_are_converted_or_refused_without_a_path() -> None:
    data = saved(Image.new("LAB", (40, 40), (120, 3, 4)), "TIFF")
    if features.check("littlecms2"):
        assert convert_image(data, 32, 90).pixels[..., 1].any()
        return
    with pytest.raises(MissingDecoderError, match="apt-get install liblcms2-dev") as error:
        convert_image(data, 32, 90)
    assert "/" not in str(error.value), "no path of this machine"


def test_a_folder_of_images_without_a_decoder_is_refused_before_anything_is_done_and_a_mixed_one_is_not(
    tmp_path: Path,
) -> None:
    write_files(tmp_path / "source" / "cats", {f"{i:02}.jpg": HEIC for i in range(40)})
    write_files(tmp_path / "source" / "dogs", {"1.jpg": HEIC})
    with pytest.raises(InputError, match=r"source: none of its pictures can be decoded; HEIC: .* convert it to PNG"):
        open_source(tmp_path / "source")
    write_files(tmp_path / "source" / "dogs", {f"{i:02}.jpg": encode_picture(i) for i in range(22)})
    assert len(open_source(tmp_path / "source").members["train"]) == 63


@pytest.mark.parametrize(
    ("part", "megabytes", "zipped"), [("profile", 3, True), ("text", 3, True), ("text", 3, False), ("text", 72, True)]
)
def test_a_png_may_carry_what_it_likes_beside_its_pixels(part: str, megabytes: int, zipped: bool) -> None:
    info = PngImagePlugin.PngInfo()
    for i in range(megabytes if part == "text" else 0):
        info.add_text(f"part {i}", "x" * 1_000_000, zip=zipped)
    profile = bytes(megabytes * 1_000_000) if part == "profile" else None
    data = saved(gradient("L", 256), "PNG", pnginfo=info, icc_profile=profile)
    tracemalloc.start()
    assert convert_image(data, 64, 90).jpeg == convert_image(PNG, 64, 90).jpeg
    assert tracemalloc.get_traced_memory()[1] < 2 * len(data) + 1_000_000, "and none of it was unpacked"
    tracemalloc.stop()


def test_what_an_image_says_does_not_go_with_it_and_is_passed_over_where_it_is_damaged() -> None:
    text = (9).to_bytes(4) + b"zTXt" + b"a\0\0broken" + b"crc?"
    assert convert_image(PNG[:-12] + text + PNG[-12:], 64, 90).jpeg == convert_image(PNG, 64, 90).jpeg
    image = gradient("L", 64).convert("P")
    said = saved(image, "GIF", comment=b"x\x1b" * 40_000)
    assert convert_image(said, 32, 90).jpeg == convert_image(saved(image, "GIF"), 32, 90).jpeg


def test_libraries_warn_nobody(recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]) -> None:
    exif = Image.Exif()
    exif[0x010F] = "x" * 50
    jpeg = saved(gradient("L", 256), exif=exif)
    at = jpeg.index(b"Exif\0\0") + 14
    orientation(jpeg[:at] + b"\xff" * 8 + jpeg[at + 8 :])
    options = {"compression": "tiff_lzw"} if features.check("libtiff") else {}
    cut = saved(gradient("L", 256), "TIFF", **options)
    for data in (cut[: len(cut) // 2], cut[:-30], cut[:200] + bytes(300) + cut[500:]):
        with contextlib.suppress(UndecodableError):
            convert_image(data, 32, 90)
    assert not recwarn.list
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "name", [name if name == REFUSED else pytest.param(name, marks=pytest.mark.slow) for name in BOMBS]
)
def test_no_image_takes_more_than_half_a_gigabyte_and_a_refused_one_next_to_nothing(name: str) -> None:
    more, said = measured(name)
    assert more < (20_000_000 if name == REFUSED else 500_000_000), said
    assert name != REFUSED or said.startswith("refused: ")


TOLD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "empty file"),
    "a web page": (lambda: b"<html>not found</html>", "not an image of any known format"),
    "a cut JPEG": (lambda: encode_picture(1)[:700], "is truncated"),
    "a cut PNG": (lambda: encode_picture(1, file_format="PNG")[:-700], "OSError: image file is truncated"),
    "no more than a header": (lambda: png(1, 1 << 20, 0, 8)[:33], "not an image|SyntaxError|OSError"),
    "tags": (lambda: tiff(tiff_of(8, 8, t273=(4, 1 << 28, None)), bytes(64)), "tag 273 claims 268,435,456 values"),
    "a frame": (lambda: gif((65_000, 65_000, 65_535, 65_535)), "[0-9x]+ px is more than 134,217,728 pixels"),
    "scans": (lambda: with_scans(64, 3000), "has more than 500 scans"),
    "a cut DDS": (lambda: saved(gradient("RGBA", 24), "DDS")[:900], "DDS: is truncated"),
    "a large file": (lambda: bytes(MAX_BYTES + 1), "has more than 150,000,000 bytes"),
    "a slow one": (lambda: b"P5 4200 4200 254\n" + bytes(4200**2), "PPM: more than 16,777,216 pixels take minutes"),
}


@pytest.mark.parametrize("kind", TOLD)
def test_a_reason_is_the_same_every_time(kind: str) -> None:
    """It is a part of the data set."""
    make, said = TOLD[kind]
    data, reasons = make(), set()
    for _ in range(2):
        with pytest.raises(UndecodableError) as error:
            convert_image(data, 32, 90)
        reasons.add(str(error.value))
    assert len(reasons) == 1
    assert re.match(said, reasons.pop().removeprefix("TIFF: its "))


def test_memory_and_time_are_watched_and_the_bounds_are_lifted_after() -> None:
    """In a fresh process: this one may hold freed memory that needs not be asked for again."""
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        fresh.submit(_watch).result()


def _watch() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    for name, bound, data, said in (
        ("_ALL_BYTES", 60_000_000, png(9000, 9000, 0, 1), "60 MB of memory"),
        ("_SECONDS", 0.05, gif((0, 0, 8, 8), comments=20_000), r"0\.05 s"),
    ):
        with (
            mock.patch.object(opening, name, bound),
            pytest.raises(UndecodableError, match=f"takes more than {said} to"),
        ):
            convert_image(data, 32, 90)
        assert resource.getrlimit(resource.RLIMIT_AS) == before
        assert convert_image(png(500, 500, 2, 8), 32, 90).jpeg


KINDS: dict[str, Callable[[], bytes]] = {
    **{kind: partial(saved, gradient("RGB", 24), kind) for kind in ("BMP", "PPM", "SGI", "PCX", "TIFF", "ICO")},
    **{kind: partial(saved, gradient("RGBA", 24), kind) for kind in ("TGA", "DDS", "PNG", "QOI")},
    "GIF": lambda: saved(gradient("L", 24), "GIF", transparency=3),
    "JPEG": lambda: saved(gradient("RGB", 24)),
    "JPEG of CMYK": lambda: saved(gradient("CMYK", 24)),
    "JPEG, progressive": lambda: saved(gradient("RGB", 24), progressive=True),
    "PNG of 16 bits": lambda: saved(Image.fromarray(np.arange(576, dtype=np.uint16).reshape(24, 24) * 99), "PNG"),
    "PNG of a palette": lambda: saved(gradient("L", 24).convert("P"), "PNG", transparency=bytes(range(256))),
    "TIFF of floats": lambda: saved(gradient("L", 24).convert("F"), "TIFF"),
    "TIFF of CMYK": lambda: saved(gradient("CMYK", 24), "TIFF"),
    "XBM": lambda: saved(gradient("L", 24).convert("1"), "XBM"),
    "XPM": lambda: b'/* XPM */\n"8 2 2 1 ",\n"a c #000000",\n"b c #ffffff",\n"abababab",\n"babababa",\n',
    "PSD": lambda: psd(1),
}


@pytest.mark.parametrize("count", [15, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_bits_that_flip_in_an_image_give_pixels_or_words(kind: str, count: int) -> None:
    """Mostly near the beginning, and now and then it is cut."""
    data, randomness = KINDS[kind](), random.Random(f"{kind} {count}")
    assert convert_image(data, 16, 90).jpeg
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(randomness.choice((1, 1, 2, 8))):
            end = randomness.choice((40, 200, len(data)))
            changed[randomness.randrange(min(end, len(data)))] ^= 1 << randomness.randrange(8)
        if randomness.random() < 0.1:
            del changed[randomness.randrange(len(data)) :]
        try:
            assert convert_image(bytes(changed), 16, 90).pixels.shape[:2] == (16, 16)
        except UndecodableError as error:
            if " at 0x" in (said := str(error)):
                pytest.fail(f"an address, which no two runs share: {said}")


def special_files(folder: Path) -> dict[str, Path]:
    """Make things that are no regular files, and links to them."""
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to(folder / "fifo")
    (folder / "device").symlink_to("/dev/zero")
    (folder / "folder").mkdir()
    return {name: folder / name for name in ("fifo", "link", "device", "folder")}


def test_a_source_with_special_files_does_not_wait_for_them(tmp_path: Path, official: Path) -> None:
    root = tmp_path / "source"
    for name in ("a", "b"):
        write_files(root / name, {"1.jpg": encode_picture(1)})
        special_files(root / name)
    for name in ("words.txt", "LOC_val_solution.csv", "extra.tar", "loose.jpg"):
        os.mkfifo(root / name)
    source = open_source(root)
    assert (len(source.members["train"]), source.ignored) == (2, 10)
    (tmp_path / "official").mkdir()
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"):
        (tmp_path / "official" / name).symlink_to(official / name)
    os.mkfifo(tmp_path / "official" / "ILSVRC2012_devkit_t12.tar.gz")
    with pytest.raises(InputError, match=r"devkit_t12.tar.gz: cannot be read \(is no regular file\)"):
        open_source(tmp_path / "official")


@pytest.mark.parametrize("special", ["fifo", "link", "device", "folder"])
def test_special_files_in_place_of_ours_are_refused(special: str, tmp_path: Path) -> None:
    file = special_files(tmp_path)[special]
    for name in ("a", "b"):
        write_files(tmp_path / "source" / name, {"1.jpg": encode_picture(1)})
    for where in ((file,), (tmp_path / "source", "--classes", file)):
        said = prep("shard", *where, "--out", tmp_path / "set", "--size", 28, code=2).stderr
        assert said.startswith("Error: ")
        assert str(file) in said
