"""Where the files of a data set are that is verified: in a folder, or below a URL (`verify_objects.py`)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alexnet.shards.errors import reason_of
from alexnet.shards.files import CHECKSUMS_NAME
from alexnet.shards.manifest import FILES, MANIFEST_NAME, Manifest, dali_index_file
from alexnet.shards.writer import entries_below


@dataclass(frozen=True)
class FolderFiles:
    """Reach files where they are, below the folder `root`."""

    root: Path

    @property
    def name(self) -> str:
        """Return what people call the place."""
        return str(self.root)

    @property
    def lists(self) -> bool:
        """Say whether `sizes` tells of files that nobody asked for."""
        return True

    def reason_of(self, error: Exception) -> str:
        """Return why a file could not be used; a name in it is that of the place."""
        return reason_of(error).replace(str(self.root), self.name)

    def sizes(self, wanted: Iterable[str]) -> dict[str, int | None]:
        """Return the bytes of all that is there, at least of what is wanted, by path; None of what is no regular file.

        In the order of the paths' bytes.
        """
        paths = ((name, self.root / name) for name in entries_below(self.root))
        return {name: path.stat().st_size if path.is_file() else None for name, path in paths}

    def bring(self, names: Iterable[str]) -> None:
        """Have files below `root` from here on."""

    @contextmanager
    def at_hand(self, name: str) -> Iterator[None]:
        """Have a file below `root` while a block runs."""
        yield


def files_of_set(manifest: Manifest | None, listed: set[str]) -> set[str]:
    """Return the paths of the files that a data set must have; `listed`: those in its SHA256SUMS."""
    files = listed
    if manifest:
        tars = [shard.file for shard in manifest.shards]
        beside = listed if manifest.stored.adopted else ()  # what else lay there stays there
        files = {*tars, *map(dali_index_file, tars), *FILES, *beside}
    return files | {MANIFEST_NAME, CHECKSUMS_NAME}
