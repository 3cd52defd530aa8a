"""What `alexnet-prep synth` does once its command line is read: make the set, and tell of it.

The converter reads a set as a source of which no file exists: each image is made when it is opened. So shards are made
by the converter itself, with its workers, its resume, its lock and its manifest. What it opens is an uncompressed
bitmap of 256x256 px, which Pillow turns into an image in 0.05 ms, an eighth of what making and encoding take.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import click

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import ClassRecord, Split
from alexnet.shards.resources import usable_cores
from alexnet.tools.console import interruptible, tell
from alexnet.tools.convert.build import BuildOptions
from alexnet.tools.convert.earlier import job_of
from alexnet.tools.convert.folder import held, is_complete, refuse_early
from alexnet.tools.convert.listing import Listing, Rows, Source, sizes_of
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.run import convert, tell_source
from alexnet.tools.progress import Amount, progress, say
from alexnet.tools.synth.archives import write_archives
from alexnet.tools.synth.classes import VERSION, SynthSettings, wnid_of, words_of
from alexnet.tools.synth.image import BITMAP_BYTES, IMAGE_PX, open_synthetic

_TRAIN_FOR_VAL = 20


def run_synth(
    root: Path,
    *,
    classes: int,
    images: int,
    val_images: int | None,
    seed: int,
    layout: Literal["shards", "official"],
    size_px: int | None,
    shard_images: int | None,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make a set as the command line says. Raises InputError and StoppedError; SystemExit when interrupted."""
    if val_images is None:
        val_images = max(classes, images // _TRAIN_FOR_VAL)
    settings = SynthSettings(classes=classes, images=images, val_images=val_images, seed=seed)
    shards = _shard_settings(size_px, shard_images, layout, seed)
    how = BuildOptions(workers=workers or usable_cores(), overwrite=overwrite)
    goes_on = "continues" if layout == "shards" else "starts over"
    line = f"interrupted; the same command {goes_on}{', without --overwrite if it had begun' if overwrite else ''}"
    with interruptible(line), _naming_dir(), held(root) as check:
        if layout == "shards":
            refuse_early(root, shards.as_manifest(), overwrite=overwrite)
        source = synthetic_source(settings)
        if as_json:
            tell_source(source, as_json=True)
        if layout == "official":
            _make_archives(root, settings, job_of(source, shards).versions, how, check, as_json=as_json)
            return
        if not as_json and (overwrite or not is_complete(root)):
            click.echo(f"making {source.description}")
        convert(source, root, shards, how, check, as_json=as_json)


def _shard_settings(size_px: int | None, shard_images: int | None, layout: str, seed: int) -> ConvertSettings:
    """Return how shards are made of it. Raises InputError if they cannot be."""
    for option, value in (("--size", size_px), ("--shard-images", shard_images)):
        if layout == "official" and value is not None:
            raise InputError(f"{option} {value}: is for --layout shards; leave it out, or give it to `shard` later")
    if size_px is not None and size_px > IMAGE_PX:
        raise InputError(
            f"size_px={size_px}: must be at most {IMAGE_PX}, as large as images are made; for more, make them with "
            "--layout official and shards of them with `alexnet-prep shard --size`"
        )
    return ConvertSettings(
        size_px=ConvertSettings.size_px if size_px is None else size_px,
        shard_images=ConvertSettings.shard_images if shard_images is None else shard_images,
        seed=seed,
    )


def _make_archives(
    root: Path,
    settings: SynthSettings,
    versions: dict[str, str],
    how: BuildOptions,
    check: Callable[[], None],
    *,
    as_json: bool,
) -> None:
    started, total = time.perf_counter(), settings.images + settings.val_images

    def on_progress(made: int) -> None:
        check()
        view.update(Amount(event="progress", done=made, total=total, unit="images", counts={"rejected": 0}))

    with progress(as_json=as_json) as view:
        made = write_archives(
            root, settings, versions, workers=how.workers, overwrite=how.overwrite, on_progress=on_progress
        )
    seconds = time.perf_counter() - started
    if as_json:
        say(event="complete", root=str(root), layout="official", seconds=round(seconds, 3) if made else None)
    elif not made:
        tell(f"{root} was already complete; nothing to do")
    else:
        size = sum(path.stat().st_size for path in root.iterdir())
        tell(
            f"{root} is complete: {size / 1e9:,.2f} GB in ILSVRC-2012's layout; {total:,} images in {seconds:,.1f} s, "
            f"{total / seconds:,.0f} images/s; `alexnet-prep shard {root}` makes shards of it"
        )


@contextmanager
def _naming_dir() -> Iterator[None]:
    """Have what the converter says of its option --out say DIR, which is what this command has."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace("--out", "DIR")) from None


def synthetic_source(settings: SynthSettings) -> Source:
    """List the images of a set as the converter wants a source listed."""
    train = (_rows("train", label, settings.train_stems(label)) for label in range(settings.classes))
    val = (_rows("val", *of_one) for of_one in zip(settings.val_labels(), zip(settings.val_stems()), strict=True))
    members: dict[Split, Listing] = {
        "train": Listing.of(train, in_folders=True),
        "val": Listing.of(val, in_folders=True),
    }
    return Source(
        root=Path("the synthetic images"),  # which are on no disk
        opener=partial(open_synthetic, seed=settings.seed),
        kind=f"synthetic-{VERSION}",
        classes=tuple(ClassRecord(wnid=wnid_of(label), words=words_of(label)) for label in range(settings.classes)),
        members=members,
        description=f"{settings.classes:,} classes, {sizes_of(members)} images, from seed {settings.seed}",
    )


def _rows(split: Split, label: int, stems: Iterable[str]) -> Rows:
    return label, f"{split}/{wnid_of(label)}", [(f"{stem}.bmp".encode(), 0, BITMAP_BYTES) for stem in stems]
