"""Read files that may hold anything, and replace files whole or not at all.

What is read may be anything: a device without an end, a FIFO that blocks, a gigabyte of brackets, a NumPy header that
is a program. So only regular files are opened, no more is read than such a file can have, and JSON is checked against
its type before anybody uses it.
"""

import hashlib
import io
import json
import math
import os
import re
import resource
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from alexnet.shards.errors import InputError, reason_of

T = TypeVar("T")

MAX_JSON_BYTES = 1 << 25
"""34 MB: the manifest of 20 million images in 10,000 shards and 22,000 classes has 4 MB. Objects take up to 15 times as
much as their text."""
CHECKSUMS_NAME = "SHA256SUMS"

_MAX_ODD_BYTES = 1 << 22  # which `json` makes 22 times as many of
_MAX_CHECKSUMS_BYTES = 1 << 26  # 67 MB: 400,000 shards with a line for each tar and `.idx` file
_MAX_FAULTS = 1000
_CHECKSUM = re.compile(r"([0-9a-f]{64})  (.+)")
_NPY_MAGIC = b"\x93NUMPY\x01\x00"
_NPY_HEADER = re.compile(
    rb"\{'descr': (.+), 'fortran_order': False, 'shape': \(([0-9]{1,12}(?:, [0-9]{1,12}){0,2}),?\), \} *\n"
)


class NotRegularError(OSError):
    """Say that something is no regular file, so that it was not read."""


class TooMuchMemoryError(ValueError):
    """Say that a file asked for more memory than it may have."""


# Reading


