"""Which data are measured: those given, a synthetic set that no CPU's cache holds, or the bundled images; and why.

Their planes are a data set of its own, which is taken if it is there.

The synthetic set is made once by `alexnet-prep synth` in a cache folder, and found there again. ALEXNET_BENCH_IMAGES
changes how many images it has.
"""

import ctypes
import mmap
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from alexnet.pipeline import AugmentSettings
from alexnet.shards.errors import InputError
from alexnet.shards.local_root import local_root
from alexnet.shards.manifest import MANIFEST_NAME, Split, read_manifest
from alexnet.shards.reader import SplitReader
from alexnet.shards.resources import usable_cores
from alexnet.tools.bench.conditions import without_home
from alexnet.tools.bench.report import Data
from alexnet.tools.console import find_data, tell

IMAGES, CLASSES, SEED = 50_000, 1_000, 2012
_VARIABLE = "ALEXNET_BENCH_IMAGES"
_IMAGE_BYTES = 25_000  # with its share of the index and of validation images
_CORE_IMAGES_PER_S = 800  # made and encoded, roughly: for a word of warning
_SPARE = 2.0  # times what it takes: a disk that this fills is not to be filled
_REPEATED_BELOW_BATCHES = 8


@dataclass(frozen=True, kw_only=True)
class LoaderTask:
    """What a row of the data path works on. `threads`: of decoders, or worker processes where a loader has those.

    `url`: where the data set lies in object storage, whose copy on this machine `data` is; empty for one that is local.
    """

    data: str
    split: Split
    batch_images: int
    threads: int
    url: str = ""

    @cached_property
    def reader(self) -> SplitReader:
        """Open the images."""
        return SplitReader(Path(self.data), self.split)

    @property
    def size_px(self) -> int:
        """Return the side of the images."""
        return self.reader.manifest.size_px

    @property
    def crop_px(self) -> int:
        """Return the side of the crops."""
        return min(AugmentSettings().crop_px, self.size_px)

    @property
    def mean(self) -> npt.NDArray[np.float32]:
        """Return the channels' mean: float32 (3,), 0-255."""
        return np.asarray(self.reader.manifest.colour.mean, np.float32)

    def describe(self, why: str) -> Data:
        """Describe the data. `why`: these are taken."""
        reader = self.reader
        return Data(
            path=self.url or without_home(Path(self.data)),
            why=why,
            images=len(reader),
            bytes_per_image=round(reader.stored_bytes() / len(reader)),
            batch_images=self.batch_images,
            split=self.split,
            manifest=reader.manifest.digest(),
            size_px=self.size_px,
            repeated=len(reader) < _REPEATED_BELOW_BATCHES * self.batch_images,
            cached=cached_share(self.files),
        )

    @property
    def files(self) -> list[Path]:
        """Return the shards."""
        return [self.reader.root / shard.file for shard in self.reader.shards]


class Planes(NamedTuple):
    """Name the data set of planes of the images that are measured; or `why` there is none."""

    data: str = ""
    why: str = "no data set of planes was looked for"

    def describe(self, task: LoaderTask) -> str:
        """Say in a line what planes a task's images have, and whether the system has them in its cache now."""
        planes = replace(task, data=self.data, url="").describe("")
        cached = "" if planes.cached is None else f"; {planes.cached:.0%} in the system's cache afterwards"
        return f"planes: {planes.path}, {planes.bytes_per_image:,} bytes an image{cached}"


def planes_of(task: LoaderTask, given: Path | None) -> Planes:
    """Find the planes of a task's images: the set that was given, else DATA-planes beside DATA.

    Raises InputError for a set that was given and is not theirs, and where the task's images are planes already.
    """
    data = Path(task.data)
    if task.reader.manifest.stored.encoding != "jpeg":
        named = task.url or data
        raise InputError(f"{named}: holds planes; give the data set that they were decoded from, with --planes {named}")
    folder = (given or data.with_name(f"{data.name}-planes")).absolute()
    if given is None and not (folder / MANIFEST_NAME).exists():
        return Planes(why=f"there is no {without_home(folder)}; `alexnet-prep decode {without_home(data)}` makes it")
    if reason := _no_planes_of(task, replace(task, data=str(folder))):
        if given is not None:
            raise InputError(f"--planes {reason}")
        return Planes(why=reason)
    return Planes(str(folder), "")


