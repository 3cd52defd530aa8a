"""Tars that were made to do harm: a listing, or one line that names the archive, in no time and memory."""

import io
import os
import random
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.shards.errors import InputError
from alexnet.tools.convert.sources import TRAIN_TAR
from alexnet.tools.convert.sources.layout import Walk
from alexnet.tools.convert.sources.tars import Tar, list_tar
from alexnet.tools.synth.archives import tar_of
from tests.conftest import encode_picture
from tests.unit.tools.source_layouts import at_most, refused

X, Y = encode_picture(0), encode_picture(1)
NAME = "n00000001.tar"
END = bytes(1024)


def header(name: bytes, size: int | bytes, kind: bytes = b"0", link: bytes = b"") -> bytes:
    """Return one header block with whatever size; bytes are taken for the field as they are."""
    field = size if isinstance(size, bytes) else f"{size:011o}\0".encode()
    block = name.ljust(100, b"\0") + b"0000644\0" * 3 + field + b"0" * 11 + b"\0" + b" " * 8 + kind
    block = (block + link.ljust(100, b"\0") + b"ustar\x0000").ljust(512, b"\0")
    return block[:148] + f"{sum(block):06o}\0 ".encode() + block[156:]


def with_data(head: bytes, data: bytes) -> bytes:
    return head + data + bytes(-len(data) % 512)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    return with_data(header(b"pax", len(records), kind), records)


def record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n".encode()
    length = len(rest) + 1
    while length != len(str(length)) + len(rest):
        length += 1
    return str(length).encode() + rest


def list_bytes(tar: bytes, path: Path) -> dict[str, tuple[int, int]]:
    """Return place and length of the files in a tar by their names."""
    path.write_bytes(tar)
    entries = list_tar(Tar.of(path), Walk())
    return {name.decode("utf-8", "surrogateescape"): (at, length) for name, at, length in entries}


