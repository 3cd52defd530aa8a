"""rejected.jsonl: the images of the source that are not in the data set, a JSON object a line."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

from msgspec import Meta

from alexnet.shards.files import as_typed, open_regular
from alexnet.shards.manifest import ByteCount, Sha256, Split

_MOST_LINE_BYTES = 1 << 18  # a path has at most 4,096 bytes, each of which JSON may write as six


@dataclass(frozen=True, kw_only=True)
class Reject:
    """Say which image was rejected and why; `source` is relative to the source's folder.

    `offset`, `bytes`: where it lies in `source`; earlier versions noted neither, nor `sha256`, which is also None where
    nothing could be read.
    """

    split: Split
    place: Annotated[int, Meta(ge=0, le=99_999_999)]
    member: str
    reason: str
    source: str = ""
    offset: ByteCount | None = None
    bytes: ByteCount | None = None
    sha256: Sha256 | None = None

    def __post_init__(self) -> None:
        path = PurePosixPath(self.source)
        if path.is_absolute() or ".." in path.parts or "\0" in self.source:
            raise ValueError(f"its source {self.source!r} does not lie in the source's folder")


def read_rejects(path: Path) -> Iterator[Reject]:
    """Yield what was rejected. Raises OSError, and ValueError in one line, naming the line that is no such record."""
    with os.fdopen(open_regular(path), "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_MOST_LINE_BYTES), b""), start=1):
            try:
                yield as_typed(line, Reject, odd_names=True)
            except ValueError as error:
                raise ValueError(f"line {number} is not a record of a rejected image: {error}") from None
