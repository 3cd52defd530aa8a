"""Read one split: any sample's bytes, label and key by its id, from plain tars.

Bytes are read, not mapped: a tar that is cut short while it is mapped kills the process with SIGBUS, a read comes back
short and can name the sample. Copying an image takes 4 us, decoding it 150.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from alexnet.shards.adopted import sample_key
from alexnet.shards.errors import InputError, SampleError, one_line, reason_of
from alexnet.shards.files import map_array, sha256_of
from alexnet.shards.index import IndexRows, read_index
from alexnet.shards.manifest import MEAN_IMAGE_NAME, MEND, Encoding, Manifest, ShardRecord, Split, read_manifest
from alexnet.shards.shard_files import ShardFiles
from alexnet.shards.tar import is_header_of
from alexnet.shards.url import origin_of

if TYPE_CHECKING:  # what needs a network is loaded for a URL
    from alexnet.shards.cache import ShardCache

_NAME_BYTES = 100


@dataclass(frozen=True, kw_only=True)
class StoredSample:
    """Hold one sample as it lies on disk. `stored`: what its `encoding` says, a JPEG or planes."""

    key: str
    shard: str
    label: int
    encoding: Encoding
    stored: bytes


class SplitReader:
    """Give random access to a split's samples, ids 0..N-1 in the order of the shards; from any thread.

    `root`: a data set's folder, or the one that stands in for its URL; `cache`: of such a one, fetch whole shards
    through it, and not each sample by itself. `labels`: int32 (N,). `files`: where the bytes are. `place`: folder or
    URL, for messages. Making one checks every tar's size against the manifest and opens none; a tar is opened when its
    first sample is asked for. Raises InputError for a data set that is missing, incomplete or altered in size, and for
    an index that points nowhere.
    """

    def __init__(self, root: Path, split: Split, cache: "ShardCache | None" = None) -> None:
        self.split, self._cache = split, cache
        self.manifest: Manifest = read_manifest(root)
        self.root = root.absolute()  # shards are opened later, when the process may be in another folder
        self.shards: tuple[ShardRecord, ...] = self.manifest.shards_of(split)
        self._encoding: Encoding = self.manifest.stored.encoding
        url = origin_of(self.root)
        self.place = url or str(self.root)
        if url is None:
            _check_sizes(root, self.shards)
            self.files = ShardFiles(self.place, self.shards)
        else:
            from alexnet.shards.remote import shards_of_url

            self.files = shards_of_url(url, self.shards, cache)
        self._rows = read_index(root, self.manifest, split)
        self.labels: npt.NDArray[np.int32] = np.ascontiguousarray(self._rows["label"])

    def __reduce__(self) -> "tuple[type[Self], tuple[Path, Split, ShardCache | None], str]":
        return type(self), (self.root, self.split, self._cache), self.manifest.digest()

    def __setstate__(self, digest: str) -> None:
        """Finish a copy, made in this process or another, which has opened the files anew."""
        if self.manifest.digest() != digest:
            raise InputError(f"{self.root}: holds other data than when this reader was copied or pickled; make it anew")

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, sample_ids: npt.NDArray[np.int64]) -> IndexRows:
        """Return where samples lie: index rows with `shard`, `offset` and `length`."""
        return self._rows[sample_ids]

    def stored(self, sample_id: int) -> npt.NDArray[np.uint8]:
        """Read a sample's bytes as they are stored, a JPEG or planes: uint8 (length,).

        Raises SampleError if they cannot be had. Any bytes are a picture where they are taken for planes, so those must
        follow the header of this sample; a JPEG's decoder finds out by itself.
        """
        return self.key_and_stored(sample_id)[1]

    def sample(self, sample_id: int) -> StoredSample:
        """Read all of a sample. Raises SampleError as `stored` does."""
        return StoredSample(
            key=self.key(sample_id),
            shard=self.shard(sample_id).file,
            label=int(self.labels[sample_id]),
            encoding=self._encoding,
            stored=self.stored(sample_id).tobytes(),
        )

    def key(self, sample_id: int) -> str:
        """Return a sample's WebDataset key, read from its tar header."""
        row = self._rows[sample_id]
        header = np.empty(_NAME_BYTES, np.uint8)
        self._read(sample_id, int(row["shard"]), int(row["offset"]) - BLOCKSIZE, header)
        return self._key_in(header)

    def key_and_stored(self, sample_id: int) -> tuple[str, npt.NDArray[np.uint8]]:
        """Return `key` and `stored` of a sample, read at once."""
        offset, length, shard, _, place = self._rows[sample_id].tolist()
        data = np.empty(BLOCKSIZE + length, np.uint8)
        self._read(sample_id, shard, offset - BLOCKSIZE, data)
        header = data[:BLOCKSIZE].tobytes()
        if self._encoding != "jpeg" and not is_header_of(header, place, length):
            raise self.error(sample_id, f"its place in the tar holds something else; the data were changed: {MEND}")
        return self._key_in(data), data[BLOCKSIZE:]

    def shard(self, sample_id: int) -> ShardRecord:
        """Return the shard that holds a sample."""
        return self.shards[int(self._rows["shard"][sample_id])]

    def stored_bytes(self) -> int:
        """Return the bytes of all stored images of the split together."""
        return int(self._rows["length"].sum(dtype=np.int64))

    def mean_image(self) -> npt.NDArray[np.float32]:
        """Read the mean of all training images: float32 (size, size, 3), 0-255."""
        path = self.root / MEAN_IMAGE_NAME
        image = read_mean_image(path, self.manifest.size_px, mend=MEND)
        if sha256_of(path) not in {record.sha256 for record in self.manifest.files if record.file == MEAN_IMAGE_NAME}:
            raise InputError(f"{path}: is not the one that the manifest names; {MEND}")
        return image

    def error(self, sample_id: int, reason: str) -> SampleError:
        """Name a sample that cannot be used: its shard, its id, its key if that can still be read, and why."""
        try:
            named = f"sample {sample_id} ({one_line(self.key(sample_id))})"
        except SampleError:
            named = f"sample {sample_id}"
        return SampleError(sample_id, f"{self.place}/{self.shard(sample_id).file}: {named}: {reason}")

    def close(self) -> None:
        """Forget the open tars; each is closed when nobody reads it any more."""
        self.files.close()

    def _key_in(self, header: npt.NDArray[np.uint8]) -> str:
        name = header[:_NAME_BYTES].tobytes().split(b"\0", 1)[0]
        return sample_key(name.decode("ascii", "replace"))

    def _read(self, sample_id: int, shard: int, offset: int, into: npt.NDArray[np.uint8]) -> None:
        name = f"{self.place}/{self.shards[shard].file}"
        try:
            file, place = self.files.span(shard, offset, len(into))
            count = os.preadv(file.descriptor, [into.data], place)
        except OSError as error:
            raise SampleError(sample_id, f"{name}: sample {sample_id}: {error.strerror or error}") from None
        if count != len(into):
            raise SampleError(
                sample_id,
                f"{name}: sample {sample_id}: the tar ends at byte {offset + count:,}, inside it: it was cut short "
                "after this run began; bring it back from a copy",
            )


def _check_sizes(root: Path, shards: tuple[ShardRecord, ...]) -> None:
    for shard in shards:
        path = root / shard.file
        try:
            status = path.stat()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}; the manifest names it, so {MEND}") from None
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: is no regular file; {MEND}")
        if status.st_size != shard.bytes:
            raise InputError(f"{path}: has {status.st_size:,} bytes where the manifest says {shard.bytes:,}; {MEND}")


def read_mean_image(path: Path, size_px: int, *, mend: str) -> npt.NDArray[np.float32]:
    """Read a mean image: float32 (size, size, 3), 0-255. Raises InputError in one line for anything else."""
    try:
        image = map_array(path, np.float32)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({reason_of(error)}); {mend}") from None
    if image.shape != (size_px, size_px, 3):
        raise InputError(f"{path}: is {'x'.join(map(str, image.shape))}: must be {size_px}x{size_px}x3; {mend}")
    if not 0 <= image.min() <= image.max() <= 255:
        raise InputError(f"{path}: holds values that do not lie between 0 and 255; {mend}")
    return np.array(image)