FILE = with_data(header(b"a.jpg", len(X)), X)
BASE_256 = b"\x80" + bytes(3)
CRAFTED = {
    "a long name of 3 GiB": header(b"long", 3 << 30, b"L") + FILE + END,
    "a long link of 3 GiB": header(b"long", 3 << 30, b"K") + FILE + END,
    "a pax header of 3 GiB": header(b"pax", 3 << 30, b"x") + FILE + END,
    "a global header of 3 GiB": header(b"pax", 3 << 30, b"g") + FILE + END,
    "a Solaris header of 3 GiB": header(b"pax", 3 << 30, b"X") + FILE + END,
    "a header of negative size": header(b"pax", b"\xff" * 12, b"x") + FILE + END,
    "5,000 headers in a row": pax(record("path", "b.jpg")) * 5000 + FILE + END,
    "5,000 long names in a row": with_data(header(b"long", 2, b"L"), b"b\0") * 5000 + FILE + END,
    "5 global headers of a megabyte": pax(record("comment", "x" * 1_000_000), b"g") * 5 + FILE + END,
    "a size of 2^63": FILE + header(b"b.jpg", BASE_256 + (1 << 63).to_bytes(8)) + END,
    "a size of 2^64 - 512": FILE + header(b"b.jpg", BASE_256 + ((1 << 64) - 512).to_bytes(8)) + END,
    "a size of 2^87": FILE + header(b"b.jpg", b"\x80" + (1 << 87).to_bytes(11)) + END,
    "a negative size": FILE + header(b"b.jpg", b"\xff" * 10 + (-1024).to_bytes(2, signed=True)) + END,
    "a negative size in a pax header": FILE + pax(record("size", "-1024")) + FILE + END,
    "an endless size in a pax header": FILE + pax(record("size", str(1 << 80))) + FILE + END,
    "a file beyond the end": FILE + header(b"b.jpg", 1 << 40) + END,
    "a sparse file": FILE + header(b"b.jpg", 512, b"S") + bytes(512) + END,
    "a sparse file without its map": FILE + header(b"b.jpg", 0, b"S")[:482] + b"\1" + header(b"b.jpg", 0, b"S")[483:],
    "a pax sparse file": FILE + pax(record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0")) + FILE + END,
    "a pax sparse map": FILE + pax(record("GNU.sparse.map", "0," * 9)) + FILE + END,
    "a pax sparse size": FILE + pax(record("GNU.sparse.size", "x")) + FILE + END,
    "a pax header that is none": FILE + pax(b"\xff" * 600) + header(b"b", b"z" * 12) + END,
    "a pax record of no length": FILE + pax(b"0 path=x\n") + FILE + END,
    "a pax record of 9,999 digits": FILE + pax(b"9" * 9999 + b" path=x\n") + FILE + END,
    "a charset that there is not": FILE + pax(b"16 hdrcharset=\xff\n") + FILE + END,
    "a name of 100,000 bytes": with_data(header(b"long", 100_000, b"L"), b"b" * 100_000) + FILE + END,
    "folders 1,000 deep": with_data(header(b"long", 2001, b"L"), b"b/" * 1000 + b"c") + FILE + END,
    "a wrong checksum": FILE + FILE[:20] + b"!" + FILE[21:] + END,
}


@pytest.mark.parametrize("kind", CRAFTED)
def test_what_was_crafted_is_refused_in_one_line_and_no_memory(kind: str, tmp_path: Path) -> None:
    tar = tmp_path / NAME
    said = "is stored sparse; pack" if kind == "a sparse file" else str(tar)
    with at_most(2 * len(CRAFTED[kind]) + 15_000_000):
        with pytest.raises(InputError, match=said) as error:
            list_bytes(CRAFTED[kind], tar)
        if "3 GiB" in kind:
            os.truncate(tar, 4 << 30)  # as if it were all there: holes
        if "sparse" not in kind and "checksum" not in kind:
            refused(tmp_path, str(tmp_path))
    assert "\n" not in str(error.value)
    assert str(tar) in str(error.value)
    assert len(str(error.value)) < 500


def test_tars_in_tars_without_an_end_are_refused(tmp_path: Path) -> None:
    tar = tar_of({"a.jpg": X})
    for _ in range(400):
        tar = with_data(header(b"x.tar", len(tar)), tar) + END
    (tmp_path / "x.tar").write_bytes(tar)
    refused(tmp_path, r"holds tars in tars, more than .* deep; unpack it")


def test_what_packers_write_is_read_as_tarfile_reads_it(tmp_path: Path) -> None:
    """Long names and links, attributes, devices and folders, in every format that Python writes."""
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            for i in range(20):
                long = "" if form == tarfile.USTAR_FORMAT else "long " * 40
                member = tarfile.TarInfo(f"folder/{long}{i}.jpg")
                member.size, member.mtime = len(X), 1.5 if form == tarfile.PAX_FORMAT else 1
                member.pax_headers = {"SCHILY.xattr.user.x": "x" * 60_000} if form == tarfile.PAX_FORMAT else {}
                tar.addfile(member, io.BytesIO(X))
            for kind in (tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
                member = tarfile.TarInfo(f"odd{kind!r}")
                member.type = kind
                tar.addfile(member)
        data = buffer.getvalue()
        with tarfile.open(fileobj=io.BytesIO(data)) as reference:
            files = {m.name: (m.offset_data, m.size) for m in reference if m.isreg()}
        assert list_bytes(data, tmp_path / NAME) == files
        assert len(files) == 20


def check_any_bytes(data: bytes, path: Path) -> bool:
    """Say whether a tar was listed; it is refused in one line, or holds exactly what tarfile finds."""
    try:
        found = list_bytes(data, path)
    except InputError as error:
        said = str(error)
        return not (str(path) in said and "\n" not in said) and pytest.fail(said)
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as tar:
        first = {m.name for m in tar if m.isreg() and not m.name.rpartition("/")[2].startswith(".")}
    assert first <= {name.rstrip("/") for name in found} | set(found), "no file was passed over in silence"
    assert all(at >= 0 and at + size <= len(data) for at, size in found.values())
    return True


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=4000), start=st.integers(0, 600))
def test_any_bytes_are_a_listing_or_one_line(data: bytes, start: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / NAME
    check_any_bytes(data, path)
    check_any_bytes(FILE[:start] + data, path)


def flipped(data: bytes, randomness: random.Random) -> bytes:
    """Flip bits in headers, where they matter."""
    changed = bytearray(data)
    for _ in range(randomness.choice((1, 1, 2, 5))):
        changed[randomness.randrange(len(data))] ^= 1 << randomness.randrange(8)
    return bytes(changed)


def fuzz(count: int, seed: int, path: Path) -> int:
    """Flip bits of tars of every kind, the checksums made right again in half of them; return how many were listed."""
    randomness = random.Random(seed)
    small = with_data(header(b"a.jpg", 100), bytes(100))
    kinds = [
        small * 2 + END,
        pax(record("path", "b.jpg") + record("size", "100")) + small + END,
        with_data(header(b"long", 150, b"L"), b"n" * 149 + b"\0") + small + END,
        small + header(b"l.jpg", 0, b"1", b"a.jpg") + header(b"s.jpg", 0, b"2", b"l.jpg") + END,
        small + header(b"s.jpg", 512, b"S") + bytes(512) + small + END,
    ]
    listed = 0
    for _ in range(count):
        tar = flipped(randomness.choice(kinds), randomness)
        if randomness.random() < 0.5:
            blocks = [tar[at : at + 512] for at in range(0, len(tar), 512)]
            tar = b"".join(
                b[:148] + f"{sum(b[:148] + b' ' * 8 + b[156:]):06o}\0 ".encode() + b[156:] if b"ustar" in b else b
                for b in blocks
            )
        listed += check_any_bytes(tar, path)
    return listed


@pytest.mark.parametrize("count", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_bits_that_flip_are_a_listing_or_one_line(count: int, tmp_path: Path) -> None:
    assert count / 8 < fuzz(count, 0, tmp_path / NAME) < count * 0.9


def test_the_training_archive_is_as_careful_with_its_class_tars(tmp_path: Path) -> None:
    for kind in ("a pax header of 3 GiB", "a size of 2^63", "5,000 headers in a row", "a negative size"):
        (tmp_path / TRAIN_TAR).write_bytes(tar_of({NAME: CRAFTED[kind], "n00000002.tar": tar_of({"a.jpg": Y})}))
        refused(tmp_path, f"{TRAIN_TAR}: {NAME} ")
