"""Read one split: any sample's bytes, label and key by its id, from memory-mapped tars."""

import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alexnet.shards.errors import InputError
from alexnet.shards.index import read_index
from alexnet.shards.manifest import Manifest, ShardRecord, Split, read_manifest

_HEADER_BYTES = 512
_NAME_BYTES = 100


class SplitReader:
    """Give random access to a split's samples, ids 0..N-1 in the order of the shards.

    `labels`: int32 (N,). Opening checks every tar's size against the manifest and maps none of them; a tar is mapped
    when its first sample is asked for. Raises InputError for a data set that is missing, incomplete or altered in
    size.
    """

    def __init__(self, root: Path, split: Split) -> None:
        self.root = root
        self.split = split
        self.manifest: Manifest = read_manifest(root)
        self.shards: tuple[ShardRecord, ...] = self.manifest.shards_of(split)
        _check_sizes(root, self.shards)
        self._rows = read_index(root, self.manifest, split)
        self.labels: npt.NDArray[np.int32] = np.ascontiguousarray(self._rows["label"])
        self._maps: dict[int, npt.NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def jpeg(self, sample_id: int) -> npt.NDArray[np.uint8]:
        """Return a sample's JPEG bytes as a read-only uint8 view into the mapped tar; nothing is copied."""
        row = self._rows[sample_id]
        offset = int(row["offset"])
        return self._tar(int(row["shard"]))[offset : offset + int(row["length"])]

    def key(self, sample_id: int) -> str:
        """Return a sample's WebDataset key, read from its tar header."""
        row = self._rows[sample_id]
        header = int(row["offset"]) - _HEADER_BYTES
        name = self._tar(int(row["shard"]))[header : header + _NAME_BYTES].tobytes().split(b"\0", 1)[0]
        return name.decode("ascii").removesuffix(".jpg")

    def shard(self, sample_id: int) -> ShardRecord:
        """Return the shard that holds a sample."""
        return self.shards[int(self._rows["shard"][sample_id])]

    def jpeg_bytes(self) -> int:
        """Return the bytes of all JPEGs of the split together."""
        return int(self._rows["length"].sum(dtype=np.int64))

    def close(self) -> None:
        """Forget the maps; each is unmapped when the last view into it is gone."""
        self._maps.clear()

    def _tar(self, number: int) -> npt.NDArray[np.uint8]:
        if number not in self._maps:
            with (self.root / self.shards[number].file).open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._maps[number] = np.frombuffer(mapped, np.uint8)
        return self._maps[number]


def _check_sizes(root: Path, shards: tuple[ShardRecord, ...]) -> None:
    for shard in shards:
        path = root / shard.file
        try:
            size = path.stat().st_size
        except OSError as error:
            raise InputError(
                f"{path}: {error.strerror or error}; the manifest names it, so bring it back from a copy, or rebuild "
                "the data with `alexnet-prep shard`"
            ) from None
        if size != shard.bytes:
            raise InputError(
                f"{path}: has {size:,} bytes where the manifest says {shard.bytes:,}; bring it back from a copy, or "
                "rebuild the data with `alexnet-prep shard`"
            )
