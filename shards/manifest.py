"""The manifest: what a data set is, written last, so that a folder that has one is complete.

It holds no time, host, path or worker count: the same source, seed and library versions give the same bytes.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alexnet.shards.colour import ColourStatistics
from alexnet.shards.errors import InputError

SCHEMA = 1
MANIFEST_NAME = "manifest.json"
INDEX_NAME = "index.npy"
MEAN_IMAGE_NAME = "mean_image.npy"
REJECTED_NAME = "rejected.jsonl"

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class ClassRecord:
    """Name one class; its label is its place in the manifest's list: sorted by WNID, but where a user gave an order."""

    wnid: str
    words: str


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """Describe one tar. `file` is relative to the data set; `bytes` and `sha256` are those of the whole tar."""

    split: Split
    file: str
    images: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Describe one file beside the shards (the index, the mean image, the rejects)."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """Count what went in and what came of it; `input == written + rejected` always holds."""

    input: int
    written: int
    rejected: int

    def __post_init__(self) -> None:
        if self.input != self.written + self.rejected:
            raise ValueError(f"input {self.input} is not written {self.written} + rejected {self.rejected}")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Hold everything a reader must know before it opens a shard.

    `settings`: what the converter was told (size_px, quality, shard_images, seed, ...). `source`: kind and digest of
    the listing it came from. `versions`: libraries that shape the bytes.
    """

    schema: int
    settings: dict[str, Any]
    source: dict[str, str]
    versions: dict[str, str]
    classes: tuple[ClassRecord, ...]
    counts: dict[str, SplitCounts]
    shards: tuple[ShardRecord, ...]
    files: tuple[FileRecord, ...]
    colour: ColourStatistics
    colour_units: str = (
        "RGB, 0-255 pixel values; covariance and eigenvalues squared pixel values; eigenvector rows in falling order "
        "of eigenvalue; standard_deviations are square roots of the eigenvalues"
    )

    @property
    def size_px(self) -> int:
        """Return the side of the stored square images."""
        return int(self.settings["size_px"])

    def shards_of(self, split: Split) -> tuple[ShardRecord, ...]:
        """Return one split's shards in order."""
        return tuple(s for s in self.shards if s.split == split)

    def to_json(self) -> str:
        """Serialise with a fixed layout, so that equal manifests are equal bytes."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"

    def digest(self) -> str:
        """Return the sha256 of the manifest: since it holds the sha256 of every shard, it names the data exactly."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def read_manifest(root: Path) -> Manifest:
    """Read a data set's manifest. Raises InputError if there is none, or one this version cannot read."""
    path = root / MANIFEST_NAME
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(_not_a_data_set(root)) from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}); rebuild it with `alexnet-prep shard`") from None
    schema = fields.get("schema") if isinstance(fields, dict) else None
    if schema != SCHEMA:
        older_or_newer = "newer" if isinstance(schema, int) and schema > SCHEMA else "unknown"
        raise InputError(
            f"{path}: schema {schema!r} is {older_or_newer} to this version of alexnet, which reads {SCHEMA}; "
            "upgrade alexnet, or rebuild the data with `alexnet-prep shard`"
        )
    try:
        return _from_json(fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a manifest ({error!r}); rebuild it with `alexnet-prep shard`") from None


def _from_json(fields: Mapping[str, Any]) -> Manifest:
    return Manifest(
        schema=fields["schema"],
        settings=dict(fields["settings"]),
        source=dict(fields["source"]),
        versions=dict(fields["versions"]),
        classes=tuple(ClassRecord(**c) for c in fields["classes"]),
        counts={split: SplitCounts(**counts) for split, counts in fields["counts"].items()},
        shards=tuple(ShardRecord(**s) for s in fields["shards"]),
        files=tuple(FileRecord(**f) for f in fields["files"]),
        colour=ColourStatistics.from_json(fields["colour"]),
        colour_units=fields["colour_units"],
    )


def _not_a_data_set(root: Path) -> str:
    if not root.exists():
        return f"{root}: there is no such folder; give the folder that `alexnet-prep shard` wrote"
    if root.name in SPLITS and (root.parent / MANIFEST_NAME).exists():
        return f"{root}: this is one split; give the data set itself, {root.parent}"
    return f"{root}: holds no {MANIFEST_NAME}; give a folder that `alexnet-prep shard` wrote to the end"
