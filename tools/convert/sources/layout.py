"""What every layout gives: its files and how to list them (`Layout`), one pass over them (`Walk`), and the kept list.

The pass over the headers of 14 million images takes minutes, so its result is kept in one file: NumPy's npz without
pickles, the columns as they are, everything else as JSON. It is good only for the key it was made with; a torn or
foreign file is taken for none.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from alexnet.shards.files import replacing
from alexnet.shards.manifest import SPLITS, ClassRecord
from alexnet.tools.convert.known import naming
from alexnet.tools.convert.listing import Listing, Source
from alexnet.tools.convert.sources.folders import stamps
from alexnet.tools.progress import Amount

Stage = Literal["changes", "class tars", "train", "val", "md5"]
WalkUnit = Literal["bytes", "folders", "files"]

_TELL_SECONDS = 0.1
_VERSION = 3  # of what an index means; a new one makes every kept index stale
_NAMES = ("utf-8", "surrogateescape")  # a file's name can be any bytes
_OF_THIS_CALL = ("root", "classes", "members", "opener", "since_ns")
_KEPT = [field.name for field in fields(Source) if field.name not in _OF_THIS_CALL]


OnWalk = Callable[[Amount], None]
"""Told how far a pass is, at the beginning and the end of each stage and ten times a second between."""


class Walk:
    """Add up what one pass over a source finds, stage by stage, and what it passes over; and tell how far it is.

    `ignored`: what is not listed; of that, `replaced`: files in tars that a later one of the same name replaces, and
    `nowhere`: links in tars without a file.
    """

    def __init__(self, on_walk: OnWalk = lambda _: None, clock: Callable[[], float] = time.monotonic) -> None:
        self.ignored = self.replaced = 0
        self.nowhere: list[str] = []
        self._on_walk, self._clock = on_walk, clock
        self._stage: tuple[Stage, WalkUnit, int | None] | None = None
        self._entries = self._done = 0
        self._due = 0.0

    def begin(self, stage: Stage, unit: WalkUnit, total: int | None = None) -> None:
        """Begin a stage, and end the one before."""
        self.end()
        self._entries = self._done = 0
        self._stage = (stage, unit, total)
        self._tell()

    def advance(self, done: int, entries: int = 0) -> None:
        """Count what was done of the stage's total, and entries found: some hundred at once, as a call costs 0.2 us."""
        self._done += done
        self._entries += entries
        if self._clock() >= self._due:
            self._tell()

    def end(self) -> None:
        """Tell where the stage ended."""
        self._tell()
        self._stage = None

    def _tell(self) -> None:
        if self._stage is not None:
            stage, unit, total = self._stage
            counts = {"entries": self._entries}
            self._on_walk(Amount(event="index", stage=stage, done=self._done, total=total, unit=unit, counts=counts))
        self._due = self._clock() + _TELL_SECONDS

    def notes(self) -> list[str]:
        """Say where an image in a tar may be missed."""
        nowhere = naming("link in a tar leads", "links in tars lead", " to no file in it", self.nowhere)
        replaced = f"replaced by later entries of the same name, as in unpacking: {self.replaced:,}"
        return [nowhere] * bool(nowhere) + [replaced] * bool(self.replaced)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Hold a recognised source before it is listed.

    `files`: those that are read for the list. `trees`: folders that are walked for it. `read` makes the list, and tells
    a `Walk` how far it is. `size_px`: of images that all have one size. `unpack` writes the images of a packed source
    into a folder, as files that can be read by offset, called by `unpacked_name`; it is told of bytes written.
    """

    kind: str
    root: Path
    files: tuple[Path, ...]
    trees: tuple[Path, ...] = ()
    read: Callable[[Walk], Source]
    size_px: int | None = None
    unpack: Callable[[Source, Path, Callable[[int], None]], None] | None = None

    def key(self, walk: Walk | None = None) -> str:
        """Return a sha256 that changes when a file's size or mtime, or a folder's mtime or number of entries, does."""
        sha256 = hashlib.sha256(f"{_VERSION} {self.kind}\n".encode())
        for path in self.files:
            state = path.stat() if path.exists() else None
            stamp = f"{state.st_size} {state.st_mtime_ns}" if state else "absent"
            sha256.update(f"{os.path.relpath(path, self.root)} {stamp}\n".encode(*_NAMES))
        walk = walk or Walk()
        if self.trees:
            walk.begin("changes", "folders")
        for tree in self.trees:
            for name, mtime_ns, entries in stamps(tree):
                place = os.path.relpath(tree / name, self.root)
                sha256.update(f"{place} {mtime_ns} {entries}\n".encode(*_NAMES))
                walk.advance(1)
        return sha256.hexdigest()


def unpacked_name(container: str) -> str:
    """Return what the unpacked form of a file of the source is called, in a folder of such; no two are called alike."""
    return container.replace("%", "%25").replace("/", "%2F")


def load_index(path: Path, key: str, root: Path) -> Source | None:
    """Return the source that was kept under this key, or None."""
    try:
        with np.load(path, allow_pickle=False) as file:
            text = json.loads(file["text"].tobytes())
            if text["key"] != key:
                return None
            members = {
                split: Listing(
                    containers=tuple(containers),
                    in_folders=in_folders,
                    **{column: file[f"{split}.{column}"] for column in columns},
                )
                for split, (containers, in_folders, columns) in zip(SPLITS, text["listings"], strict=True)
            }
        kept = {**text["fields"], "notes": tuple(text["fields"]["notes"])}
        classes = tuple(ClassRecord(**record) for record in text["classes"])
        return Source(root=root, classes=classes, members=members, **kept)
    except Exception:  # zip, npy and JSON raise whatever they trip over; none of it matters: the source is there
        return None


def save_index(path: Path, key: str, source: Source) -> None:
    """Keep a source's index; it is whole or not there. A disk that is full or read-only costs only the next start."""
    listings = [source.members[split] for split in SPLITS]
    text = {
        "key": key,
        "fields": {field: getattr(source, field) for field in _KEPT},
        "classes": [asdict(record) for record in source.classes],
        "listings": [(listing.containers, listing.in_folders, list(listing.arrays())) for listing in listings],
    }
    arrays: dict[str, npt.NDArray[Any]] = {"text": np.frombuffer(json.dumps(text).encode(), np.uint8)}
    for split, listing in zip(SPLITS, listings, strict=True):
        arrays |= {f"{split}.{column}": array for column, array in listing.arrays().items()}
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
