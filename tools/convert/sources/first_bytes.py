"""Tell what a file is by its first bytes, and what to do about one that is not what it should be.

People download hours of archives, so "download it again" is said only where nothing else helps. Of images a few are
looked at, never all, so that a wrong folder is not taken for a data set: whether one is whole, only decoding can tell.
"""

import gzip
import io
import os
import shlex
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar, cast

from PIL import Image

from alexnet.shards.errors import InputError
from alexnet.shards.files import open_regular
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.opening import FORMATS, MAX_BYTES, MissingDecoderError, UndecodableError, kind_of, opened
from alexnet.tools.convert.source_files import open_file

T = TypeVar("T")

HEAD_BYTES = 512
_IMAGE_HEAD_BYTES = 1 << 20
_LOOKS = 32  # files or classes that are looked at before a folder is taken for something else
_GZIPPED = b"\x1f\x8b"
_COMPRESSED = (  # first bytes; what they say; ending and command of the program that unpacks
    (_GZIPPED, "gzipped", ".gz", "gunzip"),
    (b"BZh", "compressed by bzip2", ".bz2", "bunzip2"),
    (b"\xfd7zXZ\0", "compressed by xz", ".xz", "unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", ".zst", "unzstd --rm"),
    (b"\x04\x22\x4d\x18", "compressed by lz4", ".lz4", "unlz4 --rm"),
)
_UNPACKED = (  # archives that are no tars, whose content is to lie in a folder
    (b"PK\x03\x04", "a zip archive", "unzip -d"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "7z x -o"),
    (b"Rar!", "a RAR archive", "unrar x -op"),
)
PACKED_TARS = (".tgz", ".tbz2", ".txz", *(f".tar{ending}" for _, _, ending, _ in _COMPRESSED))
NO_TARS = (".zip", ".7z", ".rar")
ARCHIVES = (".tar", *PACKED_TARS, *NO_TARS)
"""Endings of files that hold files."""
COMPRESSED = (*PACKED_TARS, *(ending for _, _, ending, _ in _COMPRESSED))
"""Endings that the programs which unpack take."""


def is_compressed(head: bytes) -> bool:
    """Say whether a file with these first bytes has to be unpacked before anything in it can be read by offset."""
    return head.startswith(tuple(entry[0] for entry in (*_COMPRESSED, *_UNPACKED)))


def what_is(path: Path) -> str | None:
    """Return what a file is that should be a tar, and what to do about it; None if its first bytes tell nothing."""
    with path.open("rb") as file:
        return what_instead(file.read(HEAD_BYTES), path)


def what_instead(head: bytes, path: Path, inner: str | None = None) -> str | None:
    """Return what a file with these first bytes is, and what to do about it; None if there is nothing to say.

    `inner`: its name in the tar `path`, where it lies in one.
    """
    if not head:
        return "is empty; download it again"
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS and not the file itself; fetch that with git lfs pull"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page, and no archive; open it to see what it says; a download may ask for a login"
    for magic, is_what, ending, program in _COMPRESSED:
        if head.startswith(magic):
            how = f"{program.split()[0]} it first: {_command(path, inner, ending, program)}"
            return f"is {is_what} and cannot be read by offset; {how}"
    for magic, is_what, program in _UNPACKED:
        if head.startswith(magic):
            return f"is {is_what} and no tar; unpack it first ({program}) into a folder, and give that"
    return None


def _command(path: Path, inner: str | None, ending: str, program: str) -> str:
    """Return the command that unpacks a file; it wants its own ending there, and may not have it."""
    quoted = shlex.quote(str(path))
    if inner is not None:
        folder, bare = shlex.quote(str(path.with_suffix(""))), program.split()[0]
        unpack = f"mkdir {folder} && tar -xf {quoted} -C {folder}"
        return f"{unpack}, then for each file: {bare} <FILE >FILE.tar; and give {folder}"
    if path.name.endswith(COMPRESSED):
        return f"{program} {quoted}"
    return f"mv {quoted} {quoted}{ending} && {program} {quoted}{ending}"


def is_gzipped(path: Path) -> bool:
    """Say whether a file is gzipped, whatever its name says: people gunzip archives, browsers too."""
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read(len(_GZIPPED)) == _GZIPPED


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that may be gzipped. Raises InputError if it is damaged, also while it is read, and OSError."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            yield cast(IO[bytes], gzip.GzipFile(fileobj=file)) if is_gzipped(path) else file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be unpacked ({error}); download it again") from None


def is_image(file: IO[bytes]) -> bool:
    """Say whether what begins at a file's position is an image, be it one that Pillow cannot decode here."""
    head = file.read(_IMAGE_HEAD_BYTES)
    if kind_of(head) is not None:
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(head), formats=FORMATS):
                return True
    except Exception:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ValueError and more
        return False


def refuse_undecodable(source: Source) -> None:
    """Raise InputError if a few images of a source all need a decoder that is not here, naming it and how to get it."""
    why = ""
    for data in _some(source) if source.encoding == "file" and not source.packed else ():
        try:
            with opened(data):
                return
        except MissingDecoderError as error:
            why = str(error)
        except UndecodableError:
            return
    if why:
        raise InputError(f"{source.root}: none of its pictures can be decoded; {why}")


def _some(source: Source) -> Iterator[bytes]:
    """Yield the files of a few members of a source."""
    opener = source.opener or open_file
    for members in source.members.values():
        for member in map(members.__getitem__, spread(range(len(members)))):
            with suppress(OSError), opener(source.root / member.file) as file:  # which converting will tell
                file.seek(member.offset)
                yield file.read(min(member.length, MAX_BYTES))


def spread(names: Sequence[T]) -> Sequence[T]:
    """Choose a few names, or the like, evenly."""
    return names[:: max(1, -(-len(names) // _LOOKS))]
