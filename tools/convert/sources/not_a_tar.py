"""Say what a file is that should be a tar and is none, by its first bytes, and what to do about it.

People download hours of archives, so "download it again" is said only where nothing else helps.
"""

import shlex
from pathlib import Path

HEAD_BYTES = 512
_COMPRESSED = (  # first bytes; what they say; ending and command of the program that unpacks
    (b"\x1f\x8b", "gzipped", ".gz", "gunzip"),
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
_ENDINGS = (".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".lz4")
ARCHIVE_ENDINGS = (".tar", ".zip", ".7z", ".rar", *_ENDINGS)
_LFS = b"version https://git-lfs"


def is_compressed(head: bytes) -> bool:
    """Say whether a file with these first bytes has to be unpacked before anything in it can be read by offset."""
    return head.startswith(tuple(entry[0] for entry in (*_COMPRESSED, *_UNPACKED)))


def what_is(path: Path) -> str | None:
    """Return what a file is that should be a tar, and the mend; None if its first bytes tell nothing."""
    with path.open("rb") as file:
        return what_instead(file.read(HEAD_BYTES), path)


def what_instead(head: bytes, path: Path, inner: str | None = None) -> str | None:
    """Return what a file with these first bytes is, and the mend; None if there is nothing to say.

    `inner`: its name in the tar `path`, where it lies in one.
    """
    if not head:
        return "is empty; download it again"
    if head.startswith(_LFS):
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
        return (
            f"mkdir {folder} && tar -xf {quoted} -C {folder}, then for each file: {bare} <FILE >FILE.tar; "
            f"and give {folder}"
        )
    if path.name.endswith(_ENDINGS):
        return f"{program} {quoted}"
    return f"mv {quoted} {quoted}{ending} && {program} {quoted}{ending}"
