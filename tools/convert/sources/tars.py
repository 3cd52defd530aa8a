"""Walk tars, and tars inside tars, by their headers: where each file's bytes lie, and nothing more.

A class tar inside the training tar is just a range of it, and an image inside that is a range again. Nothing is ever
extracted, so a member's name can be anything: it is a label for people, never a path. What is listed is what unpacking
would leave, though: of two members of one name the last, and for a link what it links to.
"""

import posixpath
import shlex
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

from alexnet.shards.errors import InputError
from alexnet.tools.convert.listing import Entry
from alexnet.tools.convert.sources.first_bytes import HEAD_BYTES, what_instead
from alexnet.tools.convert.sources.folders import is_junk
from alexnet.tools.convert.sources.layout import Walk
from alexnet.tools.convert.sources.names import Names, shown
from alexnet.tools.convert.sources.tar_headers import open_tar

_BLOCK = 512
_TELL_ENTRIES = 256
_MOST_LINKS = 40  # symbolic links in a row that Linux follows
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Tar:
    """Say where a tar lies: in which file, from which byte, how long; `name`: what errors call one inside another."""

    path: Path
    start: int = 0
    length: int
    name: str

    @classmethod
    def of(cls, path: Path) -> "Tar":
        """Return the tar that is a file."""
        return cls(path=path, length=path.stat().st_size, name=path.name)

    @property
    def end(self) -> int:
        """Return the byte behind the last."""
        return self.start + self.length

    @property
    def where(self) -> str:
        """Name the tar for people, and the one that it is in."""
        return f"{self.path}: {self.name}" if self.start else f"{self.path}"


def list_tar(tar: Tar, walk: Walk, *, in_bytes: bool = True) -> list[Entry]:
    """List the files of a tar; `in_bytes` is how the stage of the walk is measured.

    A link to a file of the same tar is that file under another name. Other links, devices, folders and junk such as
    `.DS_Store` are counted only. A second tar after the end mark is read on.
    Raises InputError if the tar is damaged or cut short, also where it was cut between two members: the end mark tells.
    """
    found = _Unpacked(tar.name, walk)
    with tar.path.open("rb") as file:
        try:
            for member in _members(tar, file, walk, in_bytes=in_bytes):
                if member.issparse() and not is_junk_path(member.name):
                    raise InputError(
                        f"{tar.path}: {member.name} is stored sparse; pack {tar.name} again without --sparse"
                    )
                found.add(member)
        except (tarfile.TarError, OSError) as error:
            raise _no_tar(tar, file, f"cannot be read as a tar ({error})") from None
    return found.entries()


def first_members(tar: Tar, count: int) -> list[tarfile.TarInfo] | None:
    """Return the first few regular files of a tar, or None if it cannot be read."""
    members: list[tarfile.TarInfo] = []
    with tar.path.open("rb") as file:
        file.seek(tar.start)
        try:
            headers = open_tar(file)
            while len(members) < count and (member := headers.next()) is not None:
                if member.isreg() and not is_junk_path(member.name):
                    members.append(member)
        except (tarfile.TarError, OSError):
            return None
    return members


class _Unpacked:
    """Collect what unpacking a tar would leave, and count what it would not."""

    def __init__(self, tar: str, walk: Walk) -> None:
        self._tar, self._walk = tar, walk
        self._files: dict[bytes, Entry] = {}  # by where they would lie
        self._links: dict[bytes, tuple[bytes, bytes]] = {}  # symbolic: own name, and where they lead
        self._junk: set[bytes] = set()

    def add(self, member: tarfile.TarInfo) -> None:
        """Take a member in the tar's order."""
        name, junk = _bytes(member.name), is_junk_path(member.name)
        place = _place(name)
        if member.isreg():
            self._put(place, (name, member.offset_data, member.size))
            if junk:
                self._junk.add(place)  # at the end: a link to it may be none
        elif junk or not (member.islnk() or member.issym()):
            self._walk.ignored += 1
        elif member.issym():
            to = posixpath.join(posixpath.dirname(place), _bytes(member.linkname))
            self._links[place] = (name, posixpath.normpath(to))
        else:
            self._link(place, name, self._files.get(_place(_bytes(member.linkname))))  # which lies before it

    def entries(self) -> list[Entry]:
        """Return the files."""
        links, self._links = self._links, {}
        for place, (name, to) in links.items():
            for _ in range(_MOST_LINKS):
                to = links[to][1] if to in links else to
            self._link(place, name, None if to in links else self._files.get(to))
        self._walk.ignored += sum(self._files.pop(place, None) is not None for place in self._junk)
        return list(self._files.values())

    def _link(self, place: bytes, name: bytes, target: Entry | None) -> None:
        if target is not None:
            self._put(place, (name, *target[1:]))
        else:
            self._walk.ignored += 1
            self._walk.nowhere.append(f"{self._tar}: {shown(name)!r}")

    def _put(self, place: bytes, entry: Entry) -> None:
        if place in self._files:
            self._walk.ignored += 1
            self._walk.replaced += 1
        self._files[place] = entry
        if self._links:
            self._links.pop(place, None)


def _members(tar: Tar, file: IO[bytes], walk: Walk, *, in_bytes: bool) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar, and of tars that follow it, as their headers are read.

    The walk is told of a few hundred at a time: a call for each would cost 2%.
    """
    told, entries = tar.start, 0
    at: int | None = tar.start
    while at is not None:
        file.seek(at)
        headers = open_tar(file)
        while (member := headers.next()) is not None and headers.offset <= tar.end:
            yield member
            entries += 1
            if entries == _TELL_ENTRIES:
                walk.advance((headers.offset - told) * in_bytes, entries)
                told, entries = headers.offset, 0
        at = _next_tar(tar, file, headers.offset)
    walk.advance((tar.end - told) * in_bytes, entries)


def _next_tar(tar: Tar, file: IO[bytes], at: int) -> int | None:
    """Return where another tar begins after the end mark at `at`; None if only zeros follow it.

    `cat one.tar other.tar` gives such files. Raises InputError if there is no end mark, or something else follows it.
    """
    file.seek(at)
    if at + _BLOCK > tar.end or file.read(_BLOCK) != bytes(_BLOCK):
        raise _no_tar(tar, file, f"is damaged or was cut short (no end mark at byte {at:,})")
    here = at + _BLOCK
    while data := file.read(min(_CHUNK_BYTES, tar.end - here)):
        rest = data.lstrip(b"\0")
        here += len(data) - len(rest)
        if rest:
            break
    if here >= tar.end:
        return None
    file.seek(here)
    try:
        tarfile.TarInfo.frombuf(file.read(_BLOCK), "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        cut = f"if the download is whole, cut that off: truncate -s {here} {shlex.quote(str(tar.path))}"
        raise InputError(
            f"{tar.path}: {tar.name} goes on at byte {here:,}, after its end, with something that is no tar; "
            f"{'pack it again' if tar.start else cut}"
        ) from None
    return here


def _no_tar(tar: Tar, file: IO[bytes], what: str) -> InputError:
    """Return the refusal of a file that is no whole tar; `what` is said where its first bytes tell nothing."""
    file.seek(tar.start)
    head = file.read(min(HEAD_BYTES, tar.length))
    said = what_instead(head, tar.path, tar.name if tar.start else None) or f"{what}; download it again"
    return InputError(f"{tar.where} {said}" if tar.start else f"{tar.path}: {said}")


@lru_cache(maxsize=1 << 10)  # members lie side by side
def folder_names(folder: bytes) -> Names:
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
