"""What of a folder a program wrote itself: nothing else is deleted by `--overwrite`."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from alexnet.shards.errors import InputError

_SHOWN = 3  # of the names in a message


@dataclass(frozen=True)
class OwnFiles:
    """Know the files and folders that a program makes, by patterns of their paths, as `train/*.tar`.

    A link is never its own, whatever it is called.
    """

    files: tuple[str, ...]
    folders: tuple[str, ...]

    def foreign(self, root: Path) -> list[str]:
        """Return what else is in a folder, however deep, by its path there."""
        return sorted(path.relative_to(root).as_posix() for path in _below(root) if not self._has(root, path))

    def refuse_foreign(self, root: Path) -> None:
        """Raise InputError if a folder that is to be deleted holds anything else."""
        if foreign := self.foreign(root):
            more = f" and {len(foreign) - _SHOWN:,} more" if len(foreign) > _SHOWN else ""
            raise InputError(
                f"--overwrite: {root} also holds {', '.join(foreign[:_SHOWN])}{more}, so nothing was deleted; move it "
                "away, and what is a link, replace by what it leads to"
            )

    def delete(self, root: Path, last: tuple[Path, ...]) -> None:
        """Delete the program's own, and `last` after all else, so that until then the folder shows whose it is."""
        for path in sorted(_below(root), key=lambda path: path in last):
            if self._has(root, path):
                path.rmdir() if path.is_dir() else path.unlink()

    def _has(self, root: Path, path: Path) -> bool:
        mode, below = path.lstat().st_mode, PurePosixPath("/", path.relative_to(root))
        patterns = self.files if stat.S_ISREG(mode) else self.folders if stat.S_ISDIR(mode) else ()
        return any(below.match(f"/{pattern}") for pattern in patterns)


def _below(root: Path) -> list[Path]:
    """Return all that is in a folder, and in those below, which come after what is in them; links are not followed."""

    def fail(error: OSError) -> None:
        raise error

    walked = os.walk(root, topdown=False, onerror=fail) if root.exists() else ()
    return [Path(folder, name) for folder, folders, files in walked for name in sorted((*files, *folders))]
