"""The small files beside images, made to do harm: MATLAB's table, gzip bombs, tables without an end."""

import gzip
import io
import os
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from alexnet.shards.errors import InputError
from alexnet.tools.convert.sources import open_source
from alexnet.tools.convert.sources.mat_file import read_records
from alexnet.tools.convert.sources.tables import read_devkit, table_text
from alexnet.tools.synth.archives import tar_of
from tests.conftest import encode_picture
from tests.sources import write_cifar10, write_files, write_mnist
from tests.unit.tools.source_layouts import at_most, refused


def mat(count: int = 5, *, compressed: bool = False) -> bytes:
    """Write a table of synsets as SciPy does."""
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children")
    synsets = np.zeros(count, [(field, object) for field in fields])
    for i in range(count):
        synsets[i] = (i + 1, f"n{i:08}", f"wörter, {i}", "", i % 2, np.arange(3))
    buffer = io.BytesIO()
    savemat(buffer, {"first": np.arange(4), "synsets": synsets}, do_compression=compressed)
    return buffer.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_s_table_is_read_as_scipy_reads_it(compressed: bool) -> None:
    data = mat(40, compressed=compressed)
    reference = loadmat(io.BytesIO(data), squeeze_me=True, struct_as_record=False)["synsets"]
    found = read_records(data, "synsets")
    for record, synset in zip(found, reference, strict=True):
        for field in ("ILSVRC2012_ID", "num_children"):
            assert record[field] == getattr(synset, field)
        for field in ("WNID", "words"):
            assert record[field] == str(getattr(synset, field))


def read_or_say(data: bytes) -> bool:
    try:
        return isinstance(read_records(data, "synsets"), list)
    except ValueError as error:
        return "\n" in str(error) and pytest.fail(str(error))


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


FLAGS = element(6, struct.pack("<II", 2, 0))


def table(count: int, fields: int, width: int = 8, content: bytes = b"") -> bytes:
    """Return a MATLAB file whose table claims so many records and fields."""
    names = b"".join(f"f{i}".encode().ljust(width, b"\0") for i in range(fields))
    parts = FLAGS + element(5, struct.pack("<ii", count, 1)) + element(1, b"synsets")
    parts += element(5, struct.pack("<i", width)) + element(1, names) + content
    return mat()[:128] + element(14, parts)


BOMBS = {
    "no end of zeros": mat()[:128] + element(15, zlib.compress(bytes(1 << 26))),
    "a billion records": table(1 << 30, 4),
    "records of no fields": table(1 << 30, 0),
    "fields of no width": table(4, 3, width=0),
    "fields of negative width": table(4, 3, width=-1),
    "a negative number of records": table(-1, 3),
    "an element of 4 GB": mat()[:128] + struct.pack("<II", 14, 0xFFFFFFF8) + bytes(64),
    "nothing": b"",
    "a header": mat()[:128],
    "the other end first": mat().replace(b"\0\1IM", b"\1\0MI", 1),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_table_that_lies_is_refused(kind: str) -> None:
    with at_most(80_000_000):
        assert kind == "records of no fields" or not read_or_say(BOMBS[kind])


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=600))
@example(data=element(14, FLAGS * 3))
def test_any_bytes_are_a_table_or_one_line(data: bytes) -> None:
    read_or_say(data)
    read_or_say(mat()[:128] + data)


def flips(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Flip bits of a file."""
    randomness = random.Random(seed)
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(randomness.choice((1, 2, 8))):
            changed[randomness.randrange(len(data))] ^= 1 << randomness.randrange(8)
        yield bytes(changed)


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_bits_that_flip_in_a_table_give_a_table_or_one_line(count: int) -> None:
    for compressed in (False, True):
        for data in flips(mat(compressed=compressed), count, count):
            read_or_say(data)


@pytest.mark.parametrize("count", [50, pytest.param(2_000, marks=pytest.mark.slow)])
def test_bits_that_flip_in_small_files(count: int, official: Path, tmp_path: Path) -> None:
    kit = tmp_path / "ILSVRC2012_devkit_t12.tar.gz"
    packed = (official / kit.name).read_bytes()
    kits = (*flips(packed, count // 2, 1), *map(gzip.compress, flips(gzip.decompress(packed), count // 2, 2)))
    write_cifar10(tmp_path, 2, archive=False)
    batch = next(tmp_path.rglob("data_batch_1"))
    batches = flips(batch.read_bytes(), count, 3)
    for path, data in (*((kit, data) for data in kits), *((batch, data) for data in batches)):
        path.write_bytes(data)
        try:
            read_devkit(kit) if path == kit else open_source(batch.parent)
        except InputError as error:
            if str(kit if path == kit else batch.parent) not in str(error) or "\n" in str(error):
                pytest.fail(str(error))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"data/meta.mat": bytes(1 << 25)}, "far beyond where it should"),
        ({"x": bytes(1 << 25), **{f"y{i}": b"" for i in range(3)}}, "holds no meta.mat"),
    ],
)
def test_an_archive_with_files_too_large_is_refused(files: dict[str, bytes], said: str, tmp_path: Path) -> None:
    kit = tmp_path / "kit.tar.gz"
    kit.write_bytes(tar_of(files, "w:gz"))
    with at_most(30_000_000), pytest.raises(InputError, match=said):
        read_devkit(kit)


def test_a_gzip_bomb_is_not_unpacked_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.tools.convert.sources.tar_headers._MOST_UNPACKED", 1 << 20)
    kit = tmp_path / "kit.tar.gz"
    kit.write_bytes(tar_of({"x": bytes(1 << 24)}, "w:gz"))
    with pytest.raises(InputError, match="far beyond where it should"):
        read_devkit(kit)


def test_an_idx_bomb_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path, 3, 2)
    images, labels = (next(tmp_path.rglob(f"train-{kind}*")) for kind in ("images", "labels"))
    head = gzip.decompress(images.read_bytes())[:4]
    for count, said in ((0xFFFFFFFF, "claims 4,294,967,295 images"), (1_000_000, "does not begin as an IDX file")):
        images.write_bytes(gzip.compress(head + struct.pack(">III", count, 28, 28)))
        with at_most(10_000_000), pytest.raises(InputError, match=said):
            open_source(tmp_path)
    images.write_bytes(gzip.compress(head + struct.pack(">III", 3, 28, 28) + bytes(3 * 784)))
    labels.write_bytes(gzip.compress(struct.pack(">II", 0x801, 3) + bytes(1 << 26)))
    with at_most(10_000_000), pytest.raises(InputError, match="does not hold 3 labels"):
        open_source(tmp_path)


def test_a_table_without_an_end_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.touch()
    os.truncate(file, 20 << 30)
    with at_most(1_000_000), pytest.raises(InputError, match=r"words.txt: has 21,474,836,480 bytes"):
        table_text(file)
    write_files(tmp_path / "n00000001", {"1.jpg": encode_picture(1)})
    write_files(tmp_path / "n00000002", {"1.jpg": encode_picture(1)})
    refused(tmp_path, "no table of labels or words")
