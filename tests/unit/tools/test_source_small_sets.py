"""CIFAR-10 and MNIST: recognised, kept at their own size, unpacked once, and never trusted with a pickle's powers."""

import gzip
import hashlib
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import SPLITS
from alexnet.tools.convert.image import decode_raw
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.source_files import SourceFiles
from alexnet.tools.convert.sources import find_layout, materialise, open_source
from alexnet.tools.convert.sources.cifar import load_plain
from tests.sources import write_cifar10, write_mnist
from tests.unit.tools.source_layouts import at_most, refused, write


def images_of(source: Source) -> list[tuple[int, np.ndarray]]:
    with SourceFiles(source.root, opener=source.opener) as files:
        return [
            (m.label, np.asarray(decode_raw(files.read(m), source.encoding)))
            for split in SPLITS
            for m in source.members[split]
        ]


@pytest.mark.parametrize("form", ["archive", "archive gunzipped", "extracted", "extracted folder itself"])
def test_cifar_10_gives_its_own_pixels_and_labels(tmp_path: Path, form: str) -> None:
    pixels = write_cifar10(tmp_path / "root", 12, archive=form.startswith("archive"))
    if "gunzipped" in form:
        packed = tmp_path / "root" / "cifar-10-python.tar.gz"
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    source = open_source(tmp_path / "root" / ("cifar-10-batches-py" if "itself" in form else ""))
    assert source.description == "CIFAR-10, 10 classes, 60 train and 12 val images of 32x32 px; its test set is val"
    assert (source.encoding, source.channels, source.size_px) == ("cifar10", 3, 32)
    assert [c.wnid for c in source.classes][::9] == ["airplane", "truck"]
    assert "60 train images where CIFAR-10 has 50,000" in source.notes
    readable = materialise(source, tmp_path / "scratch")
    found = images_of(readable)
    expected = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    assert [label for label, _ in found] == [i % 10 for i in range(12)] * 6
    assert np.array_equal(np.stack([image for _, image in found]), expected)
    assert readable.digest() == source.digest()
    assert source.members["train"][13].name == "automobile_s_000001.png"


def test_the_published_class_list_is_read() -> None:
    """`batches.meta` as it is in the published archive, md5 5ff9c542aee3614f3951f8cda6e48888, byte by byte."""
    names = (b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck")
    listed = b"".join(b"U" + bytes([len(name)]) + name + b"q" + bytes([5 + i]) for i, name in enumerate(names))
    cases, vis = b"U\x13num_cases_per_batchq\x02M\x10'", b"U\x07num_visq\x0fM\x00\x0c"
    data = b"\x80\x02}q\x01(" + cases + b"U\x0blabel_namesq\x03]q\x04(" + listed + b"e" + vis + b"u."
    assert hashlib.md5(data).hexdigest() == "5ff9c542aee3614f3951f8cda6e48888"
    assert load_plain(data) == {"num_cases_per_batch": 10_000, "label_names": list(names), "num_vis": 3072}


class Hostile:
    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, ...]:
        return (self.call[0], self.call[1:])


ASKING: dict[str, object] = {
    "system": Hostile(os.system, "touch owned"),
    "eval": Hostile(eval, "1"),
    "getattr": Hostile(getattr, Hostile, "call"),
    "fromfile": [Hostile(np.fromfile, "/etc/passwd")],
    "objects": np.array([{}, []], object),
    "floats": np.zeros((2, 2), np.float64),
    "fortran": np.asfortranarray(np.zeros((2, 3), np.uint8)),
}
TEXT = b"X" + struct.pack("<I", 1_000_000) + b"x" * 1_000_000
AGAIN = b"(c_codecs\nencode\nq\2" + TEXT + b"q\3X\6\0\0\0latin1q\4\x86R" + b"h\2h\3h\4\x86R" * 500 + b"t."
PICKLES = {
    **{f"{name} {k}": pickle.dumps({b"data": value}, k) for name, value in ASKING.items() for k in range(5)},
    "attributes of encode": b"c_codecs\nencode\n(NN}X\x05\x00\x00\x00x_newK\x01s\x86b.",
    "attributes of dtype": b"cnumpy\ndtype\n}X\x01\x00\x00\x00xK\x01sb.",
    "another encoding": b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.",
    "a function": b"cnumpy\nfromfile\n.",
    "a function of another module": b"cos\nsystem\n.",
    "a function by its names": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",
    "an extension": b"\x82\x01.",
    "a persistent id": b"Pid\n.",
    "nothing": b"",
    "no end": b"\x80\x02}",
    "dictionaries": b"\x80\x02(" + b"}" * 200_000 + b"t.",
    "a place far off": b"\x80\x02Nr\xff\xff\xff\x1f.",
    "a place in words": b"Np4294967295\n.",
    "one text again and again": b"\x80\x02" + AGAIN,
    "bytes of a terabyte": b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b".",
    "a frame of a terabyte": b"\x80\x04\x95" + (1 << 40).to_bytes(8, "little") + b"N.",
    "a number of 5,000 digits": b"I" + b"9" * 5000 + b"\n.",
    "lists in lists": b"\x80\x02" + b"]" * 60_000 + b"a" * 59_999 + b".",
}


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_can_ask_for_bytes_only_and_not_much_memory(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("alexnet.tools.convert.sources.cifar._MOST_STEPS", 100_000)
    with at_most(20_000_000), pytest.raises(pickle.UnpicklingError):
        load_plain(PICKLES[kind])
    assert list(tmp_path.iterdir()) == []


def test_a_whole_batch_of_a_newer_python_is_within_the_bounds() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10_000, 30), dtype=np.uint8)
    names = [f"some_name_{i:06}.png".encode() for i in range(10_000)]
    batch = {b"data": pixels, b"labels": [i % 10 for i in range(10_000)], b"filenames": names}
    found = load_plain(pickle.dumps(batch, protocol=2))
    assert found["filenames"] == names
    assert np.array_equal(found["data"], pixels)  # type: ignore[arg-type]


