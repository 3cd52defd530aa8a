"""Read images of a source by byte range, and tell a file that cannot be read from a source that changed or is gone."""

import errno
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from alexnet.shards.errors import InputError
from alexnet.shards.files import open_regular
from alexnet.tools.convert.listing import Member, Opener
from alexnet.tools.convert.opening import MAX_BYTES, UndecodableError

_OF_ONE_FILE = {errno.EACCES, errno.EPERM, errno.EIO, errno.EUCLEAN, errno.EBADMSG}
"""Rights, a bad sector, a damaged file system: may concern one file only. Time-outs and the like concern the disk."""
_WRITTEN = "was written to meanwhile"
_FEW = 5  # as many rejects as are allowed anyway


class SourceChangedError(InputError):
    """Say which file of the source is not what it was when the source was listed."""


def check_archives(root: Path, archives: Iterable[str], since_ns: int) -> None:
    """Raise SourceChangedError if an archive was written to since then, or is gone."""
    for path in (root / name for name in archives):
        if not path.is_file() or _is_since(since_ns, path.stat().st_mtime_ns):
            raise changed(path, _WRITTEN)


def _is_since(since_ns: int, time_ns: int) -> bool:
    return since_ns < time_ns <= time.time_ns()  # a time in the future is a wrong clock's, and tells nothing


class SourceFiles:
    """Read images in their order, with one file of the source open at a time.

    A shard of ImageNet-21k comes from some thousand class tars, and most systems grant a process 1,024 open files.
    """

    def __init__(self, root: Path, since_ns: int | None = None, opener: Opener | None = None) -> None:
        """`since_ns`: a file that was written to since then is refused, whatever is in it; None takes any.

        `opener`: opens files that are on no disk.
        """
        self._root, self._since_ns, self._opener = root, since_ns, opener
        self._name: str | None = None
        self._file: BinaryIO | None = None
        self._denied: list[OSError] = []

    def __enter__(self) -> "SourceFiles":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, member: Member) -> bytes:
        """Return an image's bytes.

        Raises UndecodableError if there are too many or this file alone cannot be read, SourceChangedError if there are
        more or fewer than were listed or the file was written to, and OSError if the disk, or all of the source, is
        gone.
        """
        if member.length > MAX_BYTES:
            raise UndecodableError(f"has more than {MAX_BYTES:,} bytes, and is not read; store it smaller, or as JPEG")
        try:
            file = self._opened(member.file)
            file.seek(member.offset)
            data = file.read(member.length + member.is_whole_file)  # a byte more than a file has, if it has not grown
        except OSError as error:
            raise self._judged(error, member) from None
        if len(data) != member.length:
            has = "more than" if len(data) > member.length else f"{len(data):,} of"
            raise changed(self._root / member.file, f"{member.name} has {has} its {member.length:,} bytes")
        self._refuse_if_written(member, lambda state: state.st_mtime_ns)
        return data

    def check_bad(self, member: Member) -> None:
        """Raise SourceChangedError if the file of an image that cannot be used may be another than the one listed.

        A copy that keeps its time, as `rsync -a` makes, shows only in the time of the inode, which `chmod` sets, too.
        """
        self._refuse_if_written(member, lambda state: max(state.st_mtime_ns, state.st_ctime_ns))

    def _refuse_if_written(self, member: Member, time_of: Callable[[os.stat_result], int]) -> None:
        if self._since_ns is None or self._file is None or self._name != member.file:
            return
        if self._opener is None and _is_since(self._since_ns, time_of(os.fstat(self._file.fileno()))):
            raise changed(self._root / member.file, _WRITTEN)

    def check_readable(self, images: int) -> None:
        """Raise OSError if not one image of a shard could be read: that is the disk's fault, not theirs."""
        if len(self._denied) == images > _FEW:
            raise self._denied[-1]

    def _judged(self, error: OSError, member: Member) -> Exception:
        """Return what an error means: one reject or, where it is not about this image alone, the end of the run."""
        path = self._root / member.file
        error.filename = error.filename or str(path)  # reading, unlike opening, does not name it
        opened = self._file is not None and self._name == member.file
        if error.errno not in _OF_ONE_FILE or not (opened or member.is_whole_file):
            return error
        path.stat()  # its folder can be searched, and
        with os.scandir(self._root) as entries:  # the source as a whole be read: else these raise
            next(entries, None)
        self._denied.append(error)
        return UndecodableError(f"cannot be read ({error.strerror})")

    def _opened(self, name: str) -> BinaryIO:
        if self._file is None or name != self._name:
            self.__exit__()
            self._file = None
            self._file = (self._opener or open_file)(self._root / name)
            self._name = name
        return self._file


def open_file(path: Path) -> BinaryIO:
    """Open a file of the source, which may have become something else since it was listed. Raises OSError."""
    return os.fdopen(open_regular(path), "rb")


def changed(path: Path, what: str) -> SourceChangedError:
    """Return the error that says how a file of the source changed."""
    return SourceChangedError(
        f"{path}: {what}: the source changed after it was indexed; restore it, or let who writes there finish, and "
        "give the same command again"
    )
