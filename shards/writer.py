"""Write one shard: a WebDataset tar whose bytes depend on nothing but its samples.

The standard library's `tarfile` with every field fixed, because webdataset's own writer stamps the time and sorts
fields. Beside each tar lies the index file that DALI's `fn.readers.webdataset` wants. A tar is written under another
name and renamed when it is whole: a file called `*.tar` is complete.
"""

import hashlib
import io
import os
import re
import socket
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from alexnet.shards.index import IndexRows, rows_of
from alexnet.shards.manifest import SPLITS, FileRecord, ShardRecord, Split

_BLOCK_BYTES = 512
_STEM_CHARACTERS = 60


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One encoded image: its place in the split's order, the stem of its source's name, its label and JPEG bytes."""

    place: int
    stem: str
    label: int
    jpeg: bytes

    @property
    def key(self) -> str:
        """Return the WebDataset key: eight digits of place, `_`, the cleaned stem."""
        return f"{self.place:08d}_{re.sub(r'[^A-Za-z0-9_-]', '_', self.stem)[:_STEM_CHARACTERS]}"


class _HashingFile(io.RawIOBase):
    """Pass writes through and hash them: the sha256 of a tar costs no second read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        buffer = cast(bytes, data)
        self.sha256.update(buffer)
        return self._file.write(buffer)

    def tell(self) -> int:
        return self._file.tell()


def shard_file(split: Split, number: int) -> str:
    """Return a shard's path inside the data set."""
    return f"{split}/{number:06d}.tar"


def write_shard(root: Path, split: Split, number: int, samples: Iterable[Sample]) -> tuple[ShardRecord, IndexRows]:
    """Write one tar, still under a partial name, and its DALI index file; return its record and its index rows.

    `publish_shard` gives it its name; what must be safe before that (sums, rejects) is written in between.
    """
    path = root / shard_file(split, number)
    partial = _partial(path)
    places: list[tuple[int, int, int, int]] = []
    dali_lines: list[str] = []
    with partial.open("wb") as file:
        hashing = _HashingFile(file)
        with tarfile.open(fileobj=cast(IO[bytes], hashing), mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for sample in samples:
                jpeg = _add(tar, f"{sample.key}.jpg", sample.jpeg)
                label = _add(tar, f"{sample.key}.cls", str(sample.label).encode())
                places.append((jpeg[0], jpeg[1], sample.label, sample.place))
                dali_lines.append(
                    f"jpg {jpeg[0]} {jpeg[1]} {sample.key}.jpg cls {label[0]} {label[1]} {sample.key}.cls"
                )
        size = file.tell()
        file.flush()
        os.fsync(file.fileno())
    path.with_suffix(".idx").write_text("\n".join([f"v1.2 {len(places)}", *dali_lines]) + "\n")
    digest = hashing.sha256.hexdigest()
    record = ShardRecord(split=split, file=shard_file(split, number), images=len(places), bytes=size, sha256=digest)
    return record, rows_of(number, places)


def publish_shard(root: Path, record: ShardRecord) -> None:
    """Rename a written shard into place: from now on it counts as complete."""
    path = root / record.file
    _partial(path).replace(path)


def remove_partials(root: Path) -> None:
    """Delete what killed writers left; for the end of a conversion, when nobody writes."""
    for split in SPLITS:
        for path in (root / split).glob("*.partial"):
            path.unlink()


def _partial(path: Path) -> Path:
    """Name a file that is being written: no two processes of any machine share one, even over a dead node's shard."""
    return path.with_name(f"{path.stem}.{socket.gethostname()}-{os.getpid()}.partial")


def file_record(root: Path, name: str) -> FileRecord:
    """Describe a file of the data set by size and sha256."""
    with (root / name).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(file=name, bytes=(root / name).stat().st_size, sha256=digest)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> tuple[int, int]:
    """Append one member with fixed metadata; return the offset and length of its data."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mode = 0o444
    member.uname = member.gname = "root"
    offset = tar.offset + _BLOCK_BYTES  # a USTAR header is one block: names here are under 100 characters
    tar.addfile(member, io.BytesIO(data))
    return offset, len(data)
