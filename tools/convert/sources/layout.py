"""What every layout gives: what it consists of, which tells whether it has changed, and how to list it."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.sources.folders import stamps
from alexnet.tools.convert.sources.walk import Walk

_VERSION = 2  # of what an index means; a new one makes every cached index stale
_NAMES = ("utf-8", "surrogateescape")  # a file's name can be any bytes


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Hold a recognised source before it is listed.

    `files`: those that are read for the list. `trees`: folders that are walked for it. `read` makes the list, and tells
    a `Walk` how far it is: minutes where there are millions of images. `size_px`: of images that all have one size.
    """

    kind: str
    root: Path
    files: tuple[Path, ...]
    trees: tuple[Path, ...] = ()
    read: Callable[[Walk], Source]
    size_px: int | None = None

    def key(self, walk: Walk | None = None) -> str:
        """Return a sha256 that changes when a file's size or mtime, or a folder's mtime or number of entries, does."""
        sha256 = hashlib.sha256(f"{_VERSION} {self.kind}\n".encode())
        for path in self.files:
            state = path.stat() if path.exists() else None
            stamp = f"{state.st_size} {state.st_mtime_ns}" if state else "absent"
            sha256.update(f"{os.path.relpath(path, self.root)} {stamp}\n".encode(*_NAMES))
        if walk and self.trees:
            walk.begin("changes", "folders")
        for tree in self.trees:
            for name, mtime_ns, entries in stamps(tree):
                place = os.path.relpath(tree / name, self.root)
                sha256.update(f"{place} {mtime_ns} {entries}\n".encode(*_NAMES))
                if walk:
                    walk.advance(1)
        return sha256.hexdigest()