def open_regular(path: Path) -> int:
    """Open a regular file for reading; return its descriptor. Raises OSError, a NotRegularError for anything else."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would be waited for
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError(0, "is no regular file", str(path))
    return descriptor


def read_bytes(path: Path, most: int) -> bytes:
    """Read a whole file. Raises OSError, and ValueError if it has more than `most` bytes."""
    with open(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"has {size:,} bytes, where at most {most:,} can be right")
        return file.read(most)


def read_json(path: Path, kind: type[T], *, mend: str, odd_names: bool = False) -> T:
    """Read a file of JSON as a type: a dataclass, dict[str, Any] ...; members that it does not know are left out.

    `mend`: what the user can do about a file that is damaged. `odd_names`: see `as_typed`. Raises InputError in one
    line for whatever is wrong with it, but FileNotFoundError and NotADirectoryError where there is none.
    """
    try:
        return as_typed(read_bytes(path, MAX_JSON_BYTES), kind, odd_names=odd_names)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({reason_of(error)}); {mend}") from None


def as_typed(text: bytes | str, kind: type[T], *, odd_names: bool = False) -> T:
    r"""Read JSON as a type. Raises ValueError in one line for whatever is not.

    `odd_names`: allow for names that are no UTF-8, as Python writes them, `\udc80` to `\udcff`.
    """
    try:
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.DecodeError as error:
            if not odd_names or "surrogate" not in str(error) or len(text) > _MAX_ODD_BYTES:
                raise ValueError(str(error)[:300]) from None
        return of_type(json.loads(text), kind)
    except OverflowError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def of_type(value: Any, kind: type[T]) -> T:
    """Check plain values (of JSON) against a type and build it. Raises ValueError in one short line."""
    try:
        return msgspec.convert(value, type=kind)
    except (msgspec.ValidationError, OverflowError) as error:  # the latter of a whole number that is no float
        raise ValueError(str(error)[:300]) from None  # a value that it quotes may be a text of megabytes
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def map_array(path: Path, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Map a NumPy file's array, in C order, for reading. Raises OSError, and ValueError for another dtype or size.

    NumPy's own reader evaluates the header as Python; here it is compared.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        start = file.read(10)
        header = file.read(int.from_bytes(start[8:], "little")) if start[:8] == _NPY_MAGIC else b""
        match = _NPY_HEADER.fullmatch(header)
        if match is None or match[1] != repr(np.lib.format.dtype_to_descr(np.dtype(dtype))).encode():
            raise ValueError(f"is no NumPy file of {np.dtype(dtype)}")
        shape = tuple(map(int, match[2].split(b",")))
        first, size = len(start) + len(header), os.fstat(file.fileno()).st_size
        needed = first + math.prod(shape) * np.dtype(dtype).itemsize
        if size != needed:
            raise ValueError(f"has {size:,} bytes where an array of {shape} needs {needed:,}")
        return np.memmap(file, dtype, "r", first, shape)


@contextmanager
def bounded_memory(most: int) -> Iterator[None]:
    """Have the kernel refuse more than so many more bytes. Raises TooMuchMemoryError if they were asked for.

    The bound is the whole process's, so it is set in the main thread alone; in others there is none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_bytes().split()[0])
    limit = pages * resource.getpagesize() + most
    narrower = resource.RLIM_INFINITY != soft < limit
    try:
        resource.setrlimit(resource.RLIMIT_AS, (soft if narrower else limit, hard))
        yield
    except (MemoryError, RuntimeError) as error:  # the latter is PyTorch's
        if not (isinstance(error, MemoryError) or "alloc" in str(error)):
            raise
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        bytes(most)  # MemoryError: it is the machine that has no more, or a narrower limit. They are not touched
        raise TooMuchMemoryError(f"asks for more than {most / 1e6:,.0f} MB of memory") from None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# Writing


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a file to write, which takes another's place, whole and on the disk, if all went well. Raises OSError."""
    if path.exists() and not path.is_file():
        raise NotRegularError(0, "is no regular file", str(path))
    partial = path.with_name(f".{path.name}.partial")
    if partial.is_symlink() or partial.exists():  # of a run that was killed; a FIFO would be waited for
        partial.unlink()
    try:
        yield partial
        put_on_disk(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and to the disk; what was there stays until then. Raises OSError."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def put_on_disk(path: Path) -> None:
    """Wait until a file's bytes, or a folder's list of files, are on the disk and survive a power cut."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def begin_to_put_on_disk(descriptor: int, first: int, end: int) -> None:
    """Have the kernel begin to write a part of a file: `fsync` of half a gigabyte at once takes a third of a second.

    What is not on the disk yet stays in its cache, whatever this advice is called.
    """
    os.posix_fadvise(descriptor, first, end - first, os.POSIX_FADV_DONTNEED)


# SHA256SUMS


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, read in pieces."""
    with os.fdopen(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum_lines(sha256: dict[str, str]) -> bytes:
    """Return the SHA256SUMS of files: a line each for `sha256sum -c`, sorted by the bytes of the path."""
    names = sorted(sha256, key=os.fsencode)
    return b"".join(f"{sha256[name]}  ".encode() + os.fsencode(name) + b"\n" for name in names)


def read_checksums(root: Path) -> tuple[dict[str, str], list[str]]:
    """Read a folder's SHA256SUMS: sha256 by path, and what in it is not as `checksum_lines` writes it.

    Raises OSError, and ValueError if it is too large.
    """
    sha256: dict[str, str] = {}
    faults: list[str] = []
    content = read_bytes(root / CHECKSUMS_NAME, _MAX_CHECKSUMS_BYTES)
    for number, line in enumerate(io.BytesIO(content), start=1):
        match = _CHECKSUM.fullmatch(os.fsdecode(line.removesuffix(b"\n")))
        if len(faults) == _MAX_FAULTS:
            break
        if match is None:
            faults.append(f"line {number} is not 64 hexadecimal digits, two spaces and a path")
        elif match[2] in sha256:
            faults.append(f"line {number} lists {match[2]} a second time")
        else:
            sha256[match[2]] = match[1]
    if not faults and content != checksum_lines(sha256):
        faults.append("is not sorted by path with a line break after each line")
    return sha256, faults
