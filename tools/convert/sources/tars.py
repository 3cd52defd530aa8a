"""Walk tars, and tars inside tars, by their headers: where each file's bytes lie, and nothing more.

A class tar inside the training tar is just a range of it, and an image inside that is a range again. Nothing is ever
extracted, so a member's name can be anything: it is a label for people, never a path. What is listed is what unpacking
would leave, though: of two members of one name the last, and for a link what it links to.
"""

import posixpath
import shlex
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO

from alexnet.shards.errors import InputError
from alexnet.tools.convert.known import naming
from alexnet.tools.convert.listing import Entry
from alexnet.tools.convert.sources.folders import is_junk
from alexnet.tools.convert.sources.not_a_tar import HEAD_BYTES, what_instead
from alexnet.tools.convert.tar_headers import open_tar

OnEntries = Callable[[int, int], None]
"""Told of bytes passed and entries found, a few hundred entries at a time: a call for each would cost 2%."""

_BLOCK = 512
_END_MARK = bytes(_BLOCK)
_TELL_ENTRIES = 256
_MOST_LINKS = 40  # symbolic links in a row that Linux follows
_CHUNK_BYTES = 1 << 20


@dataclass(kw_only=True)
class Passed:
    """Count what the tars of a source hold besides the files that are read.

    `ignored`: all of it. `replaced`: files that a later one of the same name replaces. `nowhere`: links without a file.
    """

    ignored: int = 0
    replaced: int = 0
    nowhere: list[str] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        """Say where a picture may be missed."""
        one, many = "link in a tar leads", "links in tars lead"
        replaced = f"replaced by later entries of the same name, as in unpacking: {self.replaced:,}"
        notes = (naming(one, many, " to no file in it", self.nowhere), replaced if self.replaced else "")
        return tuple(note for note in notes if note)


def list_tar(
    path: Path,
    file: IO[bytes],
    name: str,
    passed: Passed,
    start: int = 0,
    length: int | None = None,
    on_entries: OnEntries = lambda *_: None,
) -> list[Entry]:
    """List the files of the tar that begins at `start` in an open file; `name` is what errors call it.

    A link to a file of the same tar is that file under another name. Other links, devices, folders and junk such as
    `.DS_Store` are counted only. A second tar after the end mark is read on. `on_entries` is told how far it is.
    Raises InputError if the tar is damaged or cut short, also where it was cut between two members: the end mark tells.
    """
    end = path.stat().st_size if length is None else start + length
    found = _Unpacked()
    try:
        for member in _members(path, file, name, start, end, on_entries):
            if member.issparse() and not is_junk_path(member.name):
                raise InputError(f"{path}: {member.name} is stored sparse; pack {name} again without --sparse")
            found.add(member)
    except (tarfile.TarError, OSError) as error:
        raise _no_tar(path, file, name, start, end, f"cannot be read as a tar ({error})") from None
    return found.entries(name, passed)


class _Unpacked:
    """Collect what unpacking a tar would leave."""

    def __init__(self) -> None:
        self._files: dict[bytes, Entry] = {}  # by where they would lie
        self._links: dict[bytes, tuple[bytes, bytes]] = {}  # symbolic: own name, and where they lead
        self._junk: set[bytes] = set()
        self._nowhere: list[bytes] = []
        self._replaced = self._others = 0

    def add(self, member: tarfile.TarInfo) -> None:
        """Take a member in the tar's order."""
        name, junk = _bytes(member.name), is_junk_path(member.name)
        place = _place(name)
        if member.isreg():
            self._put(place, (name, member.offset_data, member.size))
            if junk:
                self._junk.add(place)  # at the end: a link to it may be none
        elif junk or not (member.islnk() or member.issym()):
            self._others += 1
        elif member.issym():
            to = posixpath.join(posixpath.dirname(place), _bytes(member.linkname))
            self._links[place] = (name, posixpath.normpath(to))
        elif target := self._files.get(_place(_bytes(member.linkname))):  # a hard link's target lies before it
            self._put(place, (name, *target[1:]))
        else:
            self._nowhere.append(name)

    def entries(self, tar: str, passed: Passed) -> list[Entry]:
        """Return the files, and add what else there was to `passed`."""
        links, self._links = self._links, {}
        for place, (name, to) in links.items():
            for _ in range(_MOST_LINKS):
                to = links[to][1] if to in links else to
            target = None if to in links else self._files.get(to)
            if target is None:
                self._nowhere.append(name)
            else:
                self._put(place, (name, *target[1:]))
        junk = sum(self._files.pop(place, None) is not None for place in self._junk)
        passed.ignored += junk + self._replaced + self._others + len(self._nowhere)
        passed.replaced += self._replaced
        passed.nowhere += [f"{tar}: {name.decode('utf-8', 'backslashreplace')!r}" for name in self._nowhere]
        return list(self._files.values())

    def _put(self, place: bytes, entry: Entry) -> None:
        self._replaced += place in self._files
        self._files[place] = entry
        if self._links:
            self._links.pop(place, None)


