"""SHA256SUMS: the list that lets anybody check a data set with coreutils alone, `sha256sum -c SHA256SUMS`.

Written last, it names every other file of the data set, sorted by path, each with its sha256. It is plain text of one
form only (lower-case digits, two spaces, a path relative to the data set), so a reader can tell any altered byte.
"""

import hashlib
import io
import itertools
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.shards.files import open_regular, read_bytes, replace
from alexnet.shards.manifest import SPLITS, read_manifest

CHECKSUMS_NAME = "SHA256SUMS"

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_MOST_BYTES = 1 << 26  # 67 MB: 400,000 shards with a line for each tar and `.idx` file
_MOST_FAULTS = 1000
_UNLISTABLE = ("\n", "\r", "\\")  # sha256sum escapes them; no file of a data set has one in its name


@dataclass(frozen=True, kw_only=True)
class Checksums:
    """Hold what a SHA256SUMS says: the sha256 by path, and the lines that are not as `write_checksums` writes them."""

    sha256: dict[str, str]
    faults: tuple[str, ...]


def write_checksums(root: Path) -> None:
    """List every file of a finished data set in its SHA256SUMS, whole or not at all.

    The shards' sha256 are the manifest's, so that they need not be read again; everything else is hashed. Raises
    InputError if the manifest cannot be read or a file's name cannot be listed.
    """
    known = {shard.file: shard.sha256 for shard in read_manifest(root).shards}
    lines = []
    for name in _listable(root):
        if any(character in name for character in _UNLISTABLE):
            raise InputError(f"{root}: {name!r} has a line break or a backslash in its name; rename it")
        lines.append(checksum_line(name, known[name] if name in known else sha256_of(root / name)))
    replace(root / CHECKSUMS_NAME, b"".join(lines))


def read_checksums(root: Path) -> Checksums:
    """Parse SHA256SUMS; what is not in the one form goes to `faults`. Raises OSError, ValueError if it is too large."""
    sha256: dict[str, str] = {}
    faults: list[str] = []
    content = read_bytes(root / CHECKSUMS_NAME, _MOST_BYTES)
    for number, line in enumerate(io.BytesIO(content), start=1):
        match = _LINE.fullmatch(os.fsdecode(line.removesuffix(b"\n")))
        if len(faults) == _MOST_FAULTS:
            break
        if match is None:
            faults.append(f"line {number} is not 64 hexadecimal digits, two spaces and a path")
        elif match[2] in sha256:
            faults.append(f"line {number} lists {match[2]} a second time")
        else:
            sha256[match[2]] = match[1]
    if not faults and content != b"".join(checksum_line(name, sha256[name]) for name in _by_bytes(sha256)):
        faults.append("is not sorted by path with a line break after each line")
    return Checksums(sha256=sha256, faults=tuple(faults))


def entries_below(root: Path) -> list[str]:
    """Return the path, relative to `root`, of everything in it but folders.

    A folder that is empty, or cannot be looked into, counts and ends in `/`. Links are not followed, except where a
    whole split is one. Sorted by the bytes of the path.
    """
    tops = [root, *(root / split for split in SPLITS if (root / split).is_symlink())]
    found = []

    def closed(error: OSError) -> None:
        found.append(f"{Path(error.filename).relative_to(root).as_posix()}/")

    for folder, folders, files in itertools.chain.from_iterable(os.walk(top, onerror=closed) for top in tops):
        here = Path(folder).relative_to(root)
        links = [
            name for name in folders if (Path(folder) / name).is_symlink() and (here / name).as_posix() not in SPLITS
        ]
        found += [(here / name).as_posix() for name in (*files, *links)]
        if not folders and not files and here.as_posix() not in (".", *SPLITS):
            found.append(f"{here.as_posix()}/")
    return _by_bytes(found)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, read in pieces."""
    with os.fdopen(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum_line(name: str, sha256: str) -> bytes:
    """Return a file's line."""
    return f"{sha256}  ".encode() + os.fsencode(name) + b"\n"


def _listable(root: Path) -> list[str]:
    own = (CHECKSUMS_NAME, f".{CHECKSUMS_NAME}.partial")
    return [name for name in entries_below(root) if name not in own and (root / name).is_file()]


def _by_bytes(names: Iterable[str]) -> list[str]:
    return sorted(names, key=os.fsencode)
