"""Walk tars, and tars inside tars, by their headers: where each file's bytes lie, and nothing more.

A class tar inside the training tar is just a range of it, and an image inside that is a range again. Nothing is ever
extracted, so a member's name can be anything: it is a label for people, never a path.
"""

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from alexnet.shards.errors import InputError
from alexnet.tools.convert.listing import Entry
from alexnet.tools.convert.sources.folders import is_junk

OnEntries = Callable[[int, int], None]
"""Told of bytes passed and entries found, a few hundred entries at a time: a call for each would cost 2%."""

_END_MARK = bytes(512)
_TELL_ENTRIES = 256


@dataclass(frozen=True, kw_only=True)
class TarListing:
    """Hold a tar's regular files in its own order, and how many of its members are something else."""

    entries: list[Entry]
    ignored: int


def list_tar(
    path: Path,
    file: IO[bytes],
    name: str,
    start: int = 0,
    length: int | None = None,
    on_entries: OnEntries = lambda *_: None,
) -> TarListing:
    """List the regular files of the tar that begins at `start` in an open file; `name` is what errors call it.

    Links, devices, folders and junk such as `.DS_Store` are counted only. `on_entries` is told how far it is. Raises
    InputError if the tar is damaged or cut short, also where it was cut between two members: the end mark tells.
    """
    end = path.stat().st_size if length is None else start + length
    entries: list[Entry] = []
    ignored = 0
    file.seek(start)
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:  # whatever the locale
            for member in _members(tar, start, end, on_entries):
                if not member.isreg() or is_junk(PurePosixPath(member.name).name):
                    ignored += 1
                elif member.issparse():
                    raise InputError(f"{path}: {member.name} is stored sparse; pack {name} again without --sparse")
                else:
                    text = member.name.encode("utf-8", "surrogateescape")
                    entries.append((text, member.offset_data, member.size))
            at = tar.offset
            file.seek(at)
            whole = at + len(_END_MARK) <= end and file.read(len(_END_MARK)) == _END_MARK
    except InputError:
        raise
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:  # a mangled pax header is a ValueError
        raise InputError(f"{path}: {name} cannot be read as a tar ({error}); download it again") from None
    if not whole:
        raise InputError(f"{path}: {name} is damaged or was cut short (no end mark at byte {at:,}); download it again")
    return TarListing(entries=entries, ignored=ignored)


def _members(tar: tarfile.TarFile, start: int, end: int, on_entries: OnEntries) -> Iterator[tarfile.TarInfo]:
    """Yield a tar's members as their headers are read, and tell of them now and then."""
    told, entries = start, 0
    while (member := tar.next()) is not None and tar.offset <= end:
        tar.members = []  # type: ignore[attr-defined]  # tarfile would keep a kilobyte for each
        yield member
        entries += 1
        if entries == _TELL_ENTRIES:
            on_entries(tar.offset - told, entries)
            told, entries = tar.offset, 0
    on_entries(end - told, entries)
