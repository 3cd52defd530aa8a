"""Pictures that were made to do harm: pixels or words, no program started, no more than half a gigabyte taken."""

import contextlib
import io
import os
import random
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from alexnet.shards.errors import InputError
from alexnet.tools.convert.image import convert_image
from alexnet.tools.convert.opening import FORMATS, MAX_BYTES, UndecodableError, kind_of
from alexnet.tools.convert.sources import open_source
from alexnet.tools.prep import main
from tests.conftest import encode_picture
from tests.unit.tools.hostile_pictures import BOMBS, gif, gradient, measured, png, psd, saved, tiff, tiff_of, with_scans

MOST = 500_000_000
EPS = saved(gradient("RGB", 64), "EPS")
IPTC = b"\x1c\x03\x0a\0\2\0\1" + b"\x1c\x03\x14\0\1\x40" + b"\x1c\x03\x1e\0\1\x40" + b"\x1c\x08\x0a\x7f\xff" + EPS


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


def test_the_trap_springs(ghostscript: Path) -> None:
    with contextlib.suppress(OSError), Image.open(io.BytesIO(EPS)) as image:
        image.load()
    assert ghostscript.exists()


@pytest.mark.parametrize("data", [EPS, b"\xc5\xd0\xd3\xc6" + bytes(26) + EPS, IPTC], ids=["plain", "binary", "inside"])
def test_a_picture_starts_no_program(data: bytes, ghostscript: Path) -> None:
    with pytest.raises(UndecodableError, match=r"not an image of any|EPS: is never read here; convert it to PNG"):
        convert_image(data, 32, 90)
    assert not ghostscript.exists()


def test_an_eps_among_pictures_is_a_reject_and_a_folder_of_them_is_refused(ghostscript: Path, tmp_path: Path) -> None:
    root = tmp_path / "source"
    for name, files in (("a", [EPS, encode_picture(1)]), ("b", [encode_picture(2), encode_picture(3)])):
        (root / name).mkdir(parents=True)
        for i, data in enumerate(files):
            (root / name / f"{i}.JPEG").write_bytes(data)
    result = CliRunner().invoke(main, ["shard", str(root), "--size", "28", "--workers", "1"])
    assert "train: 4 in = 3 written + 1 rejected" in result.output
    assert "EPS: is never read here" in (tmp_path / "source-28" / "rejected.jsonl").read_text()
    for file in root.glob("*/*"):
        file.write_bytes(EPS)
    with pytest.raises(InputError, match="none of its pictures can be decoded; EPS: is never read here"):
        open_source(root)
    assert not ghostscript.exists()


NEVER = {
    "FITS": b"SIMPLE  =                    T",
    "ICNS": b"icns" + bytes(20),
    "WMF": b"\xd7\xcd\xc6\x9a\0\0" + bytes(20),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(20),
    "GRIB": b"GRIB\0\0\0\1" + bytes(20),
}


@pytest.mark.parametrize("kind", NEVER)
def test_what_is_never_read_is_named_with_the_mend(kind: str) -> None:
    assert kind_of(NEVER[kind]) == kind
    with pytest.raises(UndecodableError, match=f"^{kind}: is never read here; convert it to PNG or JPEG first$"):
        convert_image(NEVER[kind] + bytes(3000), 32, 90)


def test_every_format_that_is_read_is_one_that_this_pillow_knows() -> None:
    assert {"JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM"} <= set(FORMATS) <= set(Image.OPEN)


def test_a_bomb_takes_next_to_nothing() -> None:
    more, said = measured("png 1 x 2^27")
    assert said.startswith("refused: ")
    assert more < 20_000_000


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_no_picture_takes_more_than_half_a_gigabyte(name: str) -> None:
    more, said = measured(name)
    assert more < MOST, said


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (png(1, 1 << 20, 0, 8)[:33] + b"", "not an image|SyntaxError|OSError"),
        (tiff(tiff_of(8, 8, t273=(4, 1 << 28, None)), bytes(64)), "tag 273 claims 268,435,456 values"),
        (gif((65_000, 65_000, 65_535, 65_535)), "is more than 134,217,728 pixels"),
        (with_scans(64, 3000), "has more than 500 scans"),
        (saved(gradient("RGBA", 24), "DDS")[:900], "DDS: is truncated"),
        (bytes(MAX_BYTES + 1), "has more than 150,000,000 bytes"),
        (saved(gradient("L", 4200), "PPM").replace(b"\n255\n", b"\n254\n", 1), "take minutes to decode"),
    ],
    ids=["cut", "tags", "frame", "scans", "dds", "large", "slow"],
)
def test_what_would_take_too_much_is_told(data: bytes, said: str) -> None:
    with pytest.raises(UndecodableError, match=said):
        convert_image(data, 32, 90)


