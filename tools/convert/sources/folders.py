"""Walk folders of images: which regular files they hold, following links but never in circles.

Whether a file is an image is not asked here, and never of its name: decoding will tell, with a reason. Hidden files and
what file managers leave behind are passed over and counted, as are sockets, devices and links that lead nowhere.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from alexnet.tools.convert.listing import Entry

_JUNK = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "lost+found", "found.000"}
_JUNK |= {"$recycle.bin", "system volume information"}
_JUNK_BEGINS = (".", "@eadir", "@__thumb", "@tmp", "#recycle", "#snapshot", "@recently", "~$")  # hidden; NAS; Office
_JUNK_ENDS = (":zone.identifier", "\uf03azone.identifier", ":smartscreen")  # where a file on Windows came from

_TELL_ENTRIES = 1024

Found = list[os.DirEntry[str]]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Hold the visible sub-folders and regular files of one folder, sorted, and how many other things it has."""

    folders: tuple[str, ...]
    files: tuple[str, ...]
    ignored: int


def is_junk(name: str) -> bool:
    """Say whether a name is hidden, or left behind by an operating system, a file manager or a network disk."""
    lower = name.lower()
    return lower in _JUNK or lower.startswith(_JUNK_BEGINS) or lower.endswith(_JUNK_ENDS)


def contents(folder: Path) -> Contents:
    """Look into one folder, not deeper; links are followed."""
    folders, others, total = _look(folder)
    files = sorted(entry.name for entry in others if _file_size(entry) is not None)
    return Contents(
        folders=tuple(entry.name for entry in folders), files=tuple(files), ignored=total - len(folders) - len(files)
    )


def folders_in(folder: Path) -> list[str]:
    """Return the visible sub-folders of a folder, sorted, without a look at its files, which may be thousands."""
    return [entry.name for entry in _look(folder)[0]]


def list_folder(folder: Path, on_entries: Callable[[int], None] = lambda _: None) -> tuple[list[Entry], int]:
    """List the regular files of a folder and of those below it, and count what is ignored.

    A name is the path from `folder`; an offset is 0. A folder that is reached a second time, through a link, is
    ignored: it would be walked for ever, or give images twice. `on_entries` is told of files found, a thousand at a
    time.
    """
    entries: list[Entry] = []
    told, others = 0, 1
    for _, prefix, files, total in _tree(folder):
        others += total - 1  # without the folder itself, which is an entry of the one above it
        for entry in files:
            if (size := _file_size(entry)) is not None:
                entries.append((prefix + os.fsencode(entry.name), 0, size))
                if len(entries) - told == _TELL_ENTRIES:
                    on_entries(_TELL_ENTRIES)
                    told = len(entries)
    on_entries(len(entries) - told)
    return entries, others - len(entries)


def stamps(top: Path) -> Iterator[tuple[str, int, int]]:
    """Yield path, mtime (ns) and number of entries of a folder and of all below it, without a look at any file.

    A file that is added, removed or renamed changes its folder's stamp; one that is overwritten in place does not.
    """
    for path, _, _, total in _tree(top):
        yield os.path.relpath(path, top), Path(path).stat().st_mtime_ns, total


def _tree(top: Path) -> Iterator[tuple[str, bytes, Found, int]]:
    """Yield each folder once, by name: path, path from `top`, what is visible in it but folders, number of entries."""
    seen = {_identity(path.stat()) for path in _above(top)}
    left = [(os.fspath(top), b"")]
    while left:
        path, prefix = left.pop()
        folders, files, total = _look(path)
        fresh = []
        for entry in folders:
            if (identity := _identity(entry.stat())) not in seen:
                seen.add(identity)
                fresh.append((entry.path, prefix + os.fsencode(entry.name) + b"/"))
        left += reversed(fresh)
        yield path, prefix, files, total


def _look(folder: str | Path) -> tuple[Found, Found, int]:
    """Return what is visible in a folder: sub-folders, by name, and others; and how many entries it has, junk too."""
    folders: Found = []
    others: Found = []
    total = 0
    with os.scandir(folder) as found:
        for total, entry in enumerate(found, start=1):  # noqa: B007 (it is returned)
            if not is_junk(entry.name):
                (folders if _is_folder(entry) else others).append(entry)
    return sorted(folders, key=lambda entry: entry.name), others, total  # the disk's own order is anything


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Say whether an entry is a folder, or a link to one; of what is no link its folder tells, without a call more."""
    try:
        return entry.is_dir()
    except OSError as error:
        _refuse(error)
        return False


def _file_size(entry: os.DirEntry[str]) -> int | None:
    """Return the bytes of a regular file, or of one that is linked to; None for anything else."""
    try:
        state = entry.stat()
    except OSError as error:
        _refuse(error)
        return None
    return state.st_size if stat.S_ISREG(state.st_mode) else None


def _refuse(error: OSError) -> None:
    """Raise an error unless it says that a link leads nowhere or in a circle.

    Images in a folder that may be listed and not searched are not ignored.
    """
    if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
        raise error


def _above(folder: Path) -> set[Path]:
    """Return a folder and all that lie above it, both as it was named and as it is."""
    return {folder, *folder.absolute().parents, folder.resolve(), *folder.resolve().parents}


def _identity(state: os.stat_result) -> tuple[int, int]:
    """Return what a folder is, whatever links lead to it."""
    return state.st_dev, state.st_ino
