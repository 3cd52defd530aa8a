"""One writer a folder: a lock on the folder itself, which the kernel drops with the process, however that ends.

It leaves no file. It is of the folder, not of its name: one way through a symbolic link and one without meet.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alexnet.shards.errors import InputError


@contextmanager
def locked(folder: Path, program: str) -> Iterator[None]:
    """Hold a folder for this process alone; make it if there is none, and remove it if it is still empty at the end.

    Raises InputError if another `program` holds it, or if it cannot be made.
    """
    handle = _lock(folder, program)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # nothing came of it; a folder that holds anything stays
        os.close(handle)


def _lock(folder: Path, program: str) -> int:
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # removed between the two
            continue
        except OSError as error:
            raise InputError(f"--out {folder}: {error.strerror}; give a folder that can be written") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise InputError(
                f"{folder}: another {program} is writing there; wait for it, or give another --out"
            ) from None
        if _is_still(folder, handle):
            return handle
        os.close(handle)  # whoever held it removed it, empty, before it was ours


def _is_still(folder: Path, handle: int) -> bool:
    """Say whether a path leads to the folder that is held."""
    try:
        return os.path.samestat(folder.stat(), os.fstat(handle))
    except OSError:
        return False
