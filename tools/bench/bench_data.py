"""Which data are measured when none are given: a synthetic set that no cache holds, or the bundled images, and why.

The set is made once by `alexnet-prep synth` in a cache folder, and found there again. ALEXNET_BENCH_IMAGES changes how
many images it has.
"""

import os
import shutil
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import read_manifest
from alexnet.shards.processes import usable_cores
from alexnet.tools.console import find_data, tell

IMAGES, CLASSES, SEED = 50_000, 1_000, 2012
_VARIABLE = "ALEXNET_BENCH_IMAGES"
_IMAGE_BYTES = 25_000  # with its share of the index and of validation images
_CORE_IMAGES_PER_S = 800  # made and encoded, roughly: for a word of warning
_SPARE = 2.0  # times what it takes: a disk that this fills is not to be filled


def bench_data(given: Path | None, *, quick: bool) -> tuple[Path, str]:
    """Return the data set to measure on, and why, in words; make it if it is not there. Raises InputError.

    What is given, or named by ALEXNET_DATA, is taken as it is; `quick` takes the bundled images.
    """
    found, why = find_data(given)
    if given is not None or os.environ.get("ALEXNET_DATA"):
        return found, why
    if quick:
        return found, f"{why}; --quick makes none"
    text = os.environ.get(_VARIABLE) or str(IMAGES)
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InputError(f"{_VARIABLE}={text}: must be a whole number of at least 1")
    images = int(text)
    folder, why = cache_folder() / f"bench-{SEED}-{images}", f"made by `alexnet-prep synth` with seed {SEED}"
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
    _make(folder, images)
    return folder, why


def cache_folder() -> Path:
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


def _make(folder: Path, images: int) -> None:
    from alexnet.tools.synth.run import run_synth

    run_synth(
        folder,
        classes=min(CLASSES, images),
        images=images,
        val_images=None,
        seed=SEED,
        layout="shards",
        size_px=None,
        shard_images=None,
        workers=None,
        overwrite=False,
        as_json=False,
    )