def test_an_archive_that_is_hostile_or_cut_short_is_refused_in_one_line(tmp_path: Path) -> None:
    bad = pickle.dumps({b"data": Hostile(os.system, "true")}, protocol=2)
    path = write(tmp_path, {"cifar-10-python.tar": {"cifar-10-batches-py/data_batch_1": bad}}) / "cifar-10-python.tar"
    refused(tmp_path, r"data_batch_1 is no batch of CIFAR-10 \(asks for .*system\)")
    path.unlink()
    write_cifar10(tmp_path, 3)
    whole = path.with_name(f"{path.name}.gz").read_bytes()
    path.with_name(f"{path.name}.gz").write_bytes(whole[:20_000])
    refused(tmp_path, r"cifar-10-python\.tar\.gz")


PIXELS = np.zeros((2, 3072), np.uint8)
BATCH = {b"data": PIXELS, b"labels": [0, 1], b"filenames": [b"a", b"b"]}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("data_batch_3", None, "lacks data_batch_3"),
        ("batches.meta", {b"label_names": []}, "batches.meta has no label_names"),
        ("test_batch", {b"data": PIXELS}, "test_batch lacks data, labels or filenames"),
        ("test_batch", [1], "test_batch lacks data, labels or filenames"),
        ("test_batch", BATCH | {b"labels": [0]}, "test_batch has images, labels and names that do not fit"),
        ("test_batch", BATCH | {b"labels": [0, -1]}, "images, labels and names that do not fit"),
        ("test_batch", BATCH | {b"data": np.zeros((2, 3000), np.uint8)}, "images, labels and names that do not fit"),
        ("test_batch", BATCH | {b"labels": [0, 10]}, "has the label 10 of 10 classes"),
    ],
)
def test_batches_that_do_not_fit_are_refused(tmp_path: Path, name: str, value: object, said: str) -> None:
    write_cifar10(tmp_path, 2, archive=False)
    path = tmp_path / "cifar-10-batches-py" / name
    path.unlink() if value is None else path.write_bytes(pickle.dumps(value, protocol=2))
    refused(tmp_path, said)


@pytest.mark.parametrize("gzipped", [True, False])
@pytest.mark.parametrize("folder", ["", "MNIST/raw"])
def test_mnist_gives_its_own_pixels_and_labels(tmp_path: Path, gzipped: bool, folder: str) -> None:
    pixels = write_mnist(tmp_path / "root" / folder, 23, 11, gzipped=gzipped)
    source = open_source(tmp_path / "root")
    assert (source.encoding, source.channels, source.size_px) == ("mnist", 1, 28)
    assert find_layout(tmp_path / "root").size_px == 28
    assert source.label_order == "the digit"
    readable = materialise(source, tmp_path / "scratch")
    assert (readable is source) == (not gzipped)
    found = images_of(readable)
    assert [label for label, _ in found] == [i % 10 for i in range(23)] + [i % 10 for i in range(11)]
    assert np.array_equal(np.stack([image for _, image in found]), pixels)


