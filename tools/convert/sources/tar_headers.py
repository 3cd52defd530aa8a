"""Read the headers of a tar that anybody may have made: bounded, whatever they claim.

Python's tarfile reads a long name or a pax header whole before it looks at it, calls itself for each header of a
header, and collects the map of a sparse file, which nobody wants here. Here sizes are checked before they are believed.
"""

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

from alexnet.shards.errors import InputError
from alexnet.shards.files import read_bytes
from alexnet.tools.convert.sources.first_bytes import unpacked

_BLOCK, _EXTENDED_AT = 512, 504  # of a sparse file's map: its last byte but some says whether another follows
_EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_MOST_EXTENSION_BYTES = 1 << 20
_MOST_IN_A_ROW = 8  # a long name, a long link, a global pax header, one of a file's own: 4 are usual at most
_MOST_NAME_BYTES, _MOST_FOLDERS = 4096, 64  # Linux has no longer paths
_CHARSETS = ("BINARY", "ISO-IR 10646 2000 UTF-8")  # all that POSIX has; not every Python's tarfile looks
_MOST_BYTES = 1 << 62
_MOST_UNPACKED = 1 << 30  # of an archive: CIFAR-10 has 180 MB, the devkit 3; zeros are unpacked at 3 s a gigabyte


def open_tar(file: IO[bytes]) -> tarfile.TarFile:
    """Open the tar that begins at a file's position. Raises TarError, also while its members are read."""
    return _Headers(fileobj=file, mode="r", encoding="utf-8")  # whatever the locale


def files_in(path: Path, wanted: Callable[[str], bool], most: int) -> Iterator[tuple[str, bytes]]:
    """Yield last name and bytes of the files in a folder, or a tar, gzipped or not, whose last name is wanted.

    Raises InputError if the archive is damaged, or one of them has more than `most` bytes.
    """
    if path.is_dir() or not path.exists():
        for inside in sorted(path.iterdir() if path.is_dir() else ()):
            if wanted(inside.name) and inside.is_file():
                try:
                    content = read_bytes(inside, most)
                except ValueError as error:
                    raise InputError(f"{inside}: {error}; download it again") from None
                yield inside.name, content
        return
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


class _Header(tarfile.TarInfo):
    """Read one header, and those that extend it. Raises ReadError for what cannot be right."""

    sparse: Any

    def _proc_member(self, tar: "_Headers") -> tarfile.TarInfo:  # tarfile's own place for this
        if self.type in _EXTENSIONS:
            tar.in_a_row += 1
            tar.global_bytes += self.size if self.type == tarfile.XGLTYPE else 0
            if not 0 <= max(self.size, tar.global_bytes) <= _MOST_EXTENSION_BYTES or tar.in_a_row > _MOST_IN_A_ROW:
                raise tarfile.ReadError(
                    f"at byte {self.offset:,} {tar.in_a_row} headers of {self.size:,} bytes extend another, which no "
                    "packer writes"
                )
        else:
            tar.in_a_row = 0
        _check_size(self)
        try:
            found: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        except tarfile.HeaderError as error:  # which newer tarfiles take for the end of the tar
            raise tarfile.ReadError(f"the header at byte {self.offset:,} is damaged: {error}") from None
        _check_size(found)
        if (charset := found.pax_headers.get("hdrcharset", _CHARSETS[0])) not in _CHARSETS:
            raise tarfile.ReadError(f"the name at byte {found.offset:,} has a charset that is none: {charset[:40]!r}")
        if len(found.name) > _MOST_NAME_BYTES or found.name.count("/") > _MOST_FOLDERS:
            raise tarfile.ReadError(f"the name at byte {found.offset:,} is longer, or deeper, than a file's can be")
        return found

    def _proc_sparse(self, tar: "_Headers") -> Self:
        (_, more, size), file = self._sparse_structs, tar.fileobj  # type: ignore[attr-defined]
        while more:
            block = file.read(_BLOCK)
            more = len(block) == _BLOCK and block[_EXTENDED_AT]
        self.offset_data = file.tell()
        tar.offset = self.offset_data + -(-self.size // _BLOCK) * _BLOCK
        self.size, self.sparse = size, []
        return self

    def _proc_gnusparse_00(self, found: Any, *_: object) -> None:
        found.sparse = []

    _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_gnusparse_00


class _Headers(tarfile.TarFile):
    """A tar of which no more is kept than the header that is read."""

    tarinfo = _Header
    in_a_row = global_bytes = 0

    def next(self) -> tarfile.TarInfo | None:
        """Return the next member, or None at the end, and forget the last: tarfile would keep a kilobyte for each."""
        self.members: list[tarfile.TarInfo] = []
        try:
            return super().next()
        except (tarfile.TarError, OSError, MemoryError):
            raise
        except Exception as error:  # a mangled header raises ValueError, IndexError, UnicodeError and more
            raise tarfile.ReadError(f"{type(error).__name__}: {error}") from None


def _check_size(header: tarfile.TarInfo) -> None:
    if not 0 <= header.size < _MOST_BYTES:
        raise tarfile.ReadError(f"the header at byte {header.offset:,} claims a file of {header.size:,} bytes")
