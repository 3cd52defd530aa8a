"""What `alexnet-prep shard` does once its command line is read: open the source, build, and tell of it."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import PIL

from alexnet.pipeline.host.extension import available
from alexnet.shards.errors import InputError, one_line
from alexnet.shards.processes import usable_cores
from alexnet.tools.console import interruptible
from alexnet.tools.convert.build import BuildOptions, Progress, build
from alexnet.tools.convert.claim import drop_index, held, index_cache, index_time, is_begun, is_complete, refuse_early
from alexnet.tools.convert.classes import order_notes, select_classes
from alexnet.tools.convert.kept import changed_rejects, in_words, rejected_so_far
from alexnet.tools.convert.known import archives_in, md5_notes
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.progress import of_images, of_index
from alexnet.tools.convert.source_files import SourceChangedError
from alexnet.tools.convert.sources import check_out, find_layout, open_source
from alexnet.tools.convert.sources.layout import Layout
from alexnet.tools.convert.sources.walk import Walk
from alexnet.tools.convert.summary import Outcome, source_event, source_lines
from alexnet.tools.progress import progress, say

_SIMD_MARK = ".post"  # every release of pillow-simd is a post-release of the Pillow it was made from


@dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """Hold the command line as given; None where an option was left out."""

    out: Path | None
    train: tuple[str, ...]
    val: tuple[str, ...]
    classes: Path | None
    size_px: int | None
    quality: int
    shard_images: int
    seed: int
    workers: int | None
    on_error: str
    max_rejected: int | None
    engine: str
    address: str | None
    overwrite: bool
    md5: bool
    as_json: bool

    def __post_init__(self) -> None:
        if self.address is not None and self.engine != "ray":
            raise InputError(f"--address {self.address}: is of a Ray cluster; add --engine ray, or leave it out")

    def settings(self, native_px: int | None) -> ConvertSettings:
        """Return what shapes the bytes."""
        size_px = (native_px or ConvertSettings().size_px) if self.size_px is None else self.size_px
        return ConvertSettings(
            size_px=size_px,
            quality=self.quality,
            shard_images=self.shard_images,
            seed=self.seed,
            class_order="sorted" if self.classes is None else "as listed",
        )

    def build_options(self, since_ns: int) -> BuildOptions:
        """Return what does not, for a source that began to be listed then."""
        return BuildOptions(
            workers=self.workers or usable_cores(),
            on_error="fail" if self.on_error == "fail" else "reject",
            max_rejected=self.max_rejected,
            engine="ray" if self.engine == "ray" else "local",
            ray_address=self.address,
            overwrite=self.overwrite,
            since_ns=since_ns,
        )


def run_shard(source: Path, options: ShardOptions) -> None:
    """Convert a source as the command line says. Raises InputError and ConversionError; SystemExit when interrupted."""
    how = ", without --overwrite if it had begun to convert" if options.overwrite else ""
    with interruptible(f"interrupted; the same command continues{how}"):
        _warn(options)
        source = source.absolute()
        layout = find_layout(source, options.train, options.val)
        settings = options.settings(layout.size_px)
        root = options.out or _beside(source, settings.size_px)
        check_out(layout, root)
        with held(root) as check:
            outcome = _convert(layout, root, settings, options, check)
        if options.as_json:
            say(**outcome.as_event())
        else:
            for line in outcome.lines():
                click.echo(one_line(line))


def _beside(source: Path, size_px: int) -> Path:
    """Return where a data set goes if nobody says: beside its source, under that one's name with the size."""
    named = source.resolve() if source.name in ("", "..") else source
    if not named.name:
        raise InputError(f"{source}: nothing lies beside it; give --out")
    return named.with_name(f"{named.name}-{size_px}")


