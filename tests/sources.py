"""Write sources in every layout that the converter reads, of any images: as downloaded, extracted, in small formats."""

import gzip
import io
import struct
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from alexnet.tools.convert.known import DEVKIT_TAR, TRAIN_TAR, VAL_TAR
from alexnet.tools.synth.archives import devkit_files, tar_of

Files = Mapping[str, bytes]


def write_official(
    root: Path, words: Mapping[str, str], train: Mapping[str, Files], val: Sequence[tuple[str, bytes]]
) -> None:
    """Write the three archives to `root`.

    `words`: class words by WNID. `train`: for each WNID its files by name. `val`: (WNID, bytes) of each validation
    image in order.
    """
    root.mkdir(parents=True, exist_ok=True)
    class_tars = {f"{wnid}.tar": tar_of(files) for wnid, files in train.items()}
    (root / TRAIN_TAR).write_bytes(tar_of(class_tars))
    images = {f"ILSVRC2012_val_{i:08d}.JPEG": data for i, (_, data) in enumerate(val, start=1)}
    (root / VAL_TAR).write_bytes(tar_of(images))
    write_devkit(root, words, [wnid for wnid, _ in val])


def write_devkit(
    root: Path, words: Mapping[str, str], val: Sequence[str], ids: Mapping[str, int] | None = None
) -> None:
    """Write the devkit to `root`: `val` has the WNID of each validation image, `ids` the ILSVRC2012_ID of each WNID."""
    folder = DEVKIT_TAR.removesuffix(".tar.gz") + "/data"
    devkit = {f"{folder}/{name}": data for name, data in devkit_files(words, val, ids).items()}
    (root / DEVKIT_TAR).write_bytes(tar_of(devkit, "w:gz"))


ValImages = Sequence[tuple[str, bytes]]
"""WNID and bytes of each validation image, in order."""


def write_tree(root: Path, train: Mapping[str, Files], val: ValImages = (), *, flat: bool = False) -> None:
    """Write `train/WNID/` and `val/`, the latter in class folders, or `flat`: in need of a devkit."""
    for wnid, files in train.items():
        write_files(root / "train" / wnid, files)
    for number, (wnid, data) in enumerate(val, start=1):
        folder = root / "val" if flat else root / "val" / wnid
        write_files(folder, {f"ILSVRC2012_val_{number:08d}.JPEG": data})


def write_kaggle(root: Path, words: Mapping[str, str], train: Mapping[str, Files], val: ValImages) -> None:
    """Write Kaggle's layout: a tree with flat `val` in a deeper folder, and its two tables."""
    write_tree(root / "ILSVRC" / "Data" / "CLS-LOC", train, val, flat=True)
    answers = [f"ILSVRC2012_val_{i:08d},{wnid} 85 1 499 272 {wnid} 2 2 9 9 \n" for i, (wnid, _) in enumerate(val, 1)]
    table = "ImageId,PredictionString\n" + "".join(reversed(answers))  # Kaggle's has no order, either
    (root / "LOC_val_solution.csv").write_text(table)
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} {words[wnid]}\n" for wnid in sorted(words)))


def write_class_tars(root: Path, train: Mapping[str, Files]) -> None:
    """Write one tar a class."""
    write_files(root, {f"{wnid}.tar": tar_of(files) for wnid, files in train.items()})


def write_entries(root: Path, classes: int, entries: int) -> None:
    """Write `classes` tars of `entries` members in all, as links to one file: each is really walked.

    The first member is an image, as a tar without is no class; the others are empty.
    """
    image = io.BytesIO()
    Image.new("RGB", (32, 24)).save(image, "JPEG")
    root.mkdir(parents=True)
    target = root.parent / f"{root.name}.tar"
    with tarfile.open(target, "w") as tar:
        for number in range(entries // classes):
            member = tarfile.TarInfo(f"n00000000_{10_000 + number}.JPEG")
            member.size = 0 if number else len(image.getvalue())
            tar.addfile(member, io.BytesIO(image.getvalue()))
    for label in range(classes):
        (root / f"n{label:08d}.tar").symlink_to(target)


def write_files(folder: Path, files: Files) -> None:
    """Write files into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_NUMPY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
_DTYPE = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def write_cifar10(root: Path, images_a_batch: int, *, archive: bool = True) -> npt.NDArray[np.uint8]:
    """Write CIFAR-10's python version, as downloaded or extracted; return the pixels, (6, n, 3072), test batch last."""
    rng = np.random.default_rng(10)
    pixels = rng.integers(0, 256, (6, images_a_batch, 3072), dtype=np.uint8)
    files = {"batches.meta": _pickled({"label_names": [name.encode() for name in CIFAR_CLASSES]})}
    for name, batch in zip([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"], pixels, strict=True):
        stems = [f"{CIFAR_CLASSES[i % 10]}_s_{i:06d}.png".encode() for i in range(images_a_batch)]
        labels = [i % 10 for i in range(images_a_batch)]
        fields = {"batch_label": name.encode(), "labels": labels, "data": batch, "filenames": stems}
        files[name] = _pickled(fields)
    shuffled = {name: files[name] for name in sorted(files, key=lambda name: name[::-1])}  # as the archive's order is
    if archive:
        packed = tar_of({f"cifar-10-batches-py/{name}": data for name, data in shuffled.items()}, "w:gz")
        write_files(root, {"cifar-10-python.tar.gz": packed})
    else:
        write_files(root / "cifar-10-batches-py", shuffled)
    return pixels


def write_mnist(root: Path, train: int, val: int, *, gzipped: bool = True) -> npt.NDArray[np.uint8]:
    """Write MNIST's four files; return the pixels, (train + val, 28, 28). Label i % 10 belongs to image i."""
    pixels = np.random.default_rng(28).integers(0, 256, (train + val, 28, 28), dtype=np.uint8)
    for prefix, images in (("train", pixels[:train]), ("t10k", pixels[train:])):
        labels = bytes(i % 10 for i in range(len(images)))
        files = {
            f"{prefix}-images-idx3-ubyte": struct.pack(">4I", 0x803, len(images), 28, 28) + images.tobytes(),
            f"{prefix}-labels-idx1-ubyte": struct.pack(">2I", 0x801, len(images)) + labels,
        }
        write_files(root, {f"{n}.gz": gzip.compress(d) for n, d in files.items()} if gzipped else files)
    return pixels


def _pickled(value: object) -> bytes:
    """Pickle as Python 2 did, with byte strings that Python 3 can read but no longer writes."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: object) -> bytes:
    match value:
        case dict():
            return b"}(" + b"".join(_opcodes(key.encode()) + _opcodes(item) for key, item in value.items()) + b"u"
        case list():
            return b"](" + b"".join(_opcodes(item) for item in value) + b"e"
        case bytes():
            return (b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<i", len(value))) + value
        case int():
            return b"J" + struct.pack("<i", value)
        case np.ndarray():
            shape = b"".join(_opcodes(n) for n in value.shape) + b"\x86"
            return _NUMPY + b"(K\x01" + shape + _DTYPE + b"\x89" + _opcodes(value.tobytes()) + b"tb"
    raise TypeError(f"{type(value).__name__} is in no file of CIFAR-10")
