"""Open small archives that may or may not be gzipped, whatever their name says: people gunzip them, browsers too."""

import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from alexnet.shards.errors import InputError

_GZIP_MAGIC = b"\x1f\x8b"


def is_gzipped(path: Path) -> bool:
    """Say whether a file is gzipped."""
    with path.open("rb") as file:
        return file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC


def files_in(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield last name and bytes of the regular files whose last name is wanted, in the archive's order.

    Raises InputError if the archive is damaged.
    """
    try:
        with tarfile.open(path, "r:gz" if is_gzipped(path) else "r:") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                data = tar.extractfile(member) if member.isreg() and wanted(name) else None
                if data is not None:
                    yield name, data.read()
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read as a tar ({error}); download it again") from None