def _no_planes_of(task: LoaderTask, planes: LoaderTask) -> str:
    """Say why a data set does not hold the images of a task as planes; nothing if it does."""
    folder, images = without_home(Path(planes.data)), task.reader.manifest.images_digest()
    try:
        manifest, count = planes.reader.manifest, len(planes.reader)
    except InputError as error:
        return str(error)
    if manifest.stored.encoding == "jpeg" or manifest.images_digest() != images:
        return f"{folder}: does not hold the planes of {without_home(Path(task.data))}; give what `decode` made of it"
    return "" if count else f"{folder}: has no {task.split} images; decode them, or give --split with the other"


def bench_data(given: Path | None, *, quick: bool) -> tuple[Path, str]:
    """Return the data set to measure on, and why, in words; make it if it is not there. Raises InputError.

    What is given, or named by ALEXNET_DATA, is taken as it is; `quick` takes the bundled images.
    """
    found, why = find_data(given)
    if given is not None or os.environ.get("ALEXNET_DATA"):
        return local_root(found), why
    if quick:
        return found, f"{why}; --quick makes none"
    text = os.environ.get(_VARIABLE) or str(IMAGES)
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InputError(f"{_VARIABLE}={text}: must be a whole number of at least 1")
    images = int(text)
    folder, why = _cache_folder() / f"bench-{SEED}-{images}", f"made by `alexnet-prep synth` with seed {SEED}"
    if _is_complete(folder):
        return folder, f"{why}, found in the cache"
    if short := _no_space(folder.parent, images):
        return found, f"the bundled images, as {short}"
    minutes = images / _CORE_IMAGES_PER_S / usable_cores() / 60
    tell(
        f"no DATA was given: making {images:,} images in {folder}, once; about {images * _IMAGE_BYTES / 1e9:.1f} GB "
        f"and {minutes:.1f} minutes (--quick takes the bundled 100 images instead)",
        err=True,
    )
    from alexnet.tools.synth.command import synth

    made = ["--images", str(images), "--classes", str(min(CLASSES, images)), "--seed", str(SEED)]
    synth.main([str(folder), *made], standalone_mode=False)
    return folder, why


def cached_share(files: Sequence[Path]) -> float | None:
    """Return the share of files that the system has in its cache; None where it does not say.

    Asked with `mincore`, which brings nothing in, unlike a look with a read. Linux answers who may write a file.
    """
    if not all(os.access(path, os.W_OK) for path in files):
        return None
    found = [_pages_held(path) for path in files if path.stat().st_size]
    known = [flags for flags in found if flags is not None]
    return float(np.concatenate(known).mean()) if known and len(known) == len(found) else None


def _pages_held(path: Path) -> npt.NDArray[np.uint8] | None:
    """Say of each page of a file, which is not empty, whether it is cached: uint8 (pages,), 0 or 1."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as memory:
        flags, first = np.zeros(-(-len(memory) // mmap.PAGESIZE), np.uint8), ctypes.c_char.from_buffer(memory)
        try:
            address, size = ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(len(memory))
            failed = ctypes.CDLL(None).mincore(address, size, ctypes.c_void_p(flags.ctypes.data))
        except AttributeError:  # another system than Linux
            failed = True
        finally:
            del first  # or the mapping could not be closed
    return None if failed else flags & np.uint8(1)


def _cache_folder() -> Path:
    """Return the folder for what can be made again. Raises InputError for a user without any, as in some containers."""
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "alexnet"
    try:
        return Path.home() / ".cache" / "alexnet"
    except RuntimeError:
        raise InputError("this user has no home folder to make images in: give DATA, or set XDG_CACHE_HOME") from None


def _is_complete(folder: Path) -> bool:
    """Say whether a set is there: its manifest is written last."""
    try:
        read_manifest(folder)
    except InputError:
        return False
    return True


def _no_space(parent: Path, images: int) -> str:
    """Say why there is no disk space for the set; empty if there is."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(parent).free
    except OSError as error:
        return f"{parent} cannot be written ({error.strerror})"
    needed = _SPARE * images * _IMAGE_BYTES
    return f"{parent} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are wanted" if free < needed else ""
