"""A part of an archive: a class tar, or so many validation pictures; the unit of work and of resume.

Runs in a worker process. A part is a file of tar blocks that only has to be appended to its archive.
"""

import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from alexnet.shards.manifest import SPLITS, Split
from alexnet.tools.synth.classes import traits_of, wnid_of
from alexnet.tools.synth.photograph import encode_photograph
from alexnet.tools.synth.randomness import Draws
from alexnet.tools.synth.settings import SynthSettings

VAL_PART_IMAGES = 1000
_ENDING = ".JPEG"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Name a part: of the training archive the class tar of label `number`, or of the validation archive a thousand."""

    folder: Path
    settings: SynthSettings
    split: Split
    number: int

    @property
    def path(self) -> Path:
        """Return where it is kept until its archive takes it; a file of that name is whole."""
        return self.folder / f"{self.split}-{self.number:06d}.part"

    @property
    def images(self) -> int:
        """Return how many pictures it has."""
        return len(self._val_numbers()) if self.split == "val" else self.settings.train_images(self.number)

    def write(self, on_image: Callable[[], None]) -> None:
        """Draw its pictures and write it; `on_image` is called before each and may raise to stop."""
        partial = self.path.with_suffix(".partial")
        with partial.open("wb") as file:
            if self.split == "train":
                self._write_class_tar(file, on_image)
            else:
                for number in self._val_numbers():
                    self._write_image(file, self.settings.val_label(number), self.settings.val_stem(number), on_image)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)

    def _write_class_tar(self, file: IO[bytes], on_image: Callable[[], None]) -> None:
        """Write the tar, and before it the header that the archive wants: known when the tar is whole."""
        file.write(bytes(tarfile.BLOCKSIZE))
        for stem in self.settings.train_stems(self.number):
            self._write_image(file, self.number, stem, on_image)
        file.write(end_of_tar(file.tell() - tarfile.BLOCKSIZE))
        length = file.tell() - tarfile.BLOCKSIZE
        file.seek(0)
        file.write(_header(f"{wnid_of(self.number)}.tar", length))

    def _write_image(self, file: IO[bytes], label: int, stem: str, on_image: Callable[[], None]) -> None:
        on_image()
        data = encode_photograph(traits_of(label), Draws(f"{self.settings.seed} {stem}"))
        file.write(_header(f"{stem}{_ENDING}", len(data)) + data + bytes(-len(data) % tarfile.BLOCKSIZE))

    def _val_numbers(self) -> range:
        first = self.number * VAL_PART_IMAGES + 1
        return range(first, min(first + VAL_PART_IMAGES, self.settings.val_images + 1))


def parts_of(folder: Path, settings: SynthSettings) -> dict[Split, list[Part]]:
    """Return the parts of both archives, in their order there."""
    counts = (settings.classes, -(-settings.val_images // VAL_PART_IMAGES))
    return {
        split: [Part(folder=folder, settings=settings, split=split, number=k) for k in range(count)]
        for split, count in zip(SPLITS, counts, strict=True)
    }


def end_of_tar(length: int) -> bytes:
    """Return what ends a tar of a length: two empty blocks, and more to fill its last record."""
    end = length + 2 * tarfile.BLOCKSIZE
    return bytes(end + -end % tarfile.RECORDSIZE - length)


def _header(name: str, size: int) -> bytes:
    """Return a member's header: one block, whatever the size, and no time or owner in it."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)