def _convert(
    layout: Layout, root: Path, settings: ConvertSettings, options: ShardOptions, check: Callable[[], None]
) -> Outcome:
    """Make the data set; list the source anew where the index that an earlier call kept proves outdated."""
    refuse_early(root, settings.as_manifest(), overwrite=options.overwrite)
    kept = None if options.overwrite else index_time(root)
    try:
        return _make(layout, root, settings, options, check)
    except SourceChangedError:
        outdated = kept is not None and kept == index_time(root)
        drop_index(root)
        if not outdated:
            raise
    except InputError:
        if not is_begun(root):  # no more is there than the list of the source, if that
            drop_index(root)
        raise
    return _make(layout, root, settings, options, check)


def _make(
    layout: Layout, root: Path, settings: ConvertSettings, options: ShardOptions, check: Callable[[], None]
) -> Outcome:
    """List the source and make the data set, or find that it is there, and show how far it is meanwhile."""
    since_ns = time.time_ns()
    found = _open(layout, root, options)
    already = is_complete(root) and not options.overwrite
    started, last = time.perf_counter(), Progress(0, 0, 0, 0)

    def on_progress(done: Progress) -> None:
        nonlocal last
        check()
        last = done
        view.update(of_images(done))

    with progress(as_json=options.as_json) as view:
        manifest = build(found, root, settings, options.build_options(since_ns), on_progress)
    seconds = time.perf_counter() - started
    return Outcome(root=root, manifest=manifest, seconds=seconds, progress=last, already=already)


def slowness() -> str | None:
    """Return what to tell the user where the slow Pillow is in use, or no host decoder beside it, else None.

    Pillow and pillow-simd are both the package `PIL`. Whichever was installed last is there, and a package that depends
    on plain Pillow installs that over the other without a word.
    """
    said = []
    if _SIMD_MARK not in PIL.__version__:
        said.append(
            f"Pillow {PIL.__version__} is in use and not pillow-simd: another package overwrote it. Images convert at "
            "half the speed, and not to the same bytes; to mend it: pip uninstall -y pillow; pip install "
            "--force-reinstall --no-deps pillow-simd"
        )
    if (why := available()) is not None:
        said.append(f"JPEGs that were cut short and closed again are not noticed, as {why}")
    return "; ".join(said) or None


def _warn(options: ShardOptions) -> None:
    message = slowness()
    if message and options.as_json:
        say(event="warning", message=message)
    elif message:
        click.echo(f"warning: {message}", err=True)


def _open(layout: Layout, root: Path, options: ShardOptions) -> Source:
    """List the source, and say what it is."""
    source = layout.root
    if not options.as_json:
        click.echo(one_line(f"reading the headers of {source} ..."))
    cache = None if options.overwrite else index_cache(root)  # it would go with the rest
    mended = changed_rejects(rejected_so_far(root), source) if cache else []
    if mended:
        drop_index(root)
    with progress(as_json=options.as_json) as view:
        found = open_source(source, cache, lambda walked: view.update(of_index(walked)), layout)
    if options.classes is None:
        found = dataclasses.replace(found, notes=(*found.notes, *order_notes(found)))
    else:
        found = select_classes(found, options.classes)
    if mended:
        note = f"changed since an earlier call, and tried again: {in_words(mended)}"
        found = dataclasses.replace(found, notes=(*found.notes, note))
    if options.md5:
        found = dataclasses.replace(found, notes=(*found.notes, *_md5(source, options)))
    if options.as_json:
        say(**source_event(found))
    else:
        for line in source_lines(found):
            click.echo(one_line(line))
    return found


def _md5(source: Path, options: ShardOptions) -> tuple[str, ...]:
    archives = archives_in(source)
    with progress(as_json=options.as_json) as view:
        walk = Walk(lambda walked: view.update(of_index(walked)))
        walk.begin("md5", "bytes", sum(path.stat().st_size for path in archives))
        notes = md5_notes(archives, walk.advance)
        walk.end()
    return notes or (f"--md5: none of the official archives is in {source}",)