def test_memory_is_watched_and_the_bound_is_lifted_after(monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    monkeypatch.setattr("alexnet.tools.convert.opening._ALL_BYTES", 60_000_000)
    with pytest.raises(UndecodableError, match=r"^takes more than 60 MB of memory to decode$"):
        convert_image(png(9000, 9000, 0, 1), 32, 90)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert convert_image(png(500, 500, 2, 8), 32, 90).jpeg


def test_time_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.tools.convert.opening._SECONDS", 0.05)
    with pytest.raises(UndecodableError, match=r"^takes more than 0.05 s to decode$"):
        convert_image(gif((0, 0, 8, 8), comments=20_000), 32, 90)


def test_what_a_gif_says_does_not_go_with_it() -> None:
    picture = gradient("L", 64).convert("P")
    said = saved(picture, "GIF", comment=b"x\x1b" * 40_000)
    assert convert_image(said, 32, 90).jpeg == convert_image(saved(picture, "GIF"), 32, 90).jpeg


KINDS: dict[str, Callable[[], bytes]] = {
    **{kind: partial(saved, gradient("RGB", 24), kind) for kind in ("BMP", "PPM", "SGI", "PCX", "TIFF", "ICO")},
    **{kind: partial(saved, gradient("RGBA", 24), kind) for kind in ("TGA", "DDS", "PNG", "QOI")},
    "GIF": lambda: saved(gradient("L", 24), "GIF", transparency=3),
    "JPEG": lambda: saved(gradient("RGB", 24), "JPEG"),
    "JPEG of CMYK": lambda: saved(gradient("CMYK", 24), "JPEG"),
    "JPEG, progressive": lambda: saved(gradient("RGB", 24), "JPEG", progressive=True),
    "PNG of 16 bits": lambda: saved(Image.fromarray(np.arange(576, dtype=np.uint16).reshape(24, 24) * 99), "PNG"),
    "PNG of a palette": lambda: saved(gradient("L", 24).convert("P"), "PNG", transparency=bytes(range(256))),
    "TIFF of floats": lambda: saved(gradient("L", 24).convert("F"), "TIFF"),
    "TIFF of CMYK": lambda: saved(gradient("CMYK", 24), "TIFF"),
    "XBM": lambda: saved(gradient("L", 24).convert("1"), "XBM"),
    "XPM": lambda: b'/* XPM */\n"8 2 2 1 ",\n"a c #000000",\n"b c #ffffff",\n"abababab",\n"babababa",\n',
    "PSD": lambda: psd(1),
}


def fuzz(kind: str, count: int, seed: int) -> int:
    """Flip bits, mostly near the beginning, and cut; return how many were converted all the same."""
    data, randomness, converted = KINDS[kind](), random.Random(f"{kind} {seed}"), 0
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(randomness.choice((1, 1, 2, 8))):
            end = randomness.choice((40, 200, len(data)))
            changed[randomness.randrange(min(end, len(data)))] ^= 1 << randomness.randrange(8)
        if randomness.random() < 0.1:
            del changed[randomness.randrange(len(data)) :]
        try:
            converted += convert_image(bytes(changed), 16, 90).pixels.shape[:2] == (16, 16)
        except UndecodableError as error:
            said = str(error)
            if " at 0x" in said:
                pytest.fail(f"an address, which no two runs share: {said}")
    return converted


@pytest.mark.parametrize("kind", KINDS)
def test_bits_that_flip_in_a_picture_give_pixels_or_words(kind: str) -> None:
    assert convert_image(KINDS[kind](), 16, 90).jpeg
    fuzz(kind, 15, 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_bits_that_flip_in_a_picture_give_pixels_or_words(kind: str) -> None:
    fuzz(kind, 400, 2)


def special_files(folder: Path) -> dict[str, Path]:
    """Make things that are no regular files, and links to them."""
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to(folder / "fifo")
    (folder / "device").symlink_to("/dev/zero")
    (folder / "folder").mkdir()
    return {name: folder / name for name in ("fifo", "link", "device", "folder")}


def test_a_source_with_special_files_does_not_wait_for_them(tmp_path: Path) -> None:
    root = tmp_path / "source"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        (root / name / "1.jpg").write_bytes(encode_picture(1))
        special_files(root / name)
    for name in ("words.txt", "LOC_val_solution.csv", "extra.tar", "loose.jpg"):
        os.mkfifo(root / name)
    source = open_source(root)
    assert len(source.members["train"]) == 2
    assert source.ignored == 10


@pytest.mark.parametrize("special", ["fifo", "link", "device", "folder"])
def test_special_files_in_place_of_ours_are_refused(special: str, tmp_path: Path) -> None:
    file = special_files(tmp_path)[special]
    arguments: dict[str, list[Any]] = {"source": [file], "classes": [tmp_path / "source", "--classes", file]}
    for name in ("a", "b"):
        (tmp_path / "source" / name).mkdir(parents=True)
        (tmp_path / "source" / name / "1.jpg").write_bytes(encode_picture(1))
    for where in arguments.values():
        result = CliRunner().invoke(main, ["shard", *map(str, where), "--out", str(tmp_path / "set"), "--size", "28"])
        assert result.exit_code == 2, result.output
        assert result.output.splitlines()[-1].startswith("Error: ")
        assert str(file) in result.output


def test_a_devkit_that_is_a_fifo_is_refused(tmp_path: Path, official: Path) -> None:
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"):
        (tmp_path / name).symlink_to(official / name)
    os.mkfifo(tmp_path / "ILSVRC2012_devkit_t12.tar.gz")
    with pytest.raises(InputError, match=r"devkit_t12.tar.gz: cannot be read \(is no regular file\)"):
        open_source(tmp_path)
