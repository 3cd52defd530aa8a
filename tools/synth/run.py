"""What `alexnet-prep synth` does once its command line is read: make the set, and tell of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import click

from alexnet.shards.errors import InputError
from alexnet.shards.processes import usable_cores
from alexnet.tools.console import interruptible, tell
from alexnet.tools.convert.build import BuildOptions, Progress
from alexnet.tools.convert.folder import held, is_complete, job_of, refuse_early
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.run import convert, of_images, tell_source
from alexnet.tools.progress import progress, say
from alexnet.tools.synth.archives import write_archives
from alexnet.tools.synth.image import IMAGE_PX
from alexnet.tools.synth.source import SynthSettings, default_val_images, synthetic_source


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
    val_images = default_val_images(classes, images) if val_images is None else val_images
    settings = SynthSettings(classes=classes, images=images, val_images=val_images, seed=seed)
    shards = _shard_settings(size_px, shard_images, layout, seed)
    how = BuildOptions(workers=workers or usable_cores(), overwrite=overwrite)
    goes_on = "continues" if layout == "shards" else "starts over"
    line = f"interrupted; the same command {goes_on}{', without --overwrite if it had begun' if overwrite else ''}"
    with interruptible(line), _naming_dir(), held(root) as check:
        if layout == "official":
            _make_archives(root, settings, how, check, as_json=as_json)
        else:
            _make_shards(root, settings, shards, how, check, as_json=as_json)


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
    usual = ConvertSettings()
    return ConvertSettings(
        size_px=usual.size_px if size_px is None else size_px,
        shard_images=usual.shard_images if shard_images is None else shard_images,
        seed=seed,
    )


def _make_shards(
    root: Path,
    settings: SynthSettings,
    shards: ConvertSettings,
    how: BuildOptions,
    check: Callable[[], None],
    *,
    as_json: bool,
) -> None:
    refuse_early(root, shards.as_manifest(), overwrite=how.overwrite)
    source = synthetic_source(settings)
    if as_json:
        tell_source(source, as_json=True)
    elif how.overwrite or not is_complete(root):
        click.echo(f"making {source.description}")
    convert(source, root, shards, how, check, as_json=as_json)


def _make_archives(
    root: Path, settings: SynthSettings, how: BuildOptions, check: Callable[[], None], *, as_json: bool
) -> None:
    source = synthetic_source(settings)
    if as_json:
        tell_source(source, as_json=True)
    started, total = time.perf_counter(), settings.images + settings.val_images

    def on_progress(made: int) -> None:
        check()
        view.update(of_images(Progress(made, 0, 0, total)))

    versions = job_of(source, ConvertSettings()).versions
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
