"""What a source holds: the members found in it, before any is decoded."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from alexnet.shards.manifest import ClassRecord, Split


@dataclass(frozen=True, slots=True)
class Member:
    """Name one image: a byte range of a file of the source, and the label it has."""

    file: str
    name: str
    offset: int
    length: int
    label: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """Hold what was found: classes sorted by WNID, and each split's members in canonical order.

    Training: by WNID, then name. Validation: by file name. The order does not depend on the archives' own.
    """

    root: Path
    kind: str
    classes: tuple[ClassRecord, ...]
    members: dict[Split, tuple[Member, ...]]

    def digest(self) -> str:
        """Return a sha256 over every member's name, length and label: the identity of the source, without its path."""
        sha256 = hashlib.sha256()
        for split, members in self.members.items():
            for m in members:
                sha256.update(f"{split} {m.file} {m.name} {m.length} {m.label}\n".encode())
        return sha256.hexdigest()
