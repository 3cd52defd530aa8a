"""What a source holds: the images found in it, before any is decoded.

ImageNet-21k has 14 million images, and as Python objects they would take gigabytes. A `Listing` keeps them as columns
of numbers and one string of names, about 45 bytes each, and makes a `Member` of a row only when one is asked for. This
file knows nothing of layouts: `alexnet.tools.convert.sources` finds the images.
"""

import hashlib
import os
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from alexnet.shards.manifest import SPLITS, ClassRecord, Split

Encoding = Literal["file", "cifar10", "mnist"]
"""What a member's bytes are: a file that Pillow decodes; 3,072 bytes, planar RGB 32x32; 784 bytes, grey 28x28."""
Entry = tuple[bytes, int, int]
"""Name, offset and length of one file found in a tar or a folder."""
Rows = tuple[int, str, Iterable[Entry]]
"""A label, the file or folder of the source that its files lie in, and the files."""

Opener = Callable[[Path], BinaryIO]
"""Opens a file of a source by its path; goes to other processes, so it must be picklable."""

_MAX_LENGTH = (1 << 32) - 1  # lengths are uint32: a file of 4 GiB is no image, and is rejected unread
_CHUNK_ROWS = 1 << 20
_TAKEN_ROWS = 1 << 16
_HASHED_AS = {"names": "u1", "name_ends": "<u8", "lengths": "<u4", "labels": "<i4"}


@dataclass(frozen=True, slots=True)
class Member:
    """Name one image: a byte range of a file of the source, and the label it has."""

    file: str
    name: str
    offset: int
    length: int
    label: int

    @property
    def is_whole_file(self) -> bool:
        """Say whether the file is the image and nothing else, rather than an archive; none of those begins with one."""
        return not self.offset and self.file.endswith(self.name)

    @property
    def stem(self) -> str:
        """Return the last part of the name, without its ending."""
        return os.path.splitext(os.path.basename(self.name))[0]  # noqa: PTH119, PTH122 (20 us of pathlib)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Listing:
    """Hold the images of one split as columns; iterating, or an index, gives `Member`s.

    `containers`: files or, with `in_folders`, folders, relative to the source. `container`: which of them, int32 (n,).
    `names`: all names in UTF-8, one after the other, uint8; `name_ends`: where each ends, uint32 or uint64 (n,).
    `offsets`: int64 (n,), or empty where all are 0. `lengths`: uint32 (n,), bytes. `labels`: int32 (n,).
    """

    containers: tuple[str, ...]
    in_folders: bool
    container: npt.NDArray[np.int32]
    names: npt.NDArray[np.uint8]
    name_ends: npt.NDArray[np.unsignedinteger[Any]]
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.uint32]
    labels: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Member]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> Member:
        row = range(len(self))[index]
        name = self.name(row).decode("utf-8", "surrogateescape")
        container = self.containers[self.container[row]]
        file = f"{container}/{name}" if self.in_folders and container else name if self.in_folders else container
        offset = int(self.offsets[row]) if len(self.offsets) else 0
        return Member(file, name, offset, int(self.lengths[row]), int(self.labels[row]))

    def find(self, text: str) -> int | None:
        """Return the row of the first member whose name contains some text, or None."""
        wanted, names = text.encode(), self.names.tobytes()
        at = names.find(wanted)
        while at >= 0:
            row = int(np.searchsorted(self.name_ends, at, side="right"))
            if at + len(wanted) <= self.name_ends[row]:  # else it runs over into the next name
                return row
            at = names.find(wanted, at + 1)
        return None

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the columns by their names."""
        columns = ("container", "names", "name_ends", "offsets", "lengths", "labels")
        return {column: getattr(self, column) for column in columns}

    def take(self, rows: npt.NDArray[np.intp]) -> "Listing":
        """Return some members, in the order of their rows."""
        ends = np.concatenate([[0], self.name_ends]).astype(np.int64)
        starts, sizes = ends[rows], np.diff(ends)[rows]
        names = []
        for first in range(0, len(rows), _TAKEN_ROWS):  # eight bytes for each of a name, so not all at once
            size = sizes[first : first + _TAKEN_ROWS]
            begin = starts[first : first + _TAKEN_ROWS] - (np.cumsum(size) - size)
            names.append(self.names[np.repeat(begin, size) + np.arange(size.sum())])
        return replace(
            self,
            container=self.container[rows],
            names=np.concatenate([np.zeros(0, np.uint8), *names]),
            name_ends=np.cumsum(sizes).astype(self.name_ends.dtype),
            offsets=self.offsets[rows] if len(self.offsets) else self.offsets,
            lengths=self.lengths[rows],
            labels=self.labels[rows],
        )

    def ordered(self, *, by_label: bool) -> "Listing":
        """Return the members by name or, `by_label`, by label and then name; of one name, in the order they are in."""
        labels = self.labels if by_label else np.zeros_like(self.labels)
        rows = np.argsort(labels, kind="stable")
        runs = np.split(rows, np.flatnonzero(np.diff(labels[rows])) + 1)
        return self.take(np.concatenate([np.array(sorted(run.tolist(), key=self.name), np.intp) for run in runs]))

    def alike(self) -> Iterator[int]:
        """Yield the rows of which the next has the same name, label and length."""
        same = (np.diff(self.lengths) == 0) & (np.diff(self.labels) == 0)
        return (row for row in np.flatnonzero(same).tolist() if self.name(row) == self.name(row + 1))

    def name(self, row: int) -> bytes:
        """Return the bytes of a member's name."""
        start = int(self.name_ends[row - 1]) if row else 0
        return self.names[start : int(self.name_ends[row])].tobytes()

    @classmethod
    def of(cls, groups: Iterable[Rows] = (), *, in_folders: bool = False) -> "Listing":
        """Make a listing of groups of files, in their order, each sorted by name.

        Its columns grow in place: no second copy is ever made of them.
        """
        containers: dict[str, int] = {}
        container, labels = array("i"), array("i")
        lengths, offsets, ends = array("I"), array("q"), array("Q")
        names = bytearray()
        for label, path, entries in groups:
            number = containers.setdefault(path, len(containers))
            for name, offset, length in sorted(entries):
                container.append(number)
                labels.append(label)
                lengths.append(min(length, _MAX_LENGTH))
                names += name
                ends.append(len(names))
                if not in_folders:
                    offsets.append(offset)
        return cls(
            containers=tuple(containers),
            in_folders=in_folders,
            container=np.asarray(container, np.int32),
            names=np.frombuffer(names, np.uint8) if names else np.zeros(0, np.uint8),
            name_ends=np.asarray(ends).astype(np.uint32 if len(names) < 1 << 32 else np.uint64),
            offsets=np.asarray(offsets, np.int64),
            lengths=np.asarray(lengths, np.uint32),
            labels=np.asarray(labels, np.int32),
        )