@pytest.mark.parametrize("form", ["dots in names", "gzipped, called plain", "plain, called gzipped"])
def test_mnist_is_recognised_whatever_its_names_say(tmp_path: Path, form: str) -> None:
    pixels = write_mnist(tmp_path / "root", 4, 2, gzipped=form.startswith("gzipped"))
    for path in list((tmp_path / "root").iterdir()):
        plain = path.with_suffix("") if form.startswith("gzipped") else path.with_name(f"{path.name}.gz")
        path.rename(path.with_name(path.name.replace("-idx", ".idx")) if "dots" in form else plain)
    readable = materialise(open_source(tmp_path / "root"), tmp_path / "scratch")
    assert np.array_equal(np.stack([image for _, image in images_of(readable)]), pixels)


IDX_LABELS = struct.pack(">2I", 0x801, 5) + bytes(range(5))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("labels-idx1", IDX_LABELS[:-1], "train-labels-idx1-ubyte: does not hold 5 labels from 0 to 9"),
        ("labels-idx1", IDX_LABELS[:-1] + b"\x0a", "does not hold 5 labels from 0 to 9"),
        ("labels-idx1", struct.pack(">2I", 0x801, 6) + bytes(6), "does not begin as an IDX file of 5 labels"),
        ("labels-idx1", b"", "does not begin"),
        ("labels-idx1", None, "lacks train-labels-idx1-ubyte"),
        ("images-idx3", struct.pack(">4I", 0x803, 5, 28, 28) + bytes(5 * 784 - 1), "3,935 bytes where 5 images take"),
        ("images-idx3", struct.pack(">4I", 0x803, 5, 32, 32) + bytes(5 * 1024), "not begin as an IDX file of 28x28 im"),
    ],
)
def test_mnist_files_that_do_not_fit_are_named(tmp_path: Path, name: str, data: bytes | None, said: str) -> None:
    write_mnist(tmp_path, 5, 2, gzipped=False)
    path = tmp_path / f"train-{name}-ubyte"
    path.unlink() if data is None else path.write_bytes(data)
    refused(tmp_path, said)


def test_mnist_without_test_images_has_no_validation_set(tmp_path: Path) -> None:
    write_mnist(tmp_path, 5, 2)
    for path in tmp_path.glob("t10k*"):
        path.unlink()
    source = open_source(tmp_path)
    assert (len(source.members["train"]), len(source.members["val"])) == (5, 0)


def test_a_gzipped_file_that_was_cut_short_is_found_when_it_is_unpacked(tmp_path: Path) -> None:
    write_mnist(tmp_path / "root", 500, 10)
    path = tmp_path / "root" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    source = open_source(tmp_path / "root")
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz: cannot be unpacked"):
        materialise(source, tmp_path / "scratch")
    path.write_bytes(gzip.compress(gzip.decompress((tmp_path / "root" / "t10k-images-idx3-ubyte.gz").read_bytes())))
    with pytest.raises(InputError, match="where 500 images take"):
        materialise(source, tmp_path / "scratch")


def test_pixels_are_unpacked_once_and_again_when_the_source_changes(tmp_path: Path) -> None:
    write_mnist(tmp_path / "root", 5, 2)
    scratch = tmp_path / "scratch"
    first = materialise(open_source(tmp_path / "root"), scratch)
    stamps = {path: path.stat().st_mtime_ns for path in scratch.rglob("*")}
    assert materialise(open_source(tmp_path / "root"), scratch).members["val"][1] == first.members["val"][1]
    assert {path: path.stat().st_mtime_ns for path in scratch.rglob("*")} == stamps
    pixels = write_mnist(tmp_path / "root", 6, 2)
    again = materialise(open_source(tmp_path / "root"), scratch)
    assert np.array_equal(np.stack([image for _, image in images_of(again)]), pixels)


def test_an_unpacking_that_was_killed_is_done_again(tmp_path: Path) -> None:
    write_mnist(tmp_path / "root", 5, 2)
    source = open_source(tmp_path / "root")
    done = materialise(source, tmp_path / "scratch")
    folder = next((tmp_path / "scratch").iterdir())
    next(folder.glob("train-images*")).write_bytes(b"torn")
    folder.rename(folder.with_suffix(".partial"))  # the state that a kill leaves
    again = materialise(source, tmp_path / "scratch")
    assert [image.tolist() for _, image in images_of(again)]
    assert list(again.members["train"]) == list(done.members["train"])


@pytest.mark.parametrize(("encoding", "length"), [("cifar10", 3071), ("mnist", 785), ("mnist", 0)])
def test_raw_pixels_of_another_length_are_refused(encoding: str, length: int) -> None:
    with pytest.raises(ValueError, match=f"array of size {length} into shape"):
        decode_raw(bytes(length), encoding)  # type: ignore[arg-type]
