"""What `alexnet-prep synth` does once its command line is read: draw the set, and tell of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from alexnet.shards.errors import InputError
from alexnet.shards.processes import usable_cores
from alexnet.tools.console import interruptible, tell
from alexnet.tools.convert.build import BuildOptions, Progress, build, job_of
from alexnet.tools.convert.claim import held, is_complete, refuse_early
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.progress import of_images
from alexnet.tools.convert.summary import Outcome, source_event
from alexnet.tools.progress import progress, say
from alexnet.tools.synth.archives import write_archives
from alexnet.tools.synth.picture import PICTURE_PX
from alexnet.tools.synth.settings import SynthSettings, default_val_images
from alexnet.tools.synth.source import drawn_source


@dataclass(frozen=True, kw_only=True)
class SynthOptions:
    """Hold the command line as given; None where an option was left out."""

    classes: int
    images: int
    val_images: int | None
    seed: int
    layout: Literal["shards", "official"]
    size_px: int | None
    shard_images: int | None
    workers: int | None
    overwrite: bool
    as_json: bool

    def settings(self) -> SynthSettings:
        """Return what is drawn. Raises InputError if that cannot be."""
        val_images = default_val_images(self.classes, self.images) if self.val_images is None else self.val_images
        return SynthSettings(classes=self.classes, images=self.images, val_images=val_images, seed=self.seed)

    def shard_settings(self) -> ConvertSettings:
        """Return how shards are made of it. Raises InputError if they cannot be."""
        for option, value in (("--size", self.size_px), ("--shard-images", self.shard_images)):
            if self.layout == "official" and value is not None:
                raise InputError(f"{option} {value}: is for --layout shards; leave it out, or give it to `shard` later")
        default = ConvertSettings()
        size_px = default.size_px if self.size_px is None else self.size_px
        if size_px > PICTURE_PX:
            raise InputError(
                f"size_px={size_px}: must be at most {PICTURE_PX}, as large as pictures are drawn; for more, draw them "
                "with --layout official and make shards of them with `alexnet-prep shard --size`"
            )
        shard_images = default.shard_images if self.shard_images is None else self.shard_images
        return ConvertSettings(size_px=size_px, shard_images=shard_images, seed=self.seed)

    @property
    def processes(self) -> int:
        """Return how many workers there are to be."""
        return self.workers or usable_cores()


def run_synth(root: Path, options: SynthOptions) -> None:
    """Draw a set as the command line says. Raises InputError and StoppedError; SystemExit when interrupted."""
    settings, shard_settings = options.settings(), options.shard_settings()
    how = ", without --overwrite if it had begun to draw" if options.overwrite else ""
    with interruptible(f"interrupted; the same command continues{how}"), _naming_dir(), held(root) as check:
        if options.layout == "official":
            _draw_archives(root, settings, options, check)
        else:
            _draw_shards(root, settings, shard_settings, options, check)


def _draw_shards(
    root: Path,
    settings: SynthSettings,
    shard_settings: ConvertSettings,
    options: SynthOptions,
    check: Callable[[], None],
) -> None:
    refuse_early(root, shard_settings.as_manifest(), overwrite=options.overwrite)
    source = drawn_source(settings)
    already = is_complete(root) and not options.overwrite
    if options.as_json:
        say(**source_event(source))
    elif not already:
        click.echo(f"drawing {source.description}")
    started, last = time.perf_counter(), Progress(0, 0, 0, 0)

    def on_progress(done: Progress) -> None:
        nonlocal last
        check()
        last = done
        view.update(of_images(done))

    with progress(as_json=options.as_json) as view:
        how = BuildOptions(workers=options.processes, overwrite=options.overwrite)
        manifest = build(source, root, shard_settings, how, on_progress)
    seconds = time.perf_counter() - started
    outcome = Outcome(root=root, manifest=manifest, seconds=seconds, progress=last, already=already)
    if options.as_json:
        say(**outcome.as_event())
    else:
        for line in outcome.lines():
            tell(line)


def _draw_archives(root: Path, settings: SynthSettings, options: SynthOptions, check: Callable[[], None]) -> None:
    source = drawn_source(settings)
    if options.as_json:
        say(**source_event(source))
    started, total = time.perf_counter(), settings.images + settings.val_images
    here = 0

    def on_progress(drawn: int, resumed: int) -> None:
        nonlocal here
        check()
        here = drawn
        view.update(of_images(Progress(drawn, 0, resumed, total)))

    with progress(as_json=options.as_json) as view:
        made = write_archives(
            root,
            settings,
            job_of(source, ConvertSettings())["versions"],
            workers=options.processes,
            overwrite=options.overwrite,
            on_progress=on_progress,
        )
    seconds = time.perf_counter() - started
    if options.as_json:
        say(event="complete", root=str(root), layout="official", seconds=round(seconds, 3) if made else None)
    elif not made:
        tell(f"{root} was already complete; nothing to do")
    else:
        size = sum(path.stat().st_size for path in root.iterdir())
        earlier = f" ({total - here:,} more by an earlier call)" if here < total else ""
        tell(
            f"{root} is complete: {size / 1e9:,.2f} GB in ILSVRC-2012's layout; {here:,} images{earlier} in "
            f"{seconds:,.1f} s, {here / seconds:,.0f} images/s; `alexnet-prep shard {root}` makes shards of it"
        )


@contextmanager
def _naming_dir() -> Iterator[None]:
    """Have what the converter says of its option --out say DIR, which is what this command has."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace("--out", "DIR")) from None