def in_name_order(groups: Iterable[Rows], *, in_folders: bool = False) -> Listing:
    """List validation images by name, whatever their classes."""
    rows = sorted((entry, label, path) for label, path, entries in groups for entry in entries)
    return Listing.of(((label, path, [entry]) for entry, label, path in rows), in_folders=in_folders)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Hold what was found: classes in the order of their labels, and each split's members in canonical order.

    Training: by label, then name. Validation: by file name. So the order, the digest and with them the shards are the
    same whether ImageNet lies there in its archives or extracted. A split that the layout does not have is empty.

    `encoding`: see there. `packed`: members have to be unpacked before they can be read by offset.
    `channels`, `size_px`: of images that all have one size, else 3 and None.
    `label_order`, `description`: for people: what a label is; layout, classes and images. `notes`: what is odd about
    the source. `ignored`: links, sockets, devices, folders, hidden files: what was there and is no image. `opener`:
    opens what stands for files that are packed, or on no disk; None where they are read themselves. `since_ns`: when
    listing began, as `time.time_ns` tells it: what was written to the source since ends a conversion.
    """

    root: Path
    kind: str
    classes: tuple[ClassRecord, ...]
    members: Mapping[Split, Listing]
    encoding: Encoding = "file"
    packed: bool = False
    channels: int = 3
    size_px: int | None = None
    label_order: str = "place of the WNID in sorted order"
    description: str = ""
    notes: tuple[str, ...] = ()
    ignored: int = 0
    opener: Opener | None = None
    since_ns: int = field(default_factory=time.time_ns)

    def digest(self, columns: Sequence[str] = ("names", "name_ends", "lengths", "labels")) -> str:
        """Return a sha256 over the classes and every member's name, length and label: the identity of the source.

        Neither its path nor its layout is part of it. 14 million members take a second. `columns`: fewer of them.
        """
        head = [self.encoding, *(record.wnid for record in self.classes)]
        sha256 = hashlib.sha256("\n".join(head).encode("utf-8", "surrogateescape"))
        for split in SPLITS:
            listing = self.members[split]
            sha256.update(f"\n{split} {len(listing)}\n".encode())
            for column in columns:
                values = getattr(listing, column)
                for first in range(0, len(values), _CHUNK_ROWS):
                    sha256.update(values[first : first + _CHUNK_ROWS].astype(_HASHED_AS[column]).tobytes())
        return sha256.hexdigest()


def sizes_of(members: Mapping[Split, Listing]) -> str:
    """Say how many images each split has, for people."""
    return " and ".join(f"{len(members[split]):,} {split}" for split in SPLITS)
