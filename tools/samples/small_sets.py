"""Write CIFAR-10 and MNIST in their own formats, of random pixels and any length."""

import gzip
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alexnet.tools.samples.layouts import write_files
from alexnet.tools.samples.official import tar_of

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
