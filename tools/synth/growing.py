"""An archive that grows part by part, and of which a killed run leaves the parts that were whole."""

import json
import os
import shutil
from pathlib import Path
from typing import IO

from alexnet.tools.synth.parts import Part, end_of_tar


class GrowingArchive:
    """Append parts to a tar in `work`, and move it to its name when it is whole.

    `parts`: how many it has. A note beside it says so, and how many bytes they are, once they are on the disk: what
    lies beyond was cut short and is written over.
    """

    def __init__(self, target: Path, work: Path) -> None:
        self._target = target
        self._partial = work / f"{target.name}.partial"
        self._note = work / f"{target.name}.json"
        self.parts = self._bytes = 0
        if self._note.exists():
            self.parts, self._bytes = json.loads(self._note.read_text())

    def append(self, part: Part) -> None:
        """Append a part's file, and delete that."""
        with part.path.open("rb") as source, self._open() as file:
            shutil.copyfileobj(source, file, 1 << 20)
            self._bytes = file.tell()
            file.flush()
            os.fsync(file.fileno())
        self.parts += 1
        put_whole(json.dumps([self.parts, self._bytes]).encode(), self._note, self._note.parent)
        part.path.unlink()

    def finish(self) -> None:
        """End the tar and give it its name, unless an earlier call did; without parts there is no tar."""
        if self._partial.exists():
            with self._open() as file:
                file.write(end_of_tar(self._bytes))
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
            self._partial.replace(self._target)
        elif not self.parts:
            self._target.unlink(missing_ok=True)  # of a set that --overwrite was deleting when it was killed

    def _open(self) -> IO[bytes]:
        """Open it where its last whole part ends."""
        file = self._partial.open("r+b" if self._partial.exists() else "w+b")
        file.seek(self._bytes)
        return file


def put_whole(data: bytes, target: Path, work: Path) -> None:
    """Write a small file whole or not at all; until it is whole it lies in `work`."""
    partial = work / f"{target.name}.partial"
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)
