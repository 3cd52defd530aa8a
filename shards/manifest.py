"""The manifest: what a data set is, written last, so that a folder that has one is complete; and the list of rejects.

It holds no time, host, path or worker count: the same source, seed and library versions give the same bytes.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from msgspec import Meta

from alexnet.shards.colour import ColourStatistics
from alexnet.shards.errors import InputError, reason_of
from alexnet.shards.files import MAX_JSON_BYTES, as_typed, of_type, open_regular, read_bytes
from alexnet.shards.planes import planes_bytes

SCHEMA = 1
MANIFEST_NAME = "manifest.json"
INDEX_NAME = "index.npy"
MEAN_IMAGE_NAME = "mean_image.npy"
REJECTED_NAME = "rejected.jsonl"
FILES = (INDEX_NAME, MEAN_IMAGE_NAME, REJECTED_NAME)

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")

Encoding = Literal["jpeg", "planes-420"]
"""What a sample is stored as: a JPEG, or the planes that its decoder makes of it (`alexnet.shards.planes`)."""

MAX_IMAGES = 100_000_000  # of a split: a key gives a place in it eight digits
MAX_SIZE_PX = 4096
ImageCount = Annotated[int, Meta(ge=0, le=MAX_IMAGES)]
SizePx = Annotated[int, Meta(ge=1, le=MAX_SIZE_PX)]
Quality = Annotated[int, Meta(ge=1, le=100)]
ByteCount = Annotated[int, Meta(ge=0, le=1 << 62)]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]

MEND = "bring it back from a copy, or make the data anew with `alexnet-prep`"

_FEW = Meta(max_length=100)
_MAX_HEAD_BYTES = 1 << 16
_MAX_BYTES_PER_PIXEL = 11  # 1.5 coefficients a pixel of at most 27 bits, each byte perhaps followed by a zero
_MAX_LINE_BYTES = 1 << 18  # a path has at most 4,096 bytes, each of which JSON may write as six
_ADOPTED_FILE = re.compile(r"[^\0\n\r\\]{1,4000}\.tar")
_SHOWN = 100  # characters of a name that is wrong


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRecord:
    """Name one class; its label is its place in the manifest's list: sorted by WNID, but where a user gave an order."""

    wnid: str
    words: str


Classes = Annotated[tuple[ClassRecord, ...], Meta(min_length=1, max_length=1 << 18)]
"""At most 262,144: ImageNet-21k has 21,841 and Google's landmarks 203,094."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """Describe one file. `file`: relative to the data set."""

    file: str
    bytes: ByteCount
    sha256: Sha256


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRecord:
    """Describe one tar. `file` is relative to the data set; `bytes` and `sha256` are those of the whole tar."""

    split: Split
    file: str
    images: ImageCount
    bytes: ByteCount
    sha256: Sha256


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """Count what went in and what came of it; `input == written + rejected` always holds."""

    input: ImageCount
    written: ImageCount
    rejected: ImageCount

    def __post_init__(self) -> None:
        if self.input != self.written + self.rejected:
            raise ValueError(f"input {self.input} is not written {self.written} + rejected {self.rejected}")


@dataclass(frozen=True, kw_only=True)
class StoredSettings:
    """Hold the settings that readers go by.

    `adopted`: the tars were there before, or are planes of such: they have names and keys of their own, and may hold
    fewer images than `shard_images` anywhere.
    """

    size_px: SizePx
    quality: Quality
    shard_images: Annotated[int, Meta(ge=1, lt=MAX_IMAGES)]
    channels: Literal[1, 3] = 3
    encoding: Encoding = "jpeg"
    adopted: bool = False

    @property
    def extension(self) -> str:
        """Return what the names of the tars' samples end in, behind the key and a dot."""
        return "jpg" if self.encoding == "jpeg" else "yuv"

    @property
    def min_sample_bytes(self) -> int:
        """Return what each stored sample has at least; planes have all the same."""
        return 0 if self.encoding == "jpeg" else self.max_sample_bytes

    @property
    def max_sample_bytes(self) -> int:
        """Return what no stored sample exceeds, whatever it shows."""
        if self.encoding == "jpeg":
            return _MAX_HEAD_BYTES + _MAX_BYTES_PER_PIXEL * self.size_px**2
        return planes_bytes(self.size_px, self.size_px)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Hold everything a reader must know before it opens a shard.

    `settings`: what the converter was told (see `stored`; seed, ...). `source`: kind and digest of the listing it came
    from; of planes, the digest of the data set that they were decoded from. `versions`: libraries that shape the bytes.
    """

    schema: int
    settings: Annotated[dict[str, str | int | float | bool | None], _FEW]
    source: Annotated[dict[str, str], _FEW]
    versions: Annotated[dict[str, str], _FEW]
    classes: Classes
    counts: Annotated[dict[str, SplitCounts], _FEW]
    shards: tuple[ShardRecord, ...]
    files: Annotated[tuple[FileRecord, ...], _FEW]
    colour: ColourStatistics
    colour_units: str = (
        "RGB, 0-255 pixel values; covariance and eigenvalues squared pixel values; eigenvector rows in falling order "
        "of eigenvalue; standard_deviations are square roots of the eigenvalues"
    )

    @property
    def stored(self) -> StoredSettings:
        """Return what readers go by of the settings. Raises ValueError if it is not there."""
        return of_type(self.settings, StoredSettings)

    @property
    def size_px(self) -> int:
        """Return the side of the stored square images."""
        return self.stored.size_px

    def shards_of(self, split: Split) -> tuple[ShardRecord, ...]:
        """Return one split's shards in order."""
        return tuple(s for s in self.shards if s.split == split)

    def to_json(self) -> str:
        """Serialise with a fixed layout, so that equal manifests are equal bytes."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"

    def digest(self) -> str:
        """Return the sha256 of the manifest: since it holds the sha256 of every shard, it names the data exactly."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def images_digest(self) -> str:
        """Return what names the images, their order and labels, whichever way they are stored.

        It is the digest of the JPEG data set, of which planes may hold one split alone. A selection of its classes is
        another data set, and has its own.
        """
        whole = self.stored.encoding != "jpeg" and "classes" not in self.source
        return self.source["digest"] if whole else self.digest()