def _members(
    path: Path, file: IO[bytes], name: str, start: int, end: int, on_entries: OnEntries
) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar, and of tars that follow it, as their headers are read, and tell of them."""
    told, entries = start, 0
    at: int | None = start
    while at is not None:
        file.seek(at)
        with open_tar(file) as tar:
            while (member := tar.next()) is not None and tar.offset <= end:
                yield member
                entries += 1
                if entries == _TELL_ENTRIES:
                    on_entries(tar.offset - told, entries)
                    told, entries = tar.offset, 0
            at = _next_tar(path, file, name, start, tar.offset, end)
    on_entries(end - told, entries)


def _next_tar(path: Path, file: IO[bytes], name: str, start: int, at: int, end: int) -> int | None:
    """Return where another tar begins after the end mark at `at`; None if only zeros follow it.

    `cat one.tar other.tar` gives such files. Raises InputError if there is no end mark, or something else follows it.
    """
    file.seek(at)
    if at + _BLOCK > end or file.read(_BLOCK) != _END_MARK:
        raise _no_tar(path, file, name, start, end, f"is damaged or was cut short (no end mark at byte {at:,})")
    here = at + _BLOCK
    while data := file.read(min(_CHUNK_BYTES, end - here)):
        rest = data.lstrip(b"\0")
        if rest:
            here += len(data) - len(rest)
            break
        here += len(data)
    if here >= end:
        return None
    file.seek(here)
    try:
        tarfile.TarInfo.frombuf(file.read(_BLOCK), "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        mend = "pack it again"
        if path.name == name:
            quoted = shlex.quote(str(path))
            mend = f"if the download is whole, cut that off: truncate -s {here} {quoted}"
        raise InputError(
            f"{path}: {name} goes on at byte {here:,}, after its end, with something that is no tar; {mend}"
        ) from None
    return here


def _no_tar(path: Path, file: IO[bytes], name: str, start: int, end: int, what: str) -> InputError:
    """Return the refusal of a file that is no whole tar; `what` is said where its first bytes tell nothing."""
    file.seek(start)
    head = file.read(min(HEAD_BYTES, end - start))
    said = what_instead(head, path, None if start == 0 else name) or f"{what}; download it again"
    return InputError(f"{path}: {said}" if start == 0 and name == path.name else f"{path}: {name} {said}")


@lru_cache(maxsize=1 << 10)  # members lie side by side
def folder_names(folder: bytes) -> tuple[str, ...]:
    """Return the names in a folder's path, the outermost first."""
    names = _place(folder).decode("utf-8", "surrogateescape").split("/")
    return tuple(name for name in names if name.strip("."))  # . and .. are no names


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _place(name: bytes) -> bytes:
    """Return where a member would lie: `./a.jpg` and `a.jpg` are one file."""
    if b"./" in name or b"//" in name or name.startswith(b"/"):
        return posixpath.normpath(name).lstrip(b"/")
    return name


def is_junk_path(name: str) -> bool:
    """Say whether a member, or a folder that it lies in, is hidden or left behind by some system."""
    folder, _, last = name.rpartition("/")
    return is_junk(last) or _in_junk_folder(folder)


@lru_cache(maxsize=1 << 10)
def _in_junk_folder(folder: str) -> bool:
    return any(is_junk(part) for part in folder.split("/") if part.strip("."))
