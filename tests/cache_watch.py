"""Watch from a thread of its own that a cache folder never holds more than it may."""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def watched(folder: Path, limit: int) -> Iterator[None]:
    """Count the bytes below a folder all the time while a block runs; they must never be more than `limit`."""
    ended, most = threading.Event(), [0]

    def watch() -> None:
        while not ended.wait(0.0005):
            most[0] = max(most[0], bytes_below(folder) or 0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
    assert 0 < most[0] <= limit


def bytes_below(folder: Path) -> int | None:
    """Return the bytes of all files; None where files came or went meanwhile, so that the sum is of no moment."""
    with contextlib.suppress(FileNotFoundError):
        before = sorted(folder.rglob("*"))
        count = sum(path.lstat().st_size for path in before if not path.is_dir())
        return count if sorted(folder.rglob("*")) == before else None
    return None
