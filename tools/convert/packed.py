"""Open small archives that may or may not be gzipped, whatever their name says: people gunzip them, browsers too."""

import gzip
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

from alexnet.shards.errors import InputError
from alexnet.shards.files import open_regular
from alexnet.tools.convert.tar_headers import open_tar

_GZIP_MAGIC = b"\x1f\x8b"
_MOST_UNPACKED = 1 << 30
"""Of an archive: CIFAR-10 has 180 MB, the devkit 3; zeros are unpacked at 3 s a gigabyte."""


def is_gzipped(path: Path) -> bool:
    """Say whether a file is gzipped."""
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that may be gzipped. Raises InputError if it is damaged, also while it is read, and OSError."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            yield cast(IO[bytes], gzip.GzipFile(fileobj=file)) if is_gzipped(path) else file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be unpacked ({error}); download it again") from None


def files_in(path: Path, wanted: Callable[[str], bool], most: int) -> Iterator[tuple[str, bytes]]:
    """Yield last name and bytes of the regular files whose last name is wanted, in the archive's order.

    Raises InputError if the archive is damaged, or one of them has more than `most` bytes.
    """
    with unpacked(path) as file:
        try:
            tar = open_tar(file)
            while (member := tar.next()) is not None:
                name = PurePosixPath(member.name).name
                is_wanted = member.isreg() and wanted(name)
                if (is_wanted and member.size > most) or tar.offset > _MOST_UNPACKED:
                    raise tarfile.ReadError(f"{name} ends at byte {tar.offset:,}, far beyond where it should")
                data = tar.extractfile(member) if is_wanted else None
                if data is not None:
                    yield name, data.read()
        except tarfile.TarError as error:
            raise InputError(f"{path}: cannot be read as a tar ({error}); download it again") from None