def dali_index_file(tar: str) -> str:
    """Return the path of the index file that DALI wants beside a tar."""
    return f"{tar.removesuffix('.tar')}.idx"


def shard_file(split: Split, number: int) -> str:
    """Return a shard's path inside the data set."""
    return f"{split}/{number:06d}.tar"


@dataclass(frozen=True)
class _AnySchema:
    schema: int


def read_manifest(root: Path) -> Manifest:
    """Read a data set's manifest. Raises InputError if there is none, or one that no data set of this schema has."""
    path = root / MANIFEST_NAME
    try:
        text = read_bytes(path, MAX_JSON_BYTES)
        schema = as_typed(text, _AnySchema).schema
        manifest = as_typed(text, Manifest) if schema == SCHEMA else None
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(_not_a_data_set(root)) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({reason_of(error)}); {MEND}") from None
    if manifest is None:
        raise InputError(
            f"{path}: schema {schema} is {'newer' if schema > SCHEMA else 'unknown'} to this version of alexnet, "
            f"which reads {SCHEMA}; upgrade alexnet, or make the data anew with `alexnet-prep`"
        )
    for problem in _problems(manifest):
        raise InputError(f"{path}: {problem}; {MEND}")
    return manifest


def _problems(manifest: Manifest) -> Iterator[str]:
    """Yield why readers cannot use it: settings, or shards and files that do not add up or would lie elsewhere."""
    try:
        stored = manifest.stored
    except ValueError as error:
        yield str(error).replace("`$", "`$.settings")
        return
    if sorted(manifest.counts) != sorted(SPLITS):
        yield f"counts has the splits {', '.join(manifest.counts)[:_SHOWN]}: must be {' and '.join(SPLITS)}"
        return
    for split in SPLITS:
        yield from _shard_problems(split, stored, manifest.counts[split], manifest.shards_of(split))
    if stored.encoding != "jpeg" and not re.fullmatch("[0-9a-f]{64}", manifest.source.get("digest", "")):
        yield "source has no digest, a sha256: which data set the planes were decoded from"
    if sorted(record.file for record in manifest.files) != sorted(FILES):
        yield f"lists the files {', '.join(r.file[:_SHOWN] for r in manifest.files)}: must be {', '.join(FILES)}"


def _shard_problems(
    split: Split, stored: StoredSettings, counts: SplitCounts, shards: Sequence[ShardRecord]
) -> Iterator[str]:
    images = sum(shard.images for shard in shards)
    if images != counts.written:
        yield f"its {split} shards hold {images:,} images where counts says {counts.written:,} written"
    if not stored.adopted and len(shards) != -(-counts.input // stored.shard_images):
        yield f"has {len(shards)} {split} shards where {counts.input:,} images make {stored.shard_images:,} a shard"
    before = ""
    for number, file in enumerate(shard.file for shard in shards):
        if stored.adopted and stored.encoding == "jpeg":
            if not _ADOPTED_FILE.fullmatch(file) or {"", ".", ".."}.intersection(file.split("/")) or file <= before:
                yield f"names {file[:_SHOWN]!r} where the path of a tar after {before[:_SHOWN]!r} must be"
        elif file != shard_file(split, number):
            yield f"names {file[:_SHOWN]!r} where {shard_file(split, number)} must be"
        before = file


def _not_a_data_set(root: Path) -> str:
    if not root.exists():
        return f"{root}: there is no such folder; give the folder that `alexnet-prep` wrote"
    if root.name in SPLITS and (root.parent / MANIFEST_NAME).exists():
        return f"{root}: this is one split; give the data set itself, {root.parent}"
    return f"{root}: holds no {MANIFEST_NAME}; give a folder that `alexnet-prep` wrote to the end"


@dataclass(frozen=True, kw_only=True)
class Reject:
    """Say which image of the source was rejected and why: a line of rejected.jsonl. `source`: relative to the source.

    `offset`, `bytes`: where it lies in `source`, the former None in a packed one; earlier versions noted neither, nor
    `sha256`, which is also None where nothing could be read.
    """

    split: Split
    place: Annotated[int, Meta(ge=0, lt=MAX_IMAGES)]
    source: str = ""
    member: str
    offset: ByteCount | None = None
    bytes: ByteCount | None = None
    sha256: Sha256 | None = None
    reason: str

    def __post_init__(self) -> None:
        path = PurePosixPath(self.source)
        if path.is_absolute() or ".." in path.parts or "\0" in self.source:
            raise ValueError(f"its source {self.source!r} does not lie in the source's folder")


def read_rejects(path: Path) -> Iterator[Reject]:
    """Yield what was rejected. Raises OSError, and ValueError in one line, naming the line that is no such record."""
    with os.fdopen(open_regular(path), "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE_BYTES), b""), start=1):
            try:
                yield as_typed(line, Reject, odd_names=True)
            except ValueError as error:
                raise ValueError(f"line {number} is not a record of a rejected image: {error}") from None
