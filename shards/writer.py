"""Write shards, whose bytes depend on nothing but their samples, and the SHA256SUMS that lists all files at the end.

Beside each tar lies the index file that DALI wants. A tar is written under another name and renamed when it is whole: a
file called `*.tar` is complete.
"""

import os
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet.shards.errors import InputError
from alexnet.shards.files import CHECKSUMS_NAME, begin_to_put_on_disk, checksum_lines, put_on_disk, replace, sha256_of
from alexnet.shards.index import INDEX_DTYPE, IndexRows
from alexnet.shards.manifest import SPLITS, FileRecord, ShardRecord, Split, read_manifest, shard_file
from alexnet.shards.tar import TarSample, TarWriter, dali_line

_STEM_CHARACTERS = 60
_WRITE_BEHIND_BYTES = 1 << 23
_UNLISTABLE = frozenset("\n\r\\")  # sha256sum escapes them; no file of a data set has one in its name


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image: its place in the split's order, the stem of its source's name, its label and what is stored of it.

    `stored`: bytes, or a view of memory that holds something else once the sample is written.
    """

    place: int
    stem: str
    label: int
    stored: bytes | memoryview

    @property
    def key(self) -> str:
        """Return the WebDataset key: eight digits of place, `_`, the cleaned stem."""
        return f"{self.place:08d}_{re.sub(r'[^A-Za-z0-9_-]', '_', self.stem)[:_STEM_CHARACTERS]}"


def write_shard(
    root: Path, split: Split, number: int, samples: Iterable[Sample], extension: str = "jpg"
) -> tuple[ShardRecord, IndexRows]:
    """Write one tar, still under a partial name, and its DALI index file; return its record and its index rows.

    `extension`: of the images in it (`StoredSettings.extension`). `publish_shard` gives it its name; what must be safe
    before that (sums, rejects) is written in between.
    """
    path = root / shard_file(split, number)
    with partial_of(path).open("wb") as file:
        tar, written, on_its_way = TarWriter(file, extension), list[TarSample](), 0
        for sample in samples:
            written.append(tar.add(sample.key, sample.place, sample.label, sample.stored))
            if tar.bytes - on_its_way >= _WRITE_BEHIND_BYTES:
                file.flush()
                begin_to_put_on_disk(file.fileno(), on_its_way, tar.bytes)
                on_its_way = tar.bytes
        tar.finish()
    dali_index = path.with_suffix(".idx")
    dali_index.write_text("".join([f"v1.2 {len(written)}\n", *map(dali_line, written)]))
    for file_to_keep in (partial_of(path), dali_index):
        put_on_disk(file_to_keep)
    rows = np.array([(s.offset, s.length, number, s.label, s.place) for s in written], INDEX_DTYPE)
    sha256 = tar.sha256.hexdigest()
    name = shard_file(split, number)
    return ShardRecord(split=split, file=name, images=len(written), bytes=tar.bytes, sha256=sha256), rows


def publish_shard(root: Path, record: ShardRecord) -> None:
    """Rename a written shard into place: from now on it counts as complete."""
    path = root / record.file
    partial_of(path).replace(path)


def remove_partials(root: Path) -> None:
    """Delete what killed writers left; for when nobody writes."""
    for pattern in (f"*{CHECKSUMS_NAME}.partial", *(f"{split}/*.partial" for split in SPLITS)):
        for path in root.glob(pattern):
            path.unlink()


def partial_of(path: Path) -> Path:
    """Name a file that is being written, after machine and process: another may write the same shard anew."""
    return path.with_name(f"{path.stem}.{socket.gethostname()}-{os.getpid()}.partial")


def file_record(root: Path, name: str) -> FileRecord:
    """Describe a file of the data set by size and sha256."""
    return FileRecord(file=name, bytes=(root / name).stat().st_size, sha256=sha256_of(root / name))


def write_checksums(root: Path) -> None:
    """List every file of a finished data set in its SHA256SUMS, whole or not at all.

    The shards' sha256 are the manifest's, so that they need not be read again; everything else is hashed. Raises
    InputError if the manifest cannot be read or a file's name cannot be listed.
    """
    known = {shard.file: shard.sha256 for shard in read_manifest(root).shards}
    names = set(entries_below(root)) - {CHECKSUMS_NAME, f".{CHECKSUMS_NAME}.partial"}
    for name in names:
        if not is_listable(name):
            raise InputError(f"{root}: {name!r} has a line break or a backslash in its name; rename it")
    sha256 = {name: known.get(name) or sha256_of(root / name) for name in names if (root / name).is_file()}
    replace(root / CHECKSUMS_NAME, checksum_lines(sha256))


def is_listable(name: str) -> bool:
    """Say whether SHA256SUMS can have a line with this name."""
    return _UNLISTABLE.isdisjoint(name)


def entries_below(root: Path) -> list[str]:
    """Return the path, relative to `root`, of everything in it but folders, sorted by its bytes.

    A folder that is empty, or cannot be looked into, counts and ends in `/`. Links are not followed, except where a
    whole split is one.
    """
    found, folders = [], [""]
    while folders:
        here = folders.pop()
        try:
            entries = [(here + entry.name, entry.is_dir(follow_symlinks=False)) for entry in os.scandir(root / here)]
        except OSError:
            found.append(here or "./")
            continue
        for name, is_folder in entries:
            is_folder = is_folder or (name in SPLITS and (root / name).is_dir())
            (folders if is_folder else found).append(name + "/" * is_folder)
        if not entries and here.rstrip("/") not in ("", *SPLITS):
            found.append(here)
    return sorted(found, key=os.fsencode)
