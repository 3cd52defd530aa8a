"""An output folder: one writer at a time, no file of anybody else's deleted, and a word on too little disk space.

The lock is one on the folder itself, which the kernel drops with the process, however that ends. It leaves no file. It
is of the folder, not of its name: a folder and a symbolic link to it are one. Only who holds a folder removes it, and
that it is still the one of its name is looked at when it is held.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from alexnet.shards.errors import InputError
from alexnet.shards.url import as_url

WORK = ".work"
"""Where a folder holds what is needed until it is complete."""
JOB = f"{WORK}/job.json"
"""What says whose a folder is that is not complete."""

_TRIES = 100
"""At a folder that others, who hold it for a moment, remove again: a few are seen. In /proc none can ever be made."""
_SHOWN = 3  # of the names in a message
_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def beside(source: Path, ending: str) -> Path:
    """Return where a data set goes if nobody says: beside its source, under that one's name with an ending."""
    named = source.resolve() if source.name in ("", "..") else source
    if not named.name:
        raise InputError(f"{source}: nothing lies beside it; give --out")
    return named.with_name(f"{named.name}{ending}")


@contextmanager
def locked(folder: Path, program: str) -> Iterator[Callable[[], None]]:
    """Hold a folder for this process alone; make it, and those around it, if there is none.

    What was made is removed again if it is still empty at the end. Yields a check that the folder is still the one of
    its name: somebody may delete it, and another run make it anew. Raises InputError if another `program` holds it, if
    it cannot be made, or for a URL; so does the check.
    """
    if url := as_url(folder):
        raise InputError(f"--out {url}: is written by `alexnet-prep shard` and `decode` only; give a folder")
    handle, made = _lock(folder, program)

    def check() -> None:
        if not _is_still(folder, handle):
            raise InputError(f"{folder}: was deleted or moved while {program} wrote there; give the same command again")

    try:
        yield check
    finally:
        with contextlib.suppress(OSError):
            for path in made if _is_still(folder, handle) else ():
                path.rmdir()  # nothing came of it; a folder that holds anything stays
        os.close(handle)


def _lock(folder: Path, program: str) -> tuple[int, list[Path]]:
    """Return the held folder's descriptor, and which folders were not there, the innermost first."""
    try:
        absent = [path for path in (folder, *folder.parents) if not path.exists()]
        for _ in range(_TRIES):
            with contextlib.suppress(FileNotFoundError):  # removed before it was opened
                folder.mkdir(parents=True, exist_ok=True)
                handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                if _lock_opened(folder, handle):
                    return handle, absent
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    except BlockingIOError:
        raise InputError(f"{folder}: another {program} is writing there; wait for it, or take another folder") from None
    except OSError as error:
        raise InputError(f"--out {folder}: {error.strerror}; give a folder that can be written") from None


def _lock_opened(folder: Path, handle: int) -> bool:
    """Lock an open folder; close it where that fails, or where who held it removed it, empty, before it was ours."""
    held = False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = _is_still(folder, handle)
    finally:
        if not held:
            os.close(handle)
    return held


def _is_still(folder: Path, handle: int) -> bool:
    """Say whether a path leads to the folder that is held."""
    try:
        return os.path.samestat(folder.stat(), os.fstat(handle))
    except OSError:
        return False


@dataclass(frozen=True)
class OwnFiles:
    """Know the files and folders that a program makes, by patterns of their paths, as `train/*.tar`.

    A link is never its own, whatever it is called.
    """

    files: tuple[str, ...]
    folders: tuple[str, ...]

    def knows(self, name: str) -> bool:
        """Say whether a file of this path would be the program's own."""
        path = PurePosixPath("/", name)
        return str(path) == f"/{name}" and any(path.match(f"/{pattern}") for pattern in self.files)

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


def needed_and_free(needed: float, free: float) -> str:
    """Name two numbers of bytes, in the unit that suits the greater and with as many digits as tell them apart."""
    unit, scale = next((unit for unit in _UNITS if needed >= unit[1]), _UNITS[-1])
    for digits in range(1, 4):
        wanted, there = (f"{value / scale:,.{digits}f} {unit}" for value in (needed, free))
        if wanted != there:
            break
    return f"about {wanted} are needed and {there} are free"
