"""One writer a folder: a lock on the folder itself, which the kernel drops with the process, however that ends.

It leaves no file. It is of the folder, not of its name: a folder and a symbolic link to it are one. Only who
holds a folder removes it, and that it is still the one of its name is looked at when it is held.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alexnet.shards.errors import InputError

_TRIES = 100
"""At a folder that others, who hold it for a moment, remove again: a few are seen. In /proc none can ever be made."""


@contextmanager
def locked(folder: Path, program: str) -> Iterator[Callable[[], None]]:
    """Hold a folder for this process alone; make it, and those around it, if there is none.

    What was made is removed again if it is still empty at the end. Yields a check that the folder is still the one of
    its name: somebody may delete it, and another run make it anew. Raises InputError if another `program` holds it, or
    if it cannot be made; so does the check.
    """
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
            handle = _try(folder)
            if handle is not None:
                return handle, absent
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    except BlockingIOError:
        raise InputError(f"{folder}: another {program} is writing there; wait for it, or give another --out") from None
    except OSError as error:
        raise InputError(f"--out {folder}: {error.strerror}; give a folder that can be written") from None


def _try(folder: Path) -> int | None:
    """Make, open and lock a folder; None if somebody removed it meanwhile. Raises OSError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:  # removed between the two
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    if _is_still(folder, handle):
        return handle
    os.close(handle)  # whoever held it removed it, empty, before it was ours
    return None


def _is_still(folder: Path, handle: int) -> bool:
    """Say whether a path leads to the folder that is held."""
    try:
        return os.path.samestat(folder.stat(), os.fstat(handle))
    except OSError:
        return False
